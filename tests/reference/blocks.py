"""The types of weights, from bytes to numbers.

Layouts from ggml's `ggml-common.h`. Every number here is exact: a product of a half-precision scale, a scale of at most
8 bits and a quant of at most 8 bits has fewer bits than float64 holds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]

#: The 16 values of a quant of IQ4_NL and IQ4_XS.
IQ4_VALUES = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float64)


def half(block: Bytes, at: int) -> Array:
    """The half-precision number at byte `at` of each block, as a column."""
    return block[:, at : at + 2].copy().view("<f2").astype(np.float64)


def nibbles(data: Bytes) -> Bytes:
    """Low halves of all bytes, then the high halves."""
    return np.concatenate([data & 15, data >> 4], axis=-1)


def grouped(scales: Array, quants: Array) -> Array:
    """Each quant times the scale of its group: (blocks, groups) by (blocks, elements)."""
    count, groups = scales.shape
    return (quants.reshape(count, groups, -1) * scales[:, :, None]).reshape(count, -1)


def f32(block: Bytes) -> Array:
    """Single precision."""
    return block.copy().view("<f4").astype(np.float64)


def f16(block: Bytes) -> Array:
    """Half precision."""
    return block.copy().view("<f2").astype(np.float64)


def bf16(block: Bytes) -> Array:
    """The upper half of a single-precision number."""
    return (block.copy().view("<u2").astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def q4_0(block: Bytes) -> Array:
    """f16 d; 16 bytes of nibbles: d * (q - 8)."""
    return half(block, 0) * (nibbles(block[:, 2:]) - 8.0)


def q4_1(block: Bytes) -> Array:
    """f16 d, m; 16 bytes of nibbles: d * q + m."""
    return half(block, 0) * nibbles(block[:, 4:]) + half(block, 2)


def fifth_bits(data: Bytes) -> Bytes:
    """Bit i of a 32-bit word is bit 4 of quant i."""
    return np.unpackbits(data, axis=1, bitorder="little") << 4


def q5_0(block: Bytes) -> Array:
    """f16 d; 32 fifth bits; 16 bytes of nibbles: d * (q - 16)."""
    return half(block, 0) * ((nibbles(block[:, 6:]) | fifth_bits(block[:, 2:6])) - 16.0)


def q5_1(block: Bytes) -> Array:
    """f16 d, m; 32 fifth bits; 16 bytes of nibbles: d * q + m."""
    return half(block, 0) * (nibbles(block[:, 8:]) | fifth_bits(block[:, 4:8])) + half(block, 2)


def q8_0(block: Bytes) -> Array:
    """f16 d; 32 x i8: d * q."""
    return half(block, 0) * block[:, 2:].view(np.int8)


def two_bits(data: Bytes) -> Bytes:
    """64 bytes as 256 quants of two bits: 32 bytes hold four runs of 32, the lowest bits first."""
    halves = data.reshape(len(data), 2, 1, 32)
    return (halves >> np.array([0, 2, 4, 6], np.uint8).reshape(4, 1) & 3).reshape(len(data), 256)


def q2_k(block: Bytes) -> Array:
    """16 bytes of scale (low nibble) and min (high); 64 bytes of quants; f16 d, dmin: 16 groups of 16."""
    scales, least = block[:, :16] & 15, block[:, :16] >> 4
    scaled = grouped(half(block, 80) * scales, two_bits(block[:, 16:80]).astype(np.float64))
    return scaled - np.repeat(half(block, 82) * least, 16, axis=1)


def q3_k(block: Bytes) -> Array:
    """32 bytes of third bits; 64 of low ones; 12 of 6-bit scales; f16 d: d * (scale - 32) * (q - 4)."""
    # Bit r of byte i belongs to element i of the r-th run of 32.
    third = np.unpackbits(block[:, :32, None], axis=2, bitorder="little").transpose(0, 2, 1).reshape(-1, 256)
    quants = (two_bits(block[:, 32:96]) | third << 2) - 4.0
    packed = block[:, 96:108]
    # The low four bits as nibbles of eight bytes; the high two in four bytes, four scales apart.
    high = packed[:, None, 8:] >> np.array([0, 2, 4, 6], np.uint8)[:, None] & 3
    scales = nibbles(packed[:, :8]) | high.reshape(-1, 16) << 4
    return grouped(half(block, 108) * (scales - 32.0), quants)


def scales_and_mins(packed: Bytes) -> tuple[Bytes, Bytes]:
    """Eight 6-bit scales and eight 6-bit mins from 12 bytes."""
    first, second, last = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = np.concatenate([first & 63, (last & 15) | first >> 6 << 4], axis=1)
    mins = np.concatenate([second & 63, last >> 4 | second >> 6 << 4], axis=1)
    return scales, mins


def with_mins(block: Bytes, quants: Bytes) -> Array:
    """d * scale * q - dmin * min, 8 groups of 32."""
    scales, mins = scales_and_mins(block[:, 4:16])
    least = np.repeat(half(block, 2) * mins, 32, axis=1)
    return grouped(half(block, 0) * scales, quants.astype(np.float64)) - least


def pairs_of_groups(data: Bytes) -> Bytes:
    """128 bytes as 256 nibbles: 32 bytes hold one group in their low halves and the next in their high ones."""
    return nibbles(data.reshape(len(data), 4, 32)).reshape(len(data), 256)


def q4_k(block: Bytes) -> Array:
    """f16 d, dmin; 12 bytes of scales and mins; 128 bytes of nibbles."""
    return with_mins(block, pairs_of_groups(block[:, 16:]))


def q5_k(block: Bytes) -> Array:
    """As Q4_K, with 32 bytes of fifth bits before the nibbles: bit s of byte i for element i of group s."""
    fifth = (
        np.unpackbits(block[:, 16:48, None], axis=2, bitorder="little").transpose(0, 2, 1).reshape(-1, 256)
    )
    return with_mins(block, pairs_of_groups(block[:, 48:]) | fifth << 4)


def q6_k(block: Bytes) -> Array:
    """128 bytes of low nibbles; 64 of high pairs; 16 x i8 scales; f16 d: d * scale * (q - 32), 16 groups of 16."""
    low = nibbles(block[:, :128].reshape(-1, 2, 64)).reshape(-1, 256)
    quants = (low | two_bits(block[:, 128:192]) << 4) - 32.0
    return grouped(half(block, 208) * block[:, 192:208].view(np.int8), quants)


def iq4_nl(block: Bytes) -> Array:
    """f16 d; 16 bytes of nibbles: d * table[q]."""
    return half(block, 0) * IQ4_VALUES[nibbles(block[:, 2:])]


def iq4_xs(block: Bytes) -> Array:
    """f16 d; 16 high bits and 4 bytes of low nibbles of 8 scales; 128 bytes of nibbles: d * (scale - 32) * table[q]."""
    low = np.stack([block[:, 4:8] & 15, block[:, 4:8] >> 4], axis=2).reshape(-1, 8)
    high = block[:, 2:4].copy().view("<u2") >> np.arange(0, 16, 2, dtype=np.uint16) & 3
    quants = IQ4_VALUES[nibbles(block[:, 8:].reshape(-1, 8, 16))].reshape(-1, 256)
    return grouped(half(block, 0) * ((low | high << 4) - 32.0), quants)


@dataclass(frozen=True)
class Block:
    """A type: ggml's number for it, elements and bytes of a block, and what turns blocks into numbers."""

    number: int
    elements: int
    size: int
    values: Callable[[Bytes], Array]


#: Every type of weights, by ggml's name.
BLOCKS = {
    "F32": Block(0, 1, 4, f32),
    "F16": Block(1, 1, 2, f16),
    "Q4_0": Block(2, 32, 18, q4_0),
    "Q4_1": Block(3, 32, 20, q4_1),
    "Q5_0": Block(6, 32, 22, q5_0),
    "Q5_1": Block(7, 32, 24, q5_1),
    "Q8_0": Block(8, 32, 34, q8_0),
    "Q2_K": Block(10, 256, 84, q2_k),
    "Q3_K": Block(11, 256, 110, q3_k),
    "Q4_K": Block(12, 256, 144, q4_k),
    "Q5_K": Block(13, 256, 176, q5_k),
    "Q6_K": Block(14, 256, 210, q6_k),
    "IQ4_NL": Block(20, 32, 18, iq4_nl),
    "IQ4_XS": Block(23, 256, 136, iq4_xs),
    "BF16": Block(30, 1, 2, bf16),
}


def dequantise(data: bytes | memoryview, kind: str) -> Array:
    """The numbers in `data`, whole blocks of the type `kind`."""
    block = BLOCKS[kind]
    return block.values(np.frombuffer(data, np.uint8).reshape(-1, block.size)).reshape(-1)
