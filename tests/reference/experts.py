"""Which experts a token goes through."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .blocks import Array

#: `router_jitter_noise` of Phi-3.5-MoE.
JITTER = 0.01
#: Scores this near to each other, or this near to the border, next to their size, may fall to either side in float32.
NEAR = 1e-5


def sparse_mixer(scores: Array) -> tuple[Array, npt.NDArray[np.bool_]]:
    """What each expert's output is multiplied by, of the shape of `scores` (tokens, experts), zero for all but two; and
    the rows in doubt.

    `sparsemixer` of transformers' `modeling_phimoe.py`, not training: of the scores that are not farther below the best
    one than two jitters, by the larger of its value and their size, the best one gets its softmax. Then the same again
    without it.
    """
    weights = np.zeros_like(scores)
    doubtful = np.zeros(len(scores), bool)
    for row, own in enumerate(scores):
        left = own.copy()
        for _ in range(2):
            best = int(left.argmax())
            distance = (left[best] - own) / np.maximum(np.abs(own), left[best])
            candidates = np.isfinite(left)
            kept = candidates & (distance <= 2 * JITTER)
            powers = np.exp(left[kept] - left[best])
            weights[row, best] = 1 / powers.sum()
            others = distance[candidates & (np.arange(len(own)) != best)]
            doubtful[row] |= bool(((others < NEAR) | (np.abs(others - 2 * JITTER) < NEAR)).any())
            left[best] = -np.inf
    return weights, doubtful
