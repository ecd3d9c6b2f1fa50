"""Weights as bytes, for `gguf_files.py`: numbers rounded to a simple type, or random blocks of any quantised one.

Only the standard library is used. A random block has random quants and random small scales; its half-precision scale is
chosen so that the weights are spread as asked for, about a mean of nearly zero.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass

#: Numbers of tensor types, their elements per block and bytes per block.
DTYPES = {
    "F32": (0, 1, 4), "F16": (1, 1, 2), "Q4_0": (2, 32, 18), "Q4_1": (3, 32, 20), "Q5_0": (6, 32, 22),
    "Q5_1": (7, 32, 24), "Q8_0": (8, 32, 34), "Q8_1": (9, 32, 36), "Q2_K": (10, 256, 84), "Q3_K": (11, 256, 110),
    "Q4_K": (12, 256, 144), "Q5_K": (13, 256, 176), "Q6_K": (14, 256, 210), "Q8_K": (15, 256, 292),
    "IQ2_XS": (17, 256, 74), "IQ4_NL": (20, 32, 18), "IQ4_XS": (23, 256, 136), "I8": (24, 1, 1), "I32": (26, 1, 4),
    "F64": (28, 1, 8), "BF16": (30, 1, 2), "TQ1_0": (34, 256, 54), "MXFP4": (39, 32, 17),
}  # fmt: skip
#: The types of weight matrices.
WEIGHTS = (
    "F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL",
    "IQ4_XS",
)  # fmt: skip


@dataclass(frozen=True)
class _Scales:
    """Where a block has its half-precision scale, and how far its weights spread when that is 1.

    `least_at` is the place of the number that is added (in super-blocks: subtracted, times a small scale), `least` the
    ratio to the scale that makes the mean zero.
    """

    at: int
    spread: float
    least_at: int | None = None
    least: float = 0.0


_SCALES = {
    "Q4_0": _Scales(0, 4.6),
    "Q4_1": _Scales(0, 4.6, 2, -7.5),
    "Q5_0": _Scales(0, 9.2),
    "Q5_1": _Scales(0, 9.2, 2, -15.5),
    "Q2_K": _Scales(80, 13.9, 82, 1.5),
    "Q3_K": _Scales(108, 43.0),
    "Q4_K": _Scales(0, 258.0, 2, 7.5),
    "Q5_K": _Scales(0, 527.0, 2, 15.5),
    "Q6_K": _Scales(208, 1366.0),
    "IQ4_NL": _Scales(0, 69.0),
    "IQ4_XS": _Scales(0, 1277.0),
}


def encode(row: Sequence[float], dtype: str) -> bytes:
    """A row of numbers as type F32, F16, BF16 (nearest; halves to even) or Q8_0."""
    if dtype == "BF16":
        words = struct.unpack(f"<{len(row)}I", struct.pack(f"<{len(row)}f", *row))
        return struct.pack(f"<{len(row)}H", *((word + 0x7FFF + (word >> 16 & 1)) >> 16 for word in words))
    if dtype != "Q8_0":
        return struct.pack(f"<{len(row)}{ {'F32': 'f', 'F16': 'e'}[dtype] }", *row)
    blocks = []
    for start in range(0, len(row), 32):
        block = row[start : start + 32]
        scale = max(map(abs, block)) / 127.0
        quants = [round(value / scale) if scale else 0 for value in block]
        blocks.append(struct.pack("<e32b", scale, *quants))
    return b"".join(blocks)


def random_row(columns: int, dtype: str, spread: float, numbers: random.Random) -> bytes:
    """A row of random blocks whose weights have about the standard deviation `spread`."""
    _, elements, size = DTYPES[dtype]
    scales = _SCALES[dtype]
    if columns % elements:
        raise ValueError(f"{columns} columns are no whole number of blocks of {dtype}")
    data = bytearray(numbers.randbytes(columns // elements * size))
    for start in range(0, len(data), size):
        scale = spread / scales.spread * numbers.uniform(0.7, 1.3) * numbers.choice((-1.0, 1.0))
        struct.pack_into("<e", data, start + scales.at, scale)
        if scales.least_at is not None:
            struct.pack_into("<e", data, start + scales.least_at, scale * scales.least)
    return bytes(data)


def is_random(dtype: str) -> bool:
    """Whether matrices of this type are random blocks, and not numbers that were rounded."""
    return dtype in _SCALES
