"""The one thing that an Arm build asks of the CPU before its library may run."""

from __future__ import annotations

import sys

from .errors import UnsupportedCpuError

CPUINFO = "/proc/cpuinfo"


def require_half_precision(cpuinfo: str = CPUINFO, machine: str | None = None) -> None:
    """Refuses an aarch64 Linux machine whose CPU lacks half-precision arithmetic, which this build uses.

    Without this check the process would die of SIGILL later. Elsewhere, and where the system does not tell, it
    passes: Apple's CPUs all have it, and Windows does not report it.

    Args:
        cpuinfo: The system's file on its CPUs.
        machine: The machine's architecture; `None` = this one's.

    Raises:
        UnsupportedCpuError: The CPU lacks "fp16".
    """
    if machine is None:
        if sys.platform != "linux":
            return
        import os

        machine = os.uname().machine
    if machine != "aarch64":
        return
    try:
        with open(cpuinfo, encoding="ascii", errors="replace") as file:  # noqa: PTH123 - pathlib would slow the import
            lines = [line for line in file if line.startswith("Features")]
    except OSError:
        return
    if lines and not all({"fphp", "asimdhp"} <= set(line.split()) for line in lines):
        raise UnsupportedCpuError(
            "This build of phicandle needs half-precision arithmetic (fp16), which this Arm CPU lacks.",
            hint="Use a machine with Armv8.2-A or later, or build from source without `+fp16` in .cargo/config.toml.",
            missing=("fp16",),
        )
