"""The engines, each in a Python environment of its own in the user's cache."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
import venv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from . import points

RUNNERS = Path(__file__).resolve().parent / "runners"
#: So that nothing but AVX2 is used, in the compiled code and at run time.
_AVX2_ONLY = (
    "-DGGML_NATIVE=OFF -DGGML_AVX=ON -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON -DGGML_AVX512=OFF "
    "-DGGML_AVX512_VNNI=OFF -DGGML_AVX512_VBMI=OFF -DGGML_AVX512_BF16=OFF -DGGML_AVX_VNNI=OFF"
)
_LLAMA = "llama-cpp-python==0.3.36"


@dataclass(frozen=True)
class Peer:
    """A package that is measured."""

    engine: str
    folder: str
    requirement: str
    note: str
    #: Compiled from source, with these variables.
    compiled: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)
    #: Only for this kind of CPU.
    machines: tuple[str, ...] = ()

    def python(self, cache: Path) -> Path:
        """Its interpreter."""
        return interpreter(cache / self.folder)

    def recipe(self) -> str:
        """What its environment is made of; another text means another environment."""
        text = f"{sys.version_info[:2]} {self.requirement} {sorted(self.variables.items())}"
        return hashlib.sha256(text.encode()).hexdigest()

    def is_installed(self, cache: Path) -> bool:
        """Whether its environment is there, made by this recipe."""
        stamp = cache / self.folder / "recipe"
        return stamp.exists() and stamp.read_text() == self.recipe()

    def obstacle(self) -> str | None:
        """Why it cannot be here."""
        if self.machines and platform.machine().lower() not in self.machines:
            return f"it is for {' and '.join(self.machines)} only"
        return None


PEERS = (
    Peer(points.LLAMA, "llama-cpp", _LLAMA, "compiled here, for this CPU: 5 to 20 minutes", compiled=True),
    Peer(
        points.LLAMA,
        "llama-cpp-avx2",
        _LLAMA,
        "compiled here, for AVX2 only: 5 to 20 minutes",
        compiled=True,
        variables={"CMAKE_ARGS": _AVX2_ONLY},
        machines=("x86_64", "amd64"),
    ),
    Peer(points.MISTRAL, "mistralrs", "mistralrs==0.9.5", "a wheel"),
    Peer(points.OPENVINO, "openvino-genai", "openvino-genai==2026.4.1.0", "wheels, 60 MB"),
)


def interpreter(folder: Path) -> Path:
    """The Python of a virtual environment."""
    return folder / "Scripts" / "python.exe" if os.name == "nt" else folder / "bin" / "python"


def environment(extra: Mapping[str, str] = {}) -> dict[str, str]:
    """Variables for a child: none of the caller's Python settings, none that would change what an engine does."""
    drop = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    engines = ("PHICANDLE_", "GGML_", "LLAMA_", "OMP_", "MISTRALRS_", "CANDLE_", "RAYON_")
    kept = {k: v for k, v in os.environ.items() if k not in drop and not k.startswith(engines)}
    return kept | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"} | dict(extra)


def install(peer: Peer, cache: Path, jobs: int) -> str | None:
    """Makes its environment. Returns why that failed, if it did."""
    folder = cache / peer.folder
    log = cache / f"{peer.folder}.log"
    print(f"Installing {peer.requirement} into {folder}: {peer.note}; log: {log}", file=sys.stderr)
    words = [str(interpreter(folder)), "-m", "pip", "install", "--verbose", peer.requirement]
    if peer.compiled:
        # A wheel that pip has kept may have been compiled for another tier.
        words += ["--no-cache-dir", "--no-binary", peer.requirement.partition("=")[0]]
    variables = {"CMAKE_BUILD_PARALLEL_LEVEL": str(jobs), **peer.variables}
    cache.mkdir(parents=True, exist_ok=True)
    try:
        venv.create(folder, clear=True, with_pip=True)
        with log.open("w") as file:
            status = subprocess.run(
                words, stdout=file, stderr=subprocess.STDOUT, env=environment(variables), check=False
            ).returncode
    except (OSError, subprocess.CalledProcessError) as error:
        return f"it could not be installed: {error}"
    if status:
        return f"pip ended with status {status}, see {log}"
    (folder / "recipe").write_text(peer.recipe())
    return None


def prepare(cache: Path, engines: tuple[str, ...], *, may_install: bool, jobs: int) -> dict[str, str]:
    """Sees to it that the engines are there. Returns why some are not, by folder; says all that it does."""
    missing = {}
    for peer in PEERS:
        if peer.engine not in engines or peer.is_installed(cache):
            continue
        reason = peer.obstacle()
        if reason is None:
            reason = (
                install(peer, cache, jobs) if may_install else "it is not installed (--install does that)"
            )
        if reason is not None:
            missing[peer.folder] = reason
            print(f"NOT MEASURED: {peer.requirement} in {peer.folder}: {reason}", file=sys.stderr)
    return missing
