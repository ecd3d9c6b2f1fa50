"""What the machine is, and whether anything else is using it."""

from __future__ import annotations

import os
import platform
import re
import time
from pathlib import Path
from typing import Any

_STAT = Path("/proc/stat")


def cpu_name() -> str:
    """The CPU's name."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() in {"model name", "Model"}:
                return value.strip()
    return platform.processor() or platform.machine()


def threads() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory() -> int:
    """Bytes of physical memory; 0 where the system does not say."""
    names = getattr(os, "sysconf_names", {})
    if {"SC_PAGE_SIZE", "SC_PHYS_PAGES"} <= set(names):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return 0


def facts() -> dict[str, Any]:
    """What a record says of the machine."""
    flags = {"avx2", "fma", "avx_vnni", "avx512f", "avx512_vnni", "amx_int8", "asimddp", "i8mm", "hypervisor"}
    info = Path("/proc/cpuinfo")
    found = set(re.findall(r"\w+", info.read_text(errors="replace"))) & flags if info.exists() else set()
    return {
        "cpu": cpu_name(),
        "cpus": threads(),
        "memory": memory(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "flags": sorted(found),
    }


def slug(name: str) -> str:
    """A name as part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "cpu"


class Clock:
    """Counts how the CPUs' time is spent, from its making on."""

    def __init__(self) -> None:
        self.before = self._read()

    @staticmethod
    def _read() -> list[int]:
        if not _STAT.exists():
            return []
        return [int(ticks) for ticks in _STAT.read_text().splitlines()[0].split()[1:]]

    def _shares(self) -> dict[str, float]:
        spent = [after - before for before, after in zip(self.before, self._read(), strict=True)]
        total = sum(spent[:8])
        if not total:
            return {"idle": 1.0, "steal": 0.0}
        return {"idle": (spent[3] + spent[4]) / total, "steal": spent[7] / total}

    def steal(self) -> float:
        """The share of the CPUs' time that the host gave to others; 0 where the system does not say."""
        return self._shares()["steal"] if self.before else 0.0

    def busy(self) -> float:
        """The share of the CPUs' time that was used; 0 where the system does not say."""
        return 1 - self._shares()["idle"] if self.before else 0.0


def busy(seconds: float = 2.0) -> float:
    """How busy the machine is while this program waits."""
    clock = Clock()
    time.sleep(seconds)
    return clock.busy()
