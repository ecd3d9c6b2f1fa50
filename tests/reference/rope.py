"""Rotary positions (Su et al., 2021), and the ways to stretch them."""

from __future__ import annotations

from typing import Any

import numpy as np

from .blocks import Array
from .reader import File


class Rope:
    """The rotation that a file describes, for a context of `context` tokens."""

    def __init__(self, file: File, arch: str, head_dim: int, context: int) -> None:
        def key(name: str, default: Any = None) -> Any:
            return file.metadata.get(f"{arch}.rope.{name}", default)

        self.size = key("dimension_count", head_dim)
        self.interleaved = arch == "llama"
        base = float(key("freq_base", 10_000.0))
        frequency = base ** (-np.arange(0, self.size, 2) / self.size)
        self.scale = 1.0
        if "rope_freqs.weight" in file.tensors:  # Llama 3.1
            frequency = frequency / file.tensors["rope_freqs.weight"].values()
        kind, factor = key("scaling.type"), float(key("scaling.factor", 1.0))
        trained = file.metadata[f"{arch}.context_length"]
        original = key("scaling.original_context_length", trained)
        if "rope_factors_long.weight" in file.tensors:  # Phi-3
            length = "long" if context > original else "short"
            frequency = frequency / file.tensors[f"rope_factors_{length}.weight"].values()
            stretch = trained / original
            paper = np.sqrt(1 + np.log(stretch) / np.log(original)) if stretch > 1 else 1.0
            self.scale = float(key("scaling.attn_factor", paper))
        elif kind == "yarn":
            low, high = key("scaling.yarn_beta_fast", 32.0), key("scaling.yarn_beta_slow", 1.0)
            frequency = self.yarn(frequency, base, factor, original, low, high)
            self.scale = float(key("scaling.attn_factor", 1.0)) * (1 + 0.1 * np.log(factor))
        elif factor != 1.0 and kind in (None, "linear"):
            frequency = frequency / factor
        self.frequency: Array = frequency

    def yarn(
        self, frequency: Array, base: float, factor: float, original: int, fast: float, slow: float
    ) -> Array:
        """NTK by parts (Peng et al., 2023, section 3.2), from pair to pair as in transformers.

        Pairs that turn more than `fast` times in the original context keep their frequency; those that turn less than
        `slow` times are stretched; between them it is mixed.
        """

        def pair(turns: float) -> float:
            """Where a pair would stand that turns so often."""
            return float(self.size * np.log(original / (turns * 2 * np.pi)) / (2 * np.log(base)))

        first, last = max(0, np.floor(pair(fast))), min(self.size - 1, np.ceil(pair(slow)))
        stretched = np.clip((np.arange(self.size // 2) - first) / max(0.001, last - first), 0, 1)
        return frequency * (1 - stretched) + frequency / factor * stretched

    def turn(self, x: Array, first: int = 0) -> Array:
        """`x` of shape (tokens, heads, size of a head) from position `first` on; what is past `size` stays."""
        angle = np.arange(first, first + len(x))[:, None] * self.frequency
        cos, sin = (function(angle)[:, None] * self.scale for function in (np.cos, np.sin))
        if self.interleaved:
            left, right = slice(0, self.size, 2), slice(1, self.size, 2)
        else:
            left, right = slice(self.size // 2), slice(self.size // 2, self.size)
        turned = x.copy()
        turned[..., left] = x[..., left] * cos - x[..., right] * sin
        turned[..., right] = x[..., left] * sin + x[..., right] * cos
        return turned
