"""How numbers are rounded on their way through a model, beyond the rounding of floats."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .blocks import BLOCKS, Array

#: A number this near to the middle between two integers may be rounded to either. Float32 noise of a value is some
#: 1e-7 of it, and grows with the layers; the largest value of a block is 127 here.
NEAR = 5e-5
#: What float32 may add to a key or a value, next to its own size or that of those beside it.
NOISE = 2e-7


@dataclass(frozen=True)
class Numerics:
    """What is rounded: activations to 8 bits before a quantised matrix; keys and values: "exact", "f16", "q8"."""

    activations: bool = False
    kv: str = "exact"


EXACT = Numerics()
#: As phicandle's own kernels do it.
KERNEL = Numerics(activations=True, kv="f16")
#: The same with 8-bit keys and values, and queries of 8 bits, so that scores are sums of integers.
KERNEL_Q8 = Numerics(activations=True, kv="q8")


def eight_bits(x: Array, length: int) -> tuple[Array, npt.NDArray[np.bool_]]:
    """`x` as integers of -127 to 127 times one scale per `length` elements of a row; and the rows in doubt.

    The scale is the largest magnitude over 127; halves go to the even integer. In float32, as a kernel works.
    """
    blocks = x.astype(np.float32).reshape(len(x), -1, length)
    largest = np.abs(blocks).max(-1, keepdims=True)
    full = np.float32(127.0)
    scale = largest / full
    # Where 127 over the largest is past float32, all are zeros.
    inverse = np.divide(
        full, largest, out=np.zeros_like(largest), where=largest > full / np.finfo(np.float32).max
    )
    scaled = blocks * inverse
    quants = np.rint(scaled)
    doubtful = (np.abs(np.abs(scaled - quants) - 0.5) < NEAR).any((1, 2))
    return (quants.astype(np.float64) * scale).reshape(x.shape), doubtful


def activations(x: Array, kind: str) -> tuple[Array, npt.NDArray[np.bool_]]:
    """`x` as a matrix of the type `kind` gets it: one scale per 256 before super-blocks, per 32 before blocks of 32."""
    length = BLOCKS[kind].elements
    if length == 1:
        return x, np.zeros(len(x), bool)
    return eight_bits(x, length)


def stored(x: Array, kv: str) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Keys or values of shape (tokens, heads, size of a head) as the cache gives them back."""
    if kv == "exact":
        return x, np.zeros(len(x), bool)
    if kv == "f16":
        halves = x.astype(np.float32).astype(np.float16).astype(np.float64)
        # Half the distance between neighbours: 11 bits, of which the first is always one.
        middle = np.exp2(np.floor(np.log2(np.abs(x) + 2.0**-14)) - 11)
        noise = NOISE * np.maximum(np.abs(x), np.sqrt((x * x).mean((1, 2), keepdims=True)))
        return halves, (np.abs(np.abs(x - halves) - middle) < noise).any((1, 2))
    rows = x.reshape(-1, x.shape[-1])
    values, doubtful = eight_bits(rows, x.shape[-1])
    return values.reshape(x.shape), doubtful.reshape(len(x), -1).any(1)
