"""Writes GGUF files for tests: small sound models, and files that lie about anything.

Only the standard library is used, and the bytes depend on the arguments alone::

    from gguf_files import tiny, write_tiny

    write_tiny(tmp_path / "tiny.gguf")                          # a whole `phi3` model of random weights
    write_tiny(tmp_path / "tiny.gguf", arch="llama", dtype="Q8_0", layers=3)
    write_tiny(tmp_path / "tiny.gguf", arch="phi2", fused=True)    # or "phimoe", experts=5
    write_tiny(tmp_path / "tiny.gguf", dtype="Q4_K", embd=256, ff=512, mix={"ffn_down": "Q6_K"}, scaling="yarn")
    file = tiny()
    file.set("phi3.block_count", "u32", 0)                      # a lie
    file.write(tmp_path / "bad.gguf")

The `llama` model holds the same weights as the `phi3` one (q, k, v and gate, up apart; the rows of q and k in the order
of interleaved rope), so both must give the same text. Names and keys are those that llama.cpp's converter writes.
"""

from __future__ import annotations

import copy
import functools
import random
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

from gguf_blocks import DTYPES, encode, is_random, random_row

__all__ = [
    "DTYPES",
    "Gguf",
    "Key",
    "Tensor",
    "array",
    "scalar",
    "sound",
    "text",
    "tiny",
    "vocabulary",
    "write_tiny",
]

#: Numbers of the metadata types.
KINDS = {
    "u8": 0, "i8": 1, "u16": 2, "i16": 3, "u32": 4, "i32": 5, "f32": 6, "bool": 7, "str": 8, "array": 9,
    "u64": 10, "i64": 11, "f64": 12,
}  # fmt: skip
_FORMATS = {
    "u8": "<B", "i8": "<b", "u16": "<H", "i16": "<h", "u32": "<I", "i32": "<i", "f32": "<f", "bool": "<B",
    "u64": "<Q", "i64": "<q", "f64": "<d",
}  # fmt: skip
#: The chat template of the tiny models: Phi-3's turns.
TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>\\n' + message['content'] + '<|end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)
#: Phi-3's control tokens, in its order, without the placeholders between them.
CONTROL_TOKENS = ("<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>")
# Pieces longer than a character, the more frequent first: each is a sum of two that exist.
_PIECES = (
    "▁t", "▁a", "he", "in", "▁the", "er", "on", "▁s", "re", "an", "at", "en", "ou", "is", "▁i", "▁w", "it", "or", "▁o",
    "▁h", "al", "es", "ing", "▁in", "ic", "▁an", "▁is", "ey", "ce", "ck", "oc", "ock", "ockey",
    "▁hockey", "▁ic", "▁ice",
)  # fmt: skip


def text(value: str | bytes, length: int | None = None) -> bytes:
    """A GGUF string; `length` is the length to claim instead of the true one."""
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data) if length is None else length) + data


def scalar(kind: str, value: Any) -> bytes:
    """The bytes of one metadata value that is no array."""
    return text(value) if kind == "str" else struct.pack(_FORMATS[kind], value)


def array(kind: str, values: Iterable[Any], count: int | None = None) -> bytes:
    """The bytes of an array: element type, count (or the one to claim), elements."""
    items = [scalar(kind, value) for value in values]
    return struct.pack("<IQ", KINDS[kind], len(items) if count is None else count) + b"".join(items)


@dataclass
class Key:
    """One metadata pair, as it will lie in the file."""

    name: bytes
    kind: int
    value: bytes
    claimed: int | None = None

    def to_bytes(self) -> bytes:
        return text(self.name, self.claimed) + struct.pack("<I", self.kind) + self.value


@dataclass
class Tensor:
    """One tensor; what is None follows from the rest."""

    name: bytes
    shape: list[int]
    dtype: int
    data: bytes
    offset: int | None = None
    dims: int | None = None
    claimed: int | None = None


@dataclass
class Gguf:
    """A file to be written. Every field may lie."""

    keys: list[Key] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    magic: bytes = b"GGUF"
    version: int = 3
    n_tensors: int | None = None
    n_keys: int | None = None
    alignment: int = 32
    tail: bytes = b""

    def set(self, name: str | bytes, kind: str, value: Any) -> Gguf:
        """Sets a key; `kind` is a type's name, or `[type]` for an array of it."""
        name = name.encode() if isinstance(name, str) else name
        if kind.startswith("["):
            return self.raw(name, KINDS["array"], array(kind[1:-1], value))
        return self.raw(name, KINDS[kind], scalar(kind, value))

    def raw(self, name: str | bytes, kind: int, value: bytes) -> Gguf:
        """Sets a key to a type's number and raw bytes."""
        name = name.encode() if isinstance(name, str) else name
        for key in self.keys:
            if key.name == name:
                key.kind, key.value = kind, value
                return self
        self.keys.append(Key(name, kind, value))
        return self

    def drop(self, *names: str) -> Gguf:
        """Removes keys and tensors."""
        gone = {name.encode() for name in names}
        self.keys = [key for key in self.keys if key.name not in gone]
        self.tensors = [tensor for tensor in self.tensors if tensor.name not in gone]
        return self

    def tensor(self, name: str) -> Tensor:
        """The tensor of this name."""
        return next(tensor for tensor in self.tensors if tensor.name == name.encode())

    def add(
        self, name: str | bytes, shape: Sequence[int], dtype: str = "F32", data: bytes | None = None
    ) -> Gguf:
        """Adds a tensor; zeros when no data are given."""
        number, block, size = DTYPES[dtype]
        if data is None:
            elements = 1
            for dim in shape:
                elements *= dim
            data = bytes(elements // block * size)
        name = name.encode() if isinstance(name, str) else name
        self.tensors.append(Tensor(name, list(shape), number, data))
        return self

    def header(self) -> bytes:
        """Everything before the padding and the data."""
        counts = (
            len(self.tensors) if self.n_tensors is None else self.n_tensors,
            len(self.keys) if self.n_keys is None else self.n_keys,
        )
        parts = [self.magic, struct.pack("<IQQ", self.version, *counts)]
        parts += [key.to_bytes() for key in self.keys]
        position = 0
        for tensor in self.tensors:
            dims = len(tensor.shape) if tensor.dims is None else tensor.dims
            parts += [text(tensor.name, tensor.claimed), struct.pack("<I", dims)]
            parts += [struct.pack("<Q", dim) for dim in tensor.shape]
            parts.append(
                struct.pack("<IQ", tensor.dtype, position if tensor.offset is None else tensor.offset)
            )
            position += len(tensor.data) + -len(tensor.data) % self.alignment
        return b"".join(parts)

    def to_bytes(self) -> bytes:
        """The whole file."""
        header = self.header()
        parts = [header, bytes(-len(header) % self.alignment)]
        for tensor in self.tensors:
            parts += [tensor.data, bytes(-len(tensor.data) % self.alignment)]
        return b"".join(parts) + self.tail

    def write(self, path: str | PathLike[str]) -> None:
        """Writes the whole file."""
        Path(path).write_bytes(self.to_bytes())


def vocabulary() -> tuple[list[str], list[float], list[int]]:
    """Tokens, scores and types of the tiny models: a SentencePiece-style BPE with byte tokens, as Phi-3's."""
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    scores, types = [0.0] * len(tokens), [2, 3, 3] + [6] * 256
    pieces = [*_PIECES, "▁", *map(chr, range(0x21, 0x7F))]
    tokens += pieces
    scores += [float(-rank) for rank in range(len(pieces))]
    types += [1] * len(pieces)
    tokens += CONTROL_TOKENS
    scores += [0.0] * len(CONTROL_TOKENS)
    types += [3] * len(CONTROL_TOKENS)
    return tokens, scores, types


Matrix = list[list[float]]


#: Architectures whose norms subtract the mean and have a bias.
LAYER_NORM = ("phi2", "phimoe")


@functools.lru_cache(maxsize=8)
def _weights(
    kind: str,
    seed: int,
    layers: int,
    embd: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    ff: int,
    vocab: int,
    experts: int,
) -> dict[str, Matrix]:
    """The matrices of a model, q, k and v in one. `kind` is "phi2", "phimoe", or "phi3", for `llama` too, where gate
    and up are one matrix. The experts' matrices stand below each other."""
    numbers = random.Random(seed)

    def matrix(rows: int, columns: int) -> Matrix:
        spread = columns**-0.5
        return [[numbers.gauss(0.0, spread) for _ in range(columns)] for _ in range(rows)]

    def norm() -> Matrix:
        return [[1.0 + numbers.uniform(-0.1, 0.1) for _ in range(embd)]]

    weights = {"token_embd": matrix(vocab, embd)}
    for layer in range(layers):
        weights |= {
            f"blk.{layer}.attn_norm": norm(),
            f"blk.{layer}.attn_qkv": matrix((heads + 2 * kv_heads) * head_dim, embd),
            f"blk.{layer}.attn_output": matrix(embd, heads * head_dim),
        }
        if kind != "phi2":
            weights[f"blk.{layer}.ffn_norm"] = norm()
        if kind == "phimoe":
            weights |= {
                f"blk.{layer}.ffn_gate_inp": matrix(experts, embd),
                f"blk.{layer}.ffn_gate_exps": matrix(experts * ff, embd),
                f"blk.{layer}.ffn_up_exps": matrix(experts * ff, embd),
                f"blk.{layer}.ffn_down_exps": matrix(experts * embd, ff),
            }
        else:
            weights |= {
                f"blk.{layer}.ffn_up": matrix(ff if kind == "phi2" else 2 * ff, embd),
                f"blk.{layer}.ffn_down": matrix(embd, ff),
            }
    return weights | {"output_norm": norm(), "output": matrix(vocab, embd)}


def _has_bias(arch: str, stem: str, biases: bool) -> bool:
    """Whether the tensor of `_weights` has a bias in the published models, or where it may have one and should."""
    last = stem.rpartition(".")[2]
    if last.endswith("norm"):
        return arch in LAYER_NORM
    if arch == "phi2":
        return last != "token_embd"
    if arch == "phimoe":
        return last == "output" or last.startswith("attn")
    return biases and stem.startswith("blk")


Row = TypeVar("Row")


def interleave(rows: list[Row], heads: int, rope_dim: int) -> list[Row]:
    """Rows of q or k, from rope over halves (Phi-3) to rope over neighbours (llama)."""
    head_dim, half = len(rows) // heads, rope_dim // 2
    order = [first + offset for first in range(half) for offset in (0, half)] + list(
        range(rope_dim, head_dim)
    )
    return [rows[head * head_dim + row] for head in range(heads) for row in order]


def stretch(file: Gguf, arch: str, kind: str, rope_dim: int, context: int) -> None:
    """Stretches the rotation from a quarter of `context` as "linear", "yarn", "longrope" or "llama3" would."""
    pairs, original = rope_dim // 2, max(1, context // 4)
    if kind == "llama3":
        file.add(
            "rope_freqs.weight", [pairs], data=encode([1.0 + 7.0 * i / pairs for i in range(pairs)], "F32")
        )
        return
    file.set(f"{arch}.rope.scaling.type", "str", kind)
    if kind != "longrope":
        file.set(f"{arch}.rope.scaling.factor", "f32", 4.0)
    if kind != "linear":
        file.set(f"{arch}.rope.scaling.original_context_length", "u32", original)
    if kind == "longrope":
        file.set(f"{arch}.rope.scaling.attn_factor", "f32", 1.19)
        for name, most in (("short", 1.0), ("long", 31.0)):
            factors = [1.02 + most * (i / pairs) ** 2 for i in range(pairs)]
            file.add(f"rope_factors_{name}.weight", [pairs], data=encode(factors, "F32"))


def tiny(
    arch: str = "phi3",
    *,
    dtype: str = "F32",
    seed: int = 1,
    layers: int = 2,
    embd: int = 64,
    heads: int = 4,
    kv_heads: int = 2,
    head_dim: int | None = None,
    ff: int = 128,
    context: int = 256,
    rope_dim: int | None = None,
    rope_base: float | None = None,
    scaling: str | None = None,
    window: int | None = None,
    eps: float = 1e-5,
    mix: Mapping[str, str] | None = None,
    biases: bool = False,
    template: str | None = TEMPLATE,
    tied: bool = False,
    tokenizer: bool = True,
    name: str = "tiny",
    experts: int = 4,
    fused: bool = False,
    vocab: int | None = None,
) -> Gguf:
    """A whole model of random weights, sound in every respect. `dtype` is the type of its matrices, any of
    `gguf_blocks.WEIGHTS` (row lengths must be whole blocks); `mix` names others, for example `{"ffn_down": "Q6_K"}`, by
    the names of the `phi3` tensors; norms and routers are F32. `biases` gives every layer's matrices one; see
    `stretch`. `fused` keeps q, k and v of `phi2` in one tensor. `vocab` asks for more embeddings than tokens."""
    head_dim = embd // heads if head_dim is None else head_dim
    rope_dim = head_dim if rope_dim is None else rope_dim
    tokens, scores, types = vocabulary()
    file = Gguf()
    file.set("general.architecture", "str", arch).set("general.name", "str", name)
    for key, value in {
        "block_count": layers,
        "context_length": context,
        "embedding_length": embd,
        "feed_forward_length": ff,
        "attention.head_count": heads,
        "attention.head_count_kv": kv_heads,
        "rope.dimension_count": rope_dim,
    }.items():
        file.set(f"{arch}.{key}", "u32", value)
    rms = "" if arch == "phi2" else "rms_"
    file.set(f"{arch}.attention.layer_norm_{rms}epsilon", "f32", eps)
    if arch == "phimoe":
        file.set("phimoe.expert_count", "u32", experts).set("phimoe.expert_used_count", "u32", 2)
    if head_dim * heads != embd:
        file.set(f"{arch}.attention.key_length", "u32", head_dim)
        file.set(f"{arch}.attention.value_length", "u32", head_dim)
    if rope_base is not None:
        file.set(f"{arch}.rope.freq_base", "f32", rope_base)
    if window is not None:
        file.set(f"{arch}.attention.sliding_window", "u32", window)
    if scaling is not None:
        stretch(file, arch, scaling, rope_dim, context)
    if tokenizer:
        file.set("tokenizer.ggml.model", "str", "llama").set("tokenizer.ggml.pre", "str", "default")
        file.set("tokenizer.ggml.tokens", "[str]", tokens)
        file.set("tokenizer.ggml.scores", "[f32]", scores)
        file.set("tokenizer.ggml.token_type", "[i32]", types)
        file.set("tokenizer.ggml.bos_token_id", "u32", 1)
        file.set("tokenizer.ggml.eos_token_id", "u32", tokens.index("<|endoftext|>"))
        file.set("tokenizer.ggml.unknown_token_id", "u32", 0)
        file.set("tokenizer.ggml.padding_token_id", "u32", tokens.index("<|endoftext|>"))
        file.set("tokenizer.ggml.add_bos_token", "bool", True)
        file.set("tokenizer.ggml.add_eos_token", "bool", False)
    if template is not None:
        file.set("tokenizer.chat_template", "str", template)

    def shape(name: str, rows: int, columns: int) -> list[int]:
        if name.endswith("_exps"):
            return [columns, rows // experts, experts]
        return [columns, rows] if min(rows, columns) > 1 else [rows * columns]

    def add(stem: str, rows: list[bytes], kind: str, columns: int, suffix: str = "weight") -> None:
        for part, split in _split(arch, stem, rows, heads, kv_heads, rope_dim, fused):
            file.add(f"{part}.{suffix}", shape(part, len(split), columns), kind, b"".join(split))

    numbers = random.Random(seed + 1)
    sizes = (seed, layers, embd, heads, kv_heads, head_dim, ff, len(tokens), experts)
    for stem, rows in _weights("phi3" if arch == "llama" else arch, *sizes).items():
        last, columns = stem.rpartition(".")[2], len(rows[0])
        if last == "output" and tied:
            continue
        kind = "F32" if last.endswith(("norm", "ffn_gate_inp")) else dtype
        kind = (mix or {}).get(last, kind)
        if vocab is not None and last in ("token_embd", "output"):
            rows = _more_rows(rows, vocab)
        if is_random(kind):
            spread = columns**-0.5
            add(stem, [random_row(columns, kind, spread, numbers) for _ in rows], kind, columns)
        else:
            add(stem, [encode(row, kind) for row in rows], kind, columns)
        if _has_bias(arch, stem, biases):
            # The weights of a norm are one row.
            count = columns if last.endswith("norm") else len(rows)
            add(stem, [encode([numbers.gauss(0.0, 0.1)], "F32") for _ in range(count)], "F32", 1, "bias")
    return file


def _more_rows(rows: Matrix, count: int) -> Matrix:
    """`count` rows that all differ, made of a few by turning them: quickly, where there are many."""
    given, columns = len(rows), len(rows[0])
    turned = []
    for i in range(count):
        row, by = rows[i % given], i // given % columns
        turned.append(row[by:] + row[:by])
    return turned


def _split(
    arch: str, stem: str, rows: list[Row], heads: int, kv_heads: int, rope_dim: int, fused: bool
) -> list[tuple[str, list[Row]]]:
    """The tensors of one architecture for one of `_weights`."""
    if arch == "phi3" or (arch == "phi2" and fused):
        return [(stem, rows)]
    layer = stem.rpartition(".")[0]
    if stem.endswith("attn_qkv"):
        head_dim = len(rows) // (heads + 2 * kv_heads)
        first, second = heads * head_dim, (heads + kv_heads) * head_dim
        q, k, v = rows[:first], rows[first:second], rows[second:]
        if arch == "llama":
            q, k = interleave(q, heads, rope_dim), interleave(k, kv_heads, rope_dim)
        return [(f"{layer}.attn_q", q), (f"{layer}.attn_k", k), (f"{layer}.attn_v", v)]
    if stem.endswith("ffn_up") and arch == "llama":
        half = len(rows) // 2
        return [(f"{layer}.ffn_gate", rows[:half]), (f"{layer}.ffn_up", rows[half:])]
    return [(stem, rows)]


@functools.lru_cache(maxsize=8)
def _sound(arch: str) -> Gguf:
    return tiny(arch)


def sound(arch: str = "phi3") -> Gguf:
    """A fresh copy of the default tiny model, quickly: for files that then get one fault."""
    return copy.deepcopy(_sound(arch))


def write_tiny(path: str | PathLike[str], arch: str = "phi3", **overrides: Any) -> None:
    """Writes a tiny, sound model; the overrides are those of `tiny`."""
    tiny(arch, **overrides).write(path)
