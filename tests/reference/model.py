"""The layers of `phi3`, `llama`, `phi2` and `phimoe` files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .attention import attention
from .blocks import Array
from .experts import sparse_mixer
from .numerics import EXACT, Numerics, activations, stored
from .reader import read
from .rope import Rope


@dataclass
class Trace:
    """One run: `logits` of shape (tokens, vocabulary), what came out of each layer, and the rows in doubt."""

    logits: Array
    hidden: list[Array] = field(default_factory=list)
    doubtful: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))


class Model:
    """The weights of a file, in float64. `context` is the length that the run is made for; it decides which of the
    long-rope tables holds. None is the file's own."""

    def __init__(self, path: Path, numerics: Numerics = EXACT, context: int | None = None) -> None:
        file = read(path)
        self.numerics = numerics
        self.weights = {name: tensor.values() for name, tensor in file.tensors.items()}
        self.kinds = {name: tensor.kind for name, tensor in file.tensors.items()}
        self.arch = file.metadata["general.architecture"]

        def key(name: str, default: Any = None) -> Any:
            return file.metadata.get(f"{self.arch}.{name}", default)

        self.layers, self.heads = key("block_count"), key("attention.head_count")
        self.kv_heads = key("attention.head_count_kv", self.heads)
        self.head_dim = key("attention.key_length", key("embedding_length") // self.heads)
        self.epsilon = key("attention.layer_norm_rms_epsilon", key("attention.layer_norm_epsilon"))
        self.experts = key("expert_count", 0)
        self.window = key("attention.sliding_window") or None
        self.rope = Rope(file, self.arch, self.head_dim, context or key("context_length"))
        self.doubtful: npt.NDArray[np.bool_] = np.zeros(0, bool)

    def norm(self, x: Array, name: str) -> Array:
        """LayerNorm (Ba et al., 2016) in `phi2` and `phimoe`; elsewhere RMS norm (Zhang and Sennrich, 2019)."""
        if self.arch in ("phi2", "phimoe"):
            x = x - x.mean(-1, keepdims=True)
        scaled: Array = x / np.sqrt((x * x).mean(-1, keepdims=True) + self.epsilon)
        return scaled * self.weights[f"{name}.weight"] + self.weights.get(f"{name}.bias", 0.0)

    def linear(self, x: Array, name: str) -> Array:
        """A matrix and its bias."""
        return self.product(x, f"{name}.weight") + self.weights.get(f"{name}.bias", 0.0)

    def product(
        self, x: Array, name: str, expert: int | None = None, rows: npt.NDArray[np.intp] | None = None
    ) -> Array:
        """A matrix, or that of an expert; `rows` are the tokens that `x` has, when not all."""
        weights = self.weights[name] if expert is None else self.weights[name][expert]
        if self.numerics.activations:
            x, doubtful = activations(x, self.kinds[name])
            self.doubtful[slice(None) if rows is None else rows] |= doubtful
        product: Array = x @ weights.T
        return product

    def store(self, x: Array) -> Array:
        """Keys or values, out of the cache."""
        x, doubtful = stored(x, self.numerics.kv)
        self.doubtful |= doubtful
        return x

    def mix(self, x: Array, layer: str) -> Array:
        """Attention; `phi3` files, and some of `phi2`, hold q, k and v in one matrix."""
        wide, narrow = self.heads * self.head_dim, self.kv_heads * self.head_dim
        if f"{layer}.attn_q.weight" in self.weights:
            parts = [self.linear(x, f"{layer}.attn_{name}") for name in "qkv"]
        else:
            parts = np.split(self.linear(x, f"{layer}.attn_qkv"), [wide, wide + narrow], -1)
        q, k, v = (part.reshape(len(x), -1, self.head_dim) for part in parts)
        k, v = self.store(self.rope.turn(k)), self.store(v)
        # A token that looks back at a doubtful one is in doubt itself.
        self.doubtful = np.logical_or.accumulate(self.doubtful)
        q = self.rope.turn(q)
        if self.numerics.kv == "q8":
            q = self.store(q)
        mixed = attention(q, k, v, self.window)
        return self.linear(mixed.reshape(len(x), wide), f"{layer}.attn_output")

    def feed_forward(self, x: Array, layer: str) -> Array:
        """SwiGLU (Shazeer, 2020), whose gate and up `phi3` files hold in one matrix.

        In `phi2` GELU (Hendrycks and Gimpel, 2016) by its approximation with tanh, `gelu_new` in transformers.
        """
        if self.experts:
            return self.mixture(x, layer)
        up = self.linear(x, f"{layer}.ffn_up")
        if self.arch == "phi2":
            inner = np.sqrt(2 / np.pi) * (up + 0.044715 * up**3)
            return self.linear(0.5 * up * (1 + np.tanh(inner)), f"{layer}.ffn_down")
        if self.arch == "llama":
            gate = self.linear(x, f"{layer}.ffn_gate")
        else:
            gate, up = np.split(up, 2, -1)
        return self.linear(gate / (1 + np.exp(-gate)) * up, f"{layer}.ffn_down")

    def mixture(self, x: Array, layer: str) -> Array:
        """Each token through two experts, whose outputs are multiplied by the router's weights and added."""
        scores = self.product(x, f"{layer}.ffn_gate_inp.weight")
        weights, doubtful = sparse_mixer(scores)
        self.doubtful |= doubtful
        mixed = np.zeros_like(x)
        names = [f"{layer}.ffn_{part}_exps.weight" for part in ("gate", "up", "down")]
        for expert in np.unique(np.nonzero(weights)[1]):
            (rows,) = np.nonzero(weights[:, expert])
            gate, up = (self.product(x[rows], name, expert, rows) for name in names[:2])
            inner = gate / (1 + np.exp(-gate)) * up
            mixed[rows] += weights[rows, expert, None] * self.product(inner, names[2], expert, rows)
        return mixed

    def run(self, ids: list[int]) -> Trace:
        """All of it, for one sequence from its beginning."""
        trace = Trace(np.zeros(0))
        self.doubtful = np.zeros(len(ids), bool)
        x = self.weights["token_embd.weight"][ids]
        for index in range(self.layers):
            layer = f"blk.{index}"
            normed = self.norm(x, f"{layer}.attn_norm")
            if self.arch == "phi2":  # side by side
                x = x + self.mix(normed, layer) + self.feed_forward(normed, layer)
            else:
                x = x + self.mix(normed, layer)
                x = x + self.feed_forward(self.norm(x, f"{layer}.ffn_norm"), layer)
            trace.hidden.append(x)
        output = "output" if "output.weight" in self.weights else "token_embd"
        x = self.norm(x, "output_norm")
        trace.logits = self.product(x, f"{output}.weight") + self.weights.get("output.bias", 0.0)
        trace.doubtful = self.doubtful
        return trace

    def logits(self, ids: list[int]) -> Array:
        """Logits of shape (tokens, vocabulary) after each of `ids`."""
        return self.run(ids).logits
