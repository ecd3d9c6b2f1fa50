"""The model files that are measured."""

from __future__ import annotations

import contextlib
import mmap
from dataclasses import replace
from pathlib import Path
from typing import Any

from phi3_shape import Shape, find_or_write
from smollm2 import fetch

from .points import PHI, SMOL

#: Bytes of a number of the keys and values in q8: its own, and its part of a scale.
Q8_BYTES = 200_704 / 196_608


def _shape(layers: int | None) -> Shape:
    return replace(Shape(), layers=layers) if layers else Shape()


def find(models: set[str], layers: int | None = None) -> dict[str, Path]:
    """The files of the models, written or fetched if need be; `layers` for fewer than Phi-3-mini has."""
    files = {}
    if PHI in models:
        files[PHI] = find_or_write(shape=_shape(layers))
    if SMOL in models:
        files[SMOL] = fetch()
    return files


def warm(path: Path) -> None:
    """Reads a file, so that it is in the page cache."""
    with path.open("rb", buffering=0) as file:
        while file.read(1 << 24):
            pass


def touch_memory(size: int) -> None:
    """Writes to as many bytes of fresh memory, in huge pages where there are any, and gives them back to the system."""
    with mmap.mmap(-1, size) as memory:
        if hasattr(mmap, "MADV_HUGEPAGE"):
            # A kernel without huge pages refuses.
            with contextlib.suppress(OSError):
                memory.madvise(mmap.MADV_HUGEPAGE)
        for at in range(0, size, mmap.PAGESIZE):
            memory[at] = 1


def facts(path: Path) -> dict[str, Any]:
    """What a record says of a model file."""
    return {"file": path.name, "file_bytes": path.stat().st_size}


def phi_sizes(layers: int | None = None) -> dict[str, int]:
    """Sizes of the Phi-3-mini shape, for the limits."""
    shape = _shape(layers)
    return {
        "decode_bytes": shape.decode_bytes(),
        "layer_macs": shape.layer_macs(),
        "output_macs": shape.embd * shape.vocab,
        "kv_bytes": shape.kv_bytes(),
        "kv_q8_bytes": shape.kv_bytes(Q8_BYTES),
    }
