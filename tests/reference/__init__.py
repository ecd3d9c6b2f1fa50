"""A GGUF model in float64 NumPy: an oracle that shares no code with phicandle.

Written from the published definitions: GGUF and its block layouts (ggml's `docs/gguf.md` and `ggml-common.h`), Phi-2,
Phi-3, Phi-3.5-MoE and Llama as transformers computes them (`modeling_phi.py`, `modeling_phi3.py`, `modeling_phimoe.py`,
`modeling_llama.py`, `modeling_rope_utils.py`). Slow, and meant to be read::

    from reference import KERNEL, Model

    Model(path).logits(ids)                    # everything in float64
    Model(path, KERNEL).run(ids)               # activations in 8 bits, keys and values in half precision

`run` also says which rows are *doubtful*. Where an activation lies almost in the middle between two integers, float32
and float64 may round it to different sides, and both are right; such a row, and those that look back at it, are no
evidence for or against the other implementation.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .blocks import BLOCKS, dequantise
from .model import Model, Trace
from .numerics import EXACT, KERNEL, KERNEL_Q8, Numerics
from .reader import File, read

__all__ = [
    "BLOCKS",
    "EXACT",
    "KERNEL",
    "KERNEL_Q8",
    "File",
    "Model",
    "Numerics",
    "Trace",
    "dequantise",
    "nmse",
    "read",
]


def nmse(found: npt.ArrayLike, expected: npt.ArrayLike) -> float:
    """Normalised mean square error: the squares of the differences, over those of what was expected."""
    want = np.asarray(expected, np.float64)
    difference = np.asarray(found, np.float64) - want
    return float((difference * difference).sum() / (want * want).sum())
