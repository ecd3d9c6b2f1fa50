"""Causal attention."""

from __future__ import annotations

import numpy as np

from .blocks import Array


def attention(q: Array, k: Array, v: Array, window: int | None) -> Array:
    """Each token's mix of the values up to its own, all of shape (tokens, heads, size of a head).

    Heads of keys and values serve groups of query heads. With a window, a token sees that many, itself among them.
    """
    tokens, heads, size = q.shape
    k, v = (np.repeat(part, heads // part.shape[1], 1) for part in (k, v))
    scores = np.einsum("qhd,khd->hqk", q, k, optimize=True) / np.sqrt(size)
    ago = np.arange(tokens)[:, None] - np.arange(tokens)
    seen = ago >= 0 if window is None else (ago >= 0) & (ago < window)
    scores[:, ~seen] = -np.inf
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    mixed: Array = np.einsum("hqk,khd->qhd", shares, v, optimize=True)
    return mixed
