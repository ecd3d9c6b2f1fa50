"""GGUF files that are known to be sound (ggml's `docs/gguf.md`)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .blocks import BLOCKS, Array, dequantise

_FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True)
class Tensor:
    """A tensor as it lies in the file; `shape` has the rows first, as NumPy has it."""

    kind: str
    shape: tuple[int, ...]
    data: memoryview

    def values(self) -> Array:
        """Its numbers."""
        return dequantise(self.data, self.kind).reshape(self.shape)


@dataclass(frozen=True)
class File:
    """What a file holds."""

    metadata: dict[str, Any]
    tensors: dict[str, Tensor]


class _Cursor:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 8

    def number(self, code: str) -> Any:
        (value,) = struct.unpack_from(f"<{code}", self.data, self.at)
        self.at += struct.calcsize(f"<{code}")
        return value

    def string(self) -> str:
        length = self.number("Q")
        self.at += length
        return self.data[self.at - length : self.at].decode(errors="replace")

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            element, count = self.number("I"), self.number("Q")
            return [self.value(element) for _ in range(count)]
        return self.number(_FORMATS[kind])


def read(path: Path) -> File:
    """The file at `path`. Tensors of types that are no weights are left out."""
    cursor = _Cursor(path.read_bytes())
    tensors, keys = cursor.number("Q"), cursor.number("Q")
    metadata: dict[str, Any] = {}
    for _ in range(keys):
        name = cursor.string()
        metadata[name] = cursor.value(cursor.number("I"))
    infos = []
    for _ in range(tensors):
        name = cursor.string()
        shape = [cursor.number("Q") for _ in range(cursor.number("I"))]
        infos.append((name, shape, cursor.number("I"), cursor.number("Q")))
    alignment = metadata.get("general.alignment", 32)
    base = -(-cursor.at // alignment) * alignment
    numbers = {block.number: kind for kind, block in BLOCKS.items()}
    found = {}
    for name, shape, number, offset in infos:
        if kind := numbers.get(number):
            block = BLOCKS[kind]
            size = int(np.prod(shape)) // block.elements * block.size
            data = memoryview(cursor.data)[base + offset : base + offset + size]
            found[name] = Tensor(kind, tuple(reversed(shape)), data)
    return File(metadata, found)
