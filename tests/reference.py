"""A GGUF model in float64 NumPy: an oracle that shares no code with phicandle.

Written from the published definitions: GGUF and its block layouts (ggml's `docs/gguf.md`, `ggml-common.h`), Phi-3 and
Llama as transformers computes them (`modeling_phi3.py`, `modeling_llama.py`). GGUF's `llama` files have the rows of q
and k in the order of interleaved rope. Slow, and meant to be read.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

_FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


class Reader:
    """Reads a GGUF file that is known to be sound."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 8

    def number(self, code: str) -> Any:
        """The next number, little-endian."""
        (value,) = struct.unpack_from(f"<{code}", self.data, self.at)
        self.at += struct.calcsize(f"<{code}")
        return value

    def string(self) -> str:
        """The next string."""
        length = self.number("Q")
        self.at += length
        return self.data[self.at - length : self.at].decode(errors="replace")

    def value(self, kind: int) -> Any:
        """The next metadata value."""
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            element, count = self.number("I"), self.number("Q")
            return [self.value(element) for _ in range(count)]
        return self.number(_FORMATS[kind])


def dequantise(data: bytes, kind: int, count: int, offset: int) -> Array:
    """The `count` values of a tensor of type F32, F16, Q4_1 or Q8_0 at `offset`."""
    if kind in (0, 1):
        dtype = "<f4" if kind == 0 else "<f2"
        return np.frombuffer(data, dtype, count, offset).astype(np.float64)
    width = {3: 20, 8: 34}[kind]
    blocks = np.frombuffer(data, np.uint8, count // 32 * width, offset).reshape(-1, width)
    scale = blocks[:, :2].copy().view("<f2").astype(np.float64)
    if kind == 8:
        return (scale * blocks[:, 2:].view(np.int8)).reshape(-1)
    least = blocks[:, 2:4].copy().view("<f2").astype(np.float64)
    nibbles = np.concatenate([blocks[:, 4:] & 15, blocks[:, 4:] >> 4], axis=1)
    return (scale * nibbles + least).reshape(-1)


class Model:
    """The weights of a `phi3` or `llama` file, in float64."""

    def __init__(self, path: Path) -> None:
        reader = Reader(path.read_bytes())
        tensors, keys = reader.number("Q"), reader.number("Q")
        metadata = {}
        for _ in range(keys):
            name = reader.string()
            metadata[name] = reader.value(reader.number("I"))
        infos = []
        for _ in range(tensors):
            name = reader.string()
            shape = [reader.number("Q") for _ in range(reader.number("I"))]
            infos.append((name, shape, reader.number("I"), reader.number("Q")))
        alignment = metadata.get("general.alignment", 32)
        base = -(-reader.at // alignment) * alignment
        self.weights = {
            name: dequantise(reader.data, kind, int(np.prod(shape)), base + offset).reshape(shape[::-1])
            for name, shape, kind, offset in infos
        }
        self.arch = metadata["general.architecture"]

        def key(name: str, default: Any = None) -> Any:
            return metadata.get(f"{self.arch}.{name}", default)

        self.layers, self.heads = key("block_count"), key("attention.head_count")
        self.kv_heads = key("attention.head_count_kv", self.heads)
        self.epsilon, self.base = key("attention.layer_norm_rms_epsilon"), key("rope.freq_base", 10_000.0)
        self.width = key("embedding_length")

    def norm(self, x: Array, weight: str) -> Array:
        """Root mean square norm (Zhang and Sennrich, 2019)."""
        scaled: Array = x / np.sqrt((x * x).mean(-1, keepdims=True) + self.epsilon) * self.weights[weight]
        return scaled

    def rope(self, x: Array) -> Array:
        """Rotary positions (Su et al., 2021) for `x` of shape (tokens, heads, size of a head)."""
        size = x.shape[-1]
        angle = np.arange(len(x))[:, None] * float(self.base) ** (-np.arange(0, size, 2) / size)
        cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
        evens, odds = (
            (slice(0, None, 2), slice(1, None, 2))
            if self.arch == "llama"
            else (slice(size // 2), slice(size // 2, None))
        )
        turned = np.empty_like(x)
        turned[..., evens] = x[..., evens] * cos - x[..., odds] * sin
        turned[..., odds] = x[..., evens] * sin + x[..., odds] * cos
        return turned

    def attention(self, x: Array, layer: int) -> Array:
        """Causal attention, heads of keys and values shared by groups of query heads."""
        tokens, size = len(x), self.width // self.heads

        def project(name: str) -> Array:
            product: Array = x @ self.weights[f"blk.{layer}.{name}.weight"].T
            return product

        if self.arch == "llama":
            q, k, v = project("attn_q"), project("attn_k"), project("attn_v")
        else:
            q, k, v = np.split(
                project("attn_qkv"), [self.heads * size, (self.heads + self.kv_heads) * size], -1
            )
        q = self.rope(q.reshape(tokens, self.heads, size))
        k = np.repeat(self.rope(k.reshape(tokens, self.kv_heads, size)), self.heads // self.kv_heads, 1)
        v = np.repeat(v.reshape(tokens, self.kv_heads, size), self.heads // self.kv_heads, 1)
        scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(size)
        scores[:, np.triu(np.ones((tokens, tokens), bool), 1)] = -np.inf
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        mixed = np.einsum("hqk,khd->qhd", shares, v).reshape(tokens, self.width)
        out: Array = mixed @ self.weights[f"blk.{layer}.attn_output.weight"].T
        return out

    def feed_forward(self, x: Array, layer: int) -> Array:
        """SwiGLU (Shazeer, 2020); `phi3` files hold gate and up in one matrix."""
        up = x @ self.weights[f"blk.{layer}.ffn_up.weight"].T
        if self.arch == "llama":
            gate = x @ self.weights[f"blk.{layer}.ffn_gate.weight"].T
        else:
            gate, up = np.split(up, 2, -1)
        out: Array = (gate / (1 + np.exp(-gate)) * up) @ self.weights[f"blk.{layer}.ffn_down.weight"].T
        return out

    def logits(self, ids: list[int]) -> Array:
        """Logits of shape (tokens, vocabulary) after each of `ids`."""
        embeddings = self.weights["token_embd.weight"]
        x = embeddings[ids]
        for layer in range(self.layers):
            x = x + self.attention(self.norm(x, f"blk.{layer}.attn_norm.weight"), layer)
            x = x + self.feed_forward(self.norm(x, f"blk.{layer}.ffn_norm.weight"), layer)
        out: Array = self.norm(x, "output_norm.weight") @ self.weights.get("output.weight", embeddings).T
        return out
