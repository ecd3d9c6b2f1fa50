"""Writes a GGUF file with the shape of Phi-3-mini-4k Q4_K_M and random weights, for measuring speed.

Speed depends on sizes and types, not on values, so this file answers "how fast?" where the real one is not at hand::

    python3 benches/phi3_shape.py [PATH]

Tensor types follow llama.cpp's rules for Q4_K_M: `attn_qkv` is Q5_K, `output` and half of `ffn_down` are Q6_K, norms
are F32, the rest is Q4_K. Weights have a mean of 0 and a deviation of 0.02, so activations and logits stay small. The
bytes depend on the shape, the vocabulary and `RECIPE` alone. Metadata are those that llama.cpp's converter writes, less
`phi3.attention.sliding_window`: files published before the converter knew that key lack it (the tutorial's own is one),
llama.cpp ignores it, and with it an engine that heeds it would do less work past 2,047 tokens than one that does not.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import math
import os
import struct
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parent.parent
#: The real vocabulary, where the project's shared data are at hand.
VOCABULARY = ROOT.parent / "shared" / "data" / "phi-3-vocab.gguf"
#: What kind of bytes this version writes; another number is another file.
RECIPE = 1
ALIGNMENT = 32
#: Deviation of the weights.
SPREAD = 0.02
# Blocks that are made at a time: 20 to 30 MB.
_CHUNK = 1 << 17

#: Number of each type in GGUF, elements per block, bytes per block.
TYPES = {"F32": (0, 1, 4), "Q4_K": (12, 256, 144), "Q5_K": (13, 256, 176), "Q6_K": (14, 256, 210)}
# Bytes of a metadata value by its type's number; strings (8) and arrays (9) say their own length.
_WIDTHS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_STRING, _ARRAY = 8, 9

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Shape:
    """Sizes of a Phi-3 model: the defaults are Phi-3-mini-4k's."""

    name: str = "Phi-3-mini shape, random weights"
    layers: int = 32
    embd: int = 3072
    heads: int = 32
    ff: int = 8192
    context: int = 4096
    vocab: int = 32064

    def tensors(self) -> Iterator[Tensor]:
        """Every tensor, in the order of a converted file."""
        yield Tensor("token_embd.weight", (self.embd, self.vocab), "Q4_K")
        for layer in range(self.layers):
            down = "Q6_K" if more_bits(layer, self.layers) else "Q4_K"
            yield Tensor(f"blk.{layer}.attn_norm.weight", (self.embd,), "F32")
            yield Tensor(f"blk.{layer}.ffn_down.weight", (self.ff, self.embd), down)
            yield Tensor(f"blk.{layer}.ffn_up.weight", (self.embd, 2 * self.ff), "Q4_K")
            yield Tensor(f"blk.{layer}.ffn_norm.weight", (self.embd,), "F32")
            yield Tensor(f"blk.{layer}.attn_output.weight", (self.embd, self.embd), "Q4_K")
            yield Tensor(f"blk.{layer}.attn_qkv.weight", (self.embd, 3 * self.embd), "Q5_K")
        yield Tensor("output_norm.weight", (self.embd,), "F32")
        yield Tensor("output.weight", (self.embd, self.vocab), "Q6_K")

    def matrix_bytes(self) -> int:
        """Bytes of all quantised tensors."""
        return sum(tensor.n_bytes for tensor in self.tensors() if tensor.kind != "F32")

    def decode_bytes(self) -> int:
        """Bytes of weights that one step of decoding reads: all matrices but the embedding, of which it reads a row."""
        return self.matrix_bytes() - next(self.tensors()).n_bytes

    def layer_macs(self) -> int:
        """Multiplications per token of a prompt, in all layers; the output is computed for its last token only."""
        sizes = (
            math.prod(tensor.shape)
            for tensor in self.tensors()
            if tensor.name.startswith("blk.") and len(tensor.shape) == 2
        )
        return sum(sizes)

    def kv_bytes(self, bytes_per_value: float = 2.0) -> int:
        """Bytes of keys and values per token of context."""
        return int(2 * self.layers * self.embd * bytes_per_value)


@dataclass(frozen=True)
class Tensor:
    """One tensor of the file; `shape` in GGUF's order, the length of a row first."""

    name: str
    shape: tuple[int, ...]
    kind: str

    @property
    def n_bytes(self) -> int:
        """Bytes of its blocks, without padding."""
        _, block, size = TYPES[self.kind]
        return math.prod(self.shape) // block * size


def more_bits(layer: int, layers: int) -> bool:
    """Whether Q4_K_M keeps this layer's `ffn_down` in Q6_K: the first and last eighth, and every third between."""
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


# Metadata ------------------------------------------------------------------------------------------------------------


def _string(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(data)) + data


def _skip(data: bytes, at: int, kind: int) -> int:
    """The offset after the metadata value at `at`."""
    if kind == _STRING:
        return int(at + 8 + struct.unpack_from("<Q", data, at)[0])
    if kind == _ARRAY:
        element, count = struct.unpack_from("<IQ", data, at)
        at += 12
        if element in _WIDTHS:
            return int(at + _WIDTHS[element] * count)
        for _ in range(count):
            at = _skip(data, at, element)
        return at
    return at + _WIDTHS[kind]


def tokenizer_keys(path: Path = VOCABULARY) -> list[bytes]:
    """The metadata pairs of a vocabulary file that belong to its tokenizer, as they lie in it."""
    data = path.read_bytes()
    pairs = []
    at = 24
    for _ in range(struct.unpack_from("<Q", data, 16)[0]):
        first = at
        at = _skip(data, at, _STRING)
        name = data[first + 8 : at]
        (kind,) = struct.unpack_from("<I", data, at)
        at = _skip(data, at + 4, kind)
        if name.startswith(b"tokenizer."):
            pairs.append(data[first:at])
    return pairs


def _pair(name: str, value: str | float) -> bytes:
    if isinstance(value, str):
        return _string(name) + struct.pack("<I", _STRING) + _string(value)
    kind, code = (7, "?") if isinstance(value, bool) else (4, "I") if isinstance(value, int) else (6, "f")
    return _string(name) + struct.pack(f"<I{code}", kind, value)


def made_up_keys(count: int) -> list[bytes]:
    """A tokenizer of `count` entries for when the real one is not at hand: bytes, then numbered words."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    types = [2, 3, 3] + [6] * 256
    words = count - len(tokens)
    if words < 0:
        raise ValueError(f"A vocabulary needs {len(tokens)} entries or more; {count} were asked for.")
    tokens += [f"▁w{number}" for number in range(words)]
    types += [1] * words
    texts = b"".join(map(_string, tokens))

    def array(name: str, element: int, data: bytes) -> bytes:
        return _string(name) + struct.pack("<IIQ", _ARRAY, element, count) + data

    return [
        _pair("tokenizer.ggml.model", "llama"),
        _pair("tokenizer.ggml.pre", "default"),
        array("tokenizer.ggml.tokens", _STRING, texts),
        array("tokenizer.ggml.scores", 6, struct.pack(f"<{count}f", *(-float(i) for i in range(count)))),
        array("tokenizer.ggml.token_type", 5, struct.pack(f"<{count}i", *types)),
        _pair("tokenizer.ggml.bos_token_id", 1),
        _pair("tokenizer.ggml.eos_token_id", 2),
        _pair("tokenizer.ggml.unknown_token_id", 0),
        _pair("tokenizer.ggml.padding_token_id", 2),
        _pair("tokenizer.ggml.add_bos_token", True),
        _pair("tokenizer.ggml.add_eos_token", False),
    ]


def header(shape: Shape, tokenizer: list[bytes]) -> bytes:
    """The file up to its first tensor, padding included."""
    facts: dict[str, str | float] = {
        "general.architecture": "phi3",
        "general.type": "model",
        "general.name": shape.name,
        "general.description": f"Random weights, recipe {RECIPE}: good for measuring, writes nonsense.",
        "phi3.context_length": shape.context,
        "phi3.rope.scaling.original_context_length": shape.context,
        "phi3.embedding_length": shape.embd,
        "phi3.feed_forward_length": shape.ff,
        "phi3.block_count": shape.layers,
        "phi3.attention.head_count": shape.heads,
        "phi3.attention.head_count_kv": shape.heads,
        "phi3.attention.layer_norm_rms_epsilon": 1e-5,
        "phi3.rope.dimension_count": shape.embd // shape.heads,
        "phi3.rope.freq_base": 10000.0,
        "general.file_type": 15,
        "general.quantization_version": 2,
    }
    pairs = [_pair(name, value) for name, value in facts.items()] + tokenizer
    tensors = list(shape.tensors())
    parts = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(pairs)), *pairs]
    offset = 0
    for tensor in tensors:
        parts += [_string(tensor.name), struct.pack("<I", len(tensor.shape))]
        parts += [struct.pack("<Q", dimension) for dimension in tensor.shape]
        parts.append(struct.pack("<IQ", TYPES[tensor.kind][0], offset))
        offset += tensor.n_bytes + -tensor.n_bytes % ALIGNMENT
    data = b"".join(parts)
    return data + bytes(-len(data) % ALIGNMENT)


# Blocks --------------------------------------------------------------------------------------------------------------


def _halves(values: npt.NDArray[np.float32]) -> Bytes:
    """One f16 per block, as its two bytes."""
    return values.astype("<f2").view(np.uint8).reshape(-1, 2)


def _pack_six_bits(scales: Bytes) -> Bytes:
    """The 12 bytes of eight 6-bit scales whose minimums are the same numbers (blocks x 8)."""
    first, last = scales[:, :4], scales[:, 4:]
    high = (last >> 4) << 6
    return np.concatenate([first | high, first | high, (last & 15) | ((last & 15) << 4)], axis=1)


def blocks(kind: str, count: int, random: np.random.Generator) -> Bytes:
    """`count` random blocks of a quantised type, each as a row of bytes: mean 0, deviation `SPREAD`."""
    _, _, size = TYPES[kind]
    words = random.integers(0, 1 << 64, size=-(-count * size // 8), dtype=np.uint64)
    data = words.view(np.uint8)[: count * size].reshape(count, size)
    # A deviation per block, as in trained weights: a quarter more or less.
    spread = random.uniform(0.75 * SPREAD, 1.25 * SPREAD, count).astype(np.float32)
    if kind == "Q6_K":
        # scale * (q - 32), q even over 0..63: a deviation of 18.5 scales, of 8 to 24 of either sign.
        scales = random.integers(8, 25, (count, 16), dtype=np.uint8).view(np.int8)
        data[:, 192:208] = np.where(data[:, 192:208] & 1, scales, -scales).view(np.uint8)
        data[:, 208:210] = _halves(spread / (18.5 * 16.7))
        return data
    # d * scale * q - dmin * minimum, with minimum = scale and dmin = d * mean of q.
    levels = 16 if kind == "Q4_K" else 32
    step = spread / (math.sqrt((levels * levels - 1) / 12) * 28.9)
    data[:, 0:2] = _halves(step)
    data[:, 2:4] = _halves(step * ((levels - 1) / 2))
    data[:, 4:16] = _pack_six_bits(random.integers(16, 41, (count, 8), dtype=np.uint8))
    return data


def tensor_bytes(tensor: Tensor, number: int) -> Iterator[bytes]:
    """The bytes of the tensor of this number in its file, in pieces, without padding."""
    random = np.random.Generator(np.random.SFC64([RECIPE, number]))
    if tensor.kind == "F32":
        yield (1 + random.uniform(-0.1, 0.1, tensor.shape)).astype("<f4").tobytes()
        return
    count = math.prod(tensor.shape) // TYPES[tensor.kind][1]
    for first in range(0, count, _CHUNK):
        yield blocks(tensor.kind, min(_CHUNK, count - first), random).tobytes()


# File ----------------------------------------------------------------------------------------------------------------


def file_length(shape: Shape, head: bytes) -> int:
    """Bytes of the whole file."""
    return len(head) + sum(tensor.n_bytes + -tensor.n_bytes % ALIGNMENT for tensor in shape.tensors())


def is_whole(path: Path, shape: Shape, head: bytes) -> bool:
    """Whether the file there is the one that would be written: header and length."""
    try:
        with path.open("rb") as file:
            return path.stat().st_size == file_length(shape, head) and file.read(len(head)) == head
    except FileNotFoundError:
        return False


def write(path: Path, shape: Shape, tokenizer: list[bytes]) -> None:
    """Writes the file under another name, which it loses when it is whole."""
    head = header(shape, tokenizer)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(head)
            for number, tensor in enumerate(shape.tensors()):
                for piece in tensor_bytes(tensor, number):
                    file.write(piece)
                file.write(bytes(-tensor.n_bytes % ALIGNMENT))
        part.replace(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            part.unlink()


def cache() -> Path:
    """Where the file, the peers' environments and all else that the comparison makes is kept."""
    base = os.environ.get("PHICANDLE_BENCH_CACHE")
    return Path(base) if base else Path.home() / ".cache" / "phicandle-bench"


def find_or_write(
    path: Path | None = None, shape: Shape | None = None, vocabulary: Path = VOCABULARY
) -> Path:
    """The file of this shape (default: Phi-3-mini's), from the cache or written now; says which on standard error."""
    shape = shape or Shape()
    if vocabulary.exists():
        tokenizer, source = tokenizer_keys(vocabulary), "Phi-3's own vocabulary"
    else:
        tokenizer = made_up_keys(shape.vocab)
        source = f"a made-up vocabulary of {shape.vocab} entries, as {vocabulary.name} is not at hand"
    head = header(shape, tokenizer)
    if path is None:
        path = cache() / f"phi-3-mini-shape-{hashlib.sha256(head).hexdigest()[:12]}.gguf"
    if is_whole(path, shape, head):
        print(f"{path}: there already, with {source}.", file=sys.stderr)
        return path
    gigabytes = file_length(shape, head) / 1e9
    print(f"Writing {path}: {gigabytes:.2f} GB of random weights, with {source}.", file=sys.stderr)
    started = time.monotonic()
    write(path, shape, tokenizer)
    print(f"Written in {time.monotonic() - started:.1f} s.", file=sys.stderr)
    return path


def main(arguments: list[str] | None = None) -> int:
    """Writes the file, and prints its path."""
    parser = argparse.ArgumentParser(
        description="Write a GGUF file of Phi-3-mini's shape with random weights."
    )
    parser.add_argument("path", nargs="?", type=Path, help="default: in the user's cache")
    parser.add_argument("--layers", type=int, default=Shape.layers, help="fewer make a smaller file")
    chosen = parser.parse_args(arguments)
    print(find_or_write(chosen.path, replace(Shape(), layers=chosen.layers)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
