"""The kinds of malformed file that `test_hostile_files.py` tries: how each is made, and which error it must raise.

A row is a name and a function that damages a sound model (or returns bytes of its own). The comments name the place in
other readers where such a file once crashed, hung or was misread; cg and cp are candle's `gguf_file.rs` and
`quantized_phi3.rs`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import hostile_family as family
from gguf_files import DTYPES, Gguf, Key, Tensor, array, scalar, sound, text, vocabulary
from hostile_templates import TEMPLATES

CORRUPT, UNSUPPORTED = "CorruptModelError", "UnsupportedModelError"
#: What a sound file gives instead of an error.
LOADS = ""
TOKENIZER, TEMPLATE, MEMORY = "TokenizerError", "TemplateError", "OutOfMemoryError"

Damage = Callable[[Gguf], "Gguf | bytes | None"]


@dataclass(frozen=True)
class Kind:
    """One kind of malformed file."""

    name: str
    #: The class that loading (or, when `generates`, generating) must raise.
    expected: str
    damage: Damage
    arch: str = "phi3"
    #: Whether only the candle backend refuses it: the native one runs it.
    candle: bool = False
    #: Whether the fault may show only when a prompt goes through the template.
    generates: bool = False
    #: Bytes of the whole file when most of it is a hole.
    length: int | None = None

    def expected_of(self, backend: str) -> str:
        """The class that a backend must raise."""
        return LOADS if self.candle and backend == "native" else self.expected

    def write(self, path: Path) -> None:
        """Writes the file."""
        file = sound(self.arch)
        made = self.damage(file)
        path.write_bytes(made if isinstance(made, bytes) else (made or file).to_bytes())
        if self.length is not None:
            with path.open("r+b") as hole:
                hole.truncate(self.length)


def _word(value: int) -> bytes:
    return struct.pack("<Q", value % 2**64)


def _with(file: Gguf, /, **fields: object) -> Gguf:
    for name, value in fields.items():
        setattr(file, name, value)
    return file


def _append(file: Gguf, key: Key) -> Gguf:
    file.keys.append(key)
    return file


def _tensor(file: Gguf, name: str, /, **fields: object) -> Gguf:
    for field, value in fields.items():
        setattr(file.tensor(name), field, value)
    return file


def _retype(file: Gguf, name: str, dtype: str) -> Gguf:
    """Gives a tensor another type, with as many zero bytes as that type needs."""
    tensor = file.tensor(name)
    number, block, size = DTYPES[dtype]
    elements = 1
    for dim in tensor.shape:
        elements *= dim
    return _tensor(file, name, dtype=number, data=bytes(elements // block * size))


def _header_only(*, tensors: int = 0, keys: int = 0, rest: bytes = b"") -> bytes:
    return b"GGUF" + struct.pack("<I", 3) + _word(tensors) + _word(keys) + rest


def _layout(offsets: Callable[[list[int]], list[int]]) -> Damage:
    """Gives the tensors other offsets than those they should have."""

    def damage(file: Gguf) -> None:
        position, true = 0, []
        for tensor in file.tensors:
            true.append(position)
            position += len(tensor.data) + -len(tensor.data) % 32
        for tensor, offset in zip(file.tensors, offsets(true), strict=True):
            tensor.offset = offset % 2**64

    return damage


def _nested_arrays(file: Gguf) -> Gguf:
    return file.raw("a", 9, struct.pack("<IQ", 9, 1) * 10_000 + array("u8", [1]))


def _two_halves_of_everything(file: Gguf) -> bytes:
    """Two tensors of 2^62 bytes each: their padded sum does not fit the file, nor 63 bits."""
    tensors = b"".join(
        text(name) + struct.pack("<IQIQ", 1, 2**62, DTYPES["I8"][0], offset)
        for name, offset in (("a", 0), ("b", 2**62), ("c", 2**63))
    )
    return _header_only(tensors=3, rest=tensors + bytes(64))


#: Damage to the container: counts, strings, types, alignment, names, shapes, offsets, lengths.
CONTAINER: dict[str, Damage] = {
    "empty file": lambda g: b"",
    "one byte": lambda g: b"G",
    "magic only": lambda g: b"GGUF",
    "wrong magic": lambda g: _with(g, magic=b"LLMF"),
    "lower-case magic": lambda g: _with(g, magic=b"gguf"),
    "reversed magic": lambda g: _with(g, magic=b"FUGG"),  # cg13
    "zip archive": lambda g: b"PK\x03\x04" + bytes(400),
    "safetensors file": lambda g: _word(16) + b'{"a":{"dtype":1}' + bytes(64),
    "html page": lambda g: b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
    "git-lfs pointer": lambda g: (
        b"version https://git-lfs.example/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 2\n"
    ),
    "version 0": lambda g: _with(g, version=0),
    "version 1": lambda g: _with(g, version=1),
    "version 4": lambda g: _with(g, version=4),
    "version byte-swapped": lambda g: _with(g, version=3 << 24),
    "version 2^32-1": lambda g: _with(g, version=2**32 - 1),
    "tensor count 2^64-1": lambda g: _with(g, n_tensors=2**64 - 1),  # CVE-2024-21836
    "tensor count negative": lambda g: _with(g, n_tensors=2**63),
    "tensor count one too many": lambda g: _with(g, n_tensors=len(g.tensors) + 1),
    "tensor count one too few": lambda g: _with(g, n_tensors=len(g.tensors) - 1),
    "tensor count over the limit": lambda g: _header_only(tensors=65_537, rest=bytes(65_537 * 40)),
    "key count 2^64-1": lambda g: _with(g, n_keys=2**64 - 1),  # CVE-2024-23605
    "key count negative": lambda g: _with(g, n_keys=2**63),
    "key count 2^32": lambda g: _with(g, n_keys=2**32),
    "key count one too many": lambda g: _with(g, n_keys=len(g.keys) + 1),
    "key count one too few": lambda g: _with(g, n_keys=len(g.keys) - 1),
    "key count over the limit": lambda g: _header_only(
        keys=65_537, rest=b"".join(text(f"k{i:05}") + struct.pack("<IB", 0, 1) for i in range(65_537))
    ),
    "key empty": lambda g: g.set("", "u8", 1),
    "key twice": lambda g: _append(g, Key(b"general.name", 8, text("tiny"))),  # cg7
    "key twice, another architecture": lambda g: _append(g, Key(b"general.architecture", 8, text("llama"))),
    "key not ASCII": lambda g: g.set("clé", "u8", 1),
    "key not UTF-8": lambda g: g.set(b"\xff\xfe", "u8", 1),  # cg11
    "key with NUL": lambda g: g.set("general.name\0", "u8", 1),  # cg12
    "key of 65,536 bytes": lambda g: g.set("k" * 65_536, "u8", 1),
    "key length 2^63": lambda g: _append(g, Key(b"k", 0, b"\1", claimed=2**63)),
    "key length 2^64-1": lambda g: _append(g, Key(b"k", 0, b"\1", claimed=2**64 - 1)),
    "value type 13": lambda g: g.raw("k", 13, b"\1"),
    "value type 2^32-1": lambda g: g.raw("k", 2**32 - 1, b"\1"),
    "boolean 2": lambda g: g.raw("k", 7, b"\2"),
    "boolean array with 255": lambda g: g.raw("k", 9, struct.pack("<IQ", 7, 3) + b"\0\1\xff"),
    "array of arrays": lambda g: g.raw("k", 9, struct.pack("<IQ", 9, 1) + array("u8", [1])),
    "arrays 10,000 deep": _nested_arrays,
    "array of an unknown type": lambda g: g.raw("k", 9, struct.pack("<IQ", 13, 1) + b"\0"),
    "array of 2^64-1 bytes": lambda g: g.raw("k", 9, array("u8", [1], count=2**64 - 1)),
    "array of 2^62 u32": lambda g: g.raw("k", 9, array("u32", [1], count=2**62)),  # x4 wraps to 0
    "array of 2^61 u64": lambda g: g.raw("k", 9, array("u64", [1], count=2**61)),
    "array of 2^60 strings": lambda g: g.raw("k", 9, array("str", ["a"], count=2**60)),  # CVE-2024-21825
    "array over the limit": lambda g: g.raw(
        "k", 9, struct.pack("<IQ", 0, 2**24 + 1) + bytes(2**24 + 1)
    ),  # cg9
    "array of strings cut short": lambda g: g.to_bytes()[:6_000],
    "string length 2^64-1": lambda g: g.raw("k", 8, text("a", 2**64 - 1)),  # CVE-2024-23496
    "string length 2^63": lambda g: g.raw("k", 8, text("a", 2**63)),
    "string length past the end": lambda g: g.raw("k", 8, text("a", 2**30)),
    "string of 2 MiB": lambda g: g.set("general.license", "str", "x" * 2**21),
    "token length 2^64-1": lambda g: g.raw(
        "k", 9, struct.pack("<IQ", 8, 2) + text("a") + text("b", 2**64 - 1)
    ),
    "alignment 0": lambda g: g.set("general.alignment", "u32", 0),  # cg1
    "alignment 0 as u8": lambda g: g.set("general.alignment", "u8", 0),
    "alignment as u64": lambda g: g.set("general.alignment", "u64", 64),  # cg2
    "alignment negative": lambda g: g.set("general.alignment", "i32", -32),
    "alignment as string": lambda g: g.set("general.alignment", "str", "32"),
    "alignment 3": lambda g: g.set("general.alignment", "u32", 3),
    "alignment 4": lambda g: g.set("general.alignment", "u32", 4),
    "alignment 2^31": lambda g: g.set("general.alignment", "u32", 2**31),
    "alignment 2^32-1": lambda g: g.set("general.alignment", "u32", 2**32 - 1),  # padding wraps
    "tensor name empty": lambda g: _tensor(g, "output.weight", name=b""),
    "tensor name of 65 bytes": lambda g: g.add("t" * 65, [1]),
    "tensor name length 2^64-1": lambda g: _tensor(g, "output.weight", claimed=2**64 - 1),
    "tensor name not UTF-8": lambda g: _tensor(g, "output.weight", name=b"output\xff"),
    "tensor name with a newline": lambda g: g.add("a\nb", [1]),
    "tensor name twice": lambda g: g.add("output.weight", g.tensor("output.weight").shape),  # cg7
    "tensor of 5 dimensions": lambda g: g.add("t", [1, 1, 1, 1, 1]),  # CVE-2024-21802
    "tensor of 2^32-1 dimensions": lambda g: _tensor(g, "output.weight", dims=2**32 - 1),
    "shape wraps to 0": lambda g: _tensor(g, "output.weight", shape=[2**32, 2**32], data=b""),  # cg3
    "size wraps to 0": lambda g: _tensor(g, "output.weight", shape=[2**62], data=b""),
    "dimension negative": lambda g: _tensor(g, "output.weight", shape=[64, 2**63]),
    "dimension 2^64-1": lambda g: _tensor(g, "output.weight", shape=[2**64 - 1, 2]),
    "row not whole blocks": lambda g: g.add("t", [33, 2], "Q8_0", bytes(68)),
    "tensor type 2^32-1": lambda g: _tensor(g, "output.weight", dtype=2**32 - 1),
    "offset unaligned": _layout(lambda true: [*true[:-1], true[-1] + 1]),  # cg8
    "offset past the end": _layout(lambda true: [*true[:-1], 2**40]),  # CVE-2026-7482
    "offset 2^64-32": _layout(lambda true: [*true[:-1], 2**64 - 32]),
    "offset 2^64-1": _layout(lambda true: [*true[:-1], 2**64 - 1]),
    "tensors overlap": _layout(lambda true: [*true[:-1], true[-2]]),
    "tensors with a gap": _layout(lambda true: [*true[:-1], true[-1] + 32]),
    "tensors out of order": _layout(lambda true: [true[1], true[0], *true[2:]]),
    "all tensors at 0": _layout(lambda true: [0] * len(true)),
    "sizes whose sum wraps": _two_halves_of_everything,  # CVE-2025-53630
    "data cut in half": lambda g: g.to_bytes()[:-200_000],
    "data absent": lambda g: g.header(),
    "last byte absent": lambda g: g.to_bytes()[:-1],
    "one byte too many": lambda g: _with(g, tail=b"\0"),
    "a second model behind": lambda g: _with(g, tail=g.to_bytes()),
    "a mebibyte of zeros behind": lambda g: _with(g, tail=bytes(2**20)),
    "cut inside the metadata": lambda g: g.to_bytes()[:700],
    "cut inside the tensor list": lambda g: g.header()[:-300],
}

_LAYERS, _HEADS, _KV = "phi3.block_count", "phi3.attention.head_count", "phi3.attention.head_count_kv"
_EMBD, _FF, _CONTEXT = "phi3.embedding_length", "phi3.feed_forward_length", "phi3.context_length"
_EPS, _ROPE, _BASE = (
    "phi3.attention.layer_norm_rms_epsilon",
    "phi3.rope.dimension_count",
    "phi3.rope.freq_base",
)
_SCALING, _FACTOR = "phi3.rope.scaling.type", "phi3.rope.scaling.factor"
_ORIGINAL, _WINDOW = "phi3.rope.scaling.original_context_length", "phi3.attention.sliding_window"
_HUGE = 2**32 - 1


def _long_factors(file: Gguf, length: int = 8) -> Gguf:
    ones = struct.pack(f"<{length}f", *[1.0] * length)
    return file.add("rope_factors_long.weight", [length], data=ones).add(
        "rope_factors_short.weight", [length], data=ones
    )


def _poison(name: str, value: float, at: int = -4) -> Damage:
    """Puts a number that is none into an F32 tensor."""

    def damage(file: Gguf) -> None:
        data = bytearray(file.tensor(name).data)
        data[at : at + 4 or None] = struct.pack("<f", value)
        file.tensor(name).data = bytes(data)

    return damage


def _poison_scales(dtype: str, size: int, elements: int) -> Damage:
    """Makes `token_embd.weight` of another type, its last scale a half-precision NaN."""

    def damage(file: Gguf) -> None:
        _retype(file, "token_embd.weight", dtype)
        data = bytearray(file.tensor("token_embd.weight").data)
        data[-size : 2 - size or None] = b"\x00\x7e"
        file.tensor("token_embd.weight").data = bytes(data)

    assert DTYPES[dtype][1:] == (elements, size)
    return damage


#: A sound container around a model that cannot be: numbers out of range, parts absent or contradicting each other.
MODEL: dict[str, Damage] = {
    "architecture absent": lambda g: g.drop("general.architecture"),
    "architecture as u32": lambda g: g.set("general.architecture", "u32", 3),
    "architecture not UTF-8": lambda g: g.set("general.architecture", "str", b"phi\xff"),
    "name not UTF-8": lambda g: g.set("general.name", "str", b"\xff"),
    "layers 0": lambda g: g.set(_LAYERS, "u32", 0),
    "layers 2^32-1": lambda g: g.set(_LAYERS, "u32", _HUGE),  # cp3
    "layers 257": lambda g: g.set(_LAYERS, "u32", 257),
    "layers one too many": lambda g: g.set(_LAYERS, "u32", 3),
    "layers one too few": lambda g: g.set(_LAYERS, "u32", 1),
    "layers as string": lambda g: g.set(_LAYERS, "str", "2"),
    "layers negative": lambda g: g.set(_LAYERS, "i32", -2),
    "layers as float": lambda g: g.set(_LAYERS, "f32", 2.0),
    "layers as a megabyte of bytes": lambda g: g.raw(
        _LAYERS, 9, struct.pack("<IQ", 0, 2**20) + bytes(2**20)
    ),  # cg10
    "layers absent": lambda g: g.drop(_LAYERS),
    "heads 0": lambda g: g.set(_HEADS, "u32", 0),  # cp1
    "heads 2^32-1": lambda g: g.set(_HEADS, "u32", _HUGE),
    "heads no divisor of the width": lambda g: g.set(_HEADS, "u32", 5).set(_KV, "u32", 5),
    "heads half of the tensor's": lambda g: g.set(_HEADS, "u32", 2).set(_ROPE, "u32", 16),
    "heads absent": lambda g: g.drop(_HEADS),
    "heads of one element": lambda g: g.set(_HEADS, "u32", 64).set(_KV, "u32", 2),
    "key heads 0": lambda g: g.set(_KV, "u32", 0),  # cp2
    "key heads more than heads": lambda g: g.set(_KV, "u32", 8),
    "key heads no divisor": lambda g: g.set(_KV, "u32", 3),
    "key heads not the tensor's": lambda g: g.set(_KV, "u32", 4),
    "head size 7": lambda g: g.set("phi3.attention.key_length", "u32", 7),
    "head size 2^32-1": lambda g: g.set("phi3.attention.key_length", "u32", _HUGE),
    "head sizes of k and v differ": lambda g: g.set("phi3.attention.key_length", "u32", 16).set(
        "phi3.attention.value_length", "u32", 32
    ),
    "context 0": lambda g: g.set(_CONTEXT, "u32", 0),
    "context 2^32-1": lambda g: g.set(_CONTEXT, "u32", _HUGE),  # cp4
    "context 2^63": lambda g: g.set(_CONTEXT, "u64", 2**63),
    "context absent": lambda g: g.drop(_CONTEXT),
    "width 0": lambda g: g.set(_EMBD, "u32", 0),
    "width 2^32-1": lambda g: g.set(_EMBD, "u32", _HUGE),
    "width not the tensors'": lambda g: g.set(_EMBD, "u32", 128).set(_ROPE, "u32", 32),
    "width absent": lambda g: g.drop(_EMBD),
    "inner width 0": lambda g: g.set(_FF, "u32", 0),
    "inner width 2^32-1": lambda g: g.set(_FF, "u32", _HUGE),
    "inner width not the tensors'": lambda g: g.set(_FF, "u32", 256),
    "inner width absent": lambda g: g.drop(_FF),
    "epsilon NaN": lambda g: g.set(_EPS, "f32", float("nan")),  # cp9
    "epsilon 0": lambda g: g.set(_EPS, "f32", 0.0),
    "epsilon negative": lambda g: g.set(_EPS, "f32", -1e-5),
    "epsilon infinite": lambda g: g.set(_EPS, "f32", float("inf")),
    "epsilon 1": lambda g: g.set(_EPS, "f32", 1.0),
    "epsilon as string": lambda g: g.set(_EPS, "str", "1e-5"),
    "epsilon absent": lambda g: g.drop(_EPS),
    "rope 0": lambda g: g.set(_ROPE, "u32", 0),  # cp12
    "rope odd": lambda g: g.set(_ROPE, "u32", 15),
    "rope larger than a head": lambda g: g.set(_ROPE, "u32", 32),
    "rope base 0": lambda g: g.set(_BASE, "f32", 0.0),
    "rope base negative": lambda g: g.set(_BASE, "f32", -1e4),
    "rope base NaN": lambda g: g.set(_BASE, "f32", float("nan")),
    "rope base infinite": lambda g: g.set(_BASE, "f32", float("inf")),
    "scaling as number": lambda g: g.set(_SCALING, "u32", 1),
    "scaling factor NaN": lambda g: g.set(_SCALING, "str", "linear").set(_FACTOR, "f32", float("nan")),
    "scaling factor negative": lambda g: g.set(_SCALING, "str", "linear").set(_FACTOR, "f32", -2.0),
    "yarn without factor": lambda g: g.set(_SCALING, "str", "yarn"),
    "longrope without factors": lambda g: g.set(_SCALING, "str", "longrope").set(_ORIGINAL, "u32", 64),
    "longrope with half its factors": lambda g: (
        _long_factors(g).set(_ORIGINAL, "u32", 64).drop("rope_factors_long.weight")
    ),
    "longrope without its first context": _long_factors,
    "longrope factors of another length": lambda g: _long_factors(g, 9).set(_ORIGINAL, "u32", 64),
    "longrope from a longer context": lambda g: _long_factors(g).set(_ORIGINAL, "u32", 512),
    "linear scaling with longrope factors": lambda g: _long_factors(g).set(_SCALING, "str", "linear"),
    "window as string": lambda g: g.set(_WINDOW, "str", "64"),
    "window negative": lambda g: g.set(_WINDOW, "i32", -1),
    "vocabulary larger than the embedding": lambda g: g.set("phi3.vocab_size", "u32", 100_000),  # cp16
    "embedding absent": lambda g: g.drop("token_embd.weight"),
    "last norm absent": lambda g: g.drop("output_norm.weight"),
    "layer tensor absent": lambda g: g.drop("blk.1.ffn_down.weight"),
    "all tensors absent": lambda g: _with(g, tensors=[]),
    "matrix transposed": lambda g: _tensor(g, "blk.0.attn_qkv.weight", shape=[128, 64]),
    "embedding of one dimension": lambda g: _tensor(
        g, "token_embd.weight", shape=[64 * len(vocabulary()[0])]
    ),
    "norm of two dimensions": lambda g: _tensor(g, "output_norm.weight", shape=[64, 1]),
    "output with one row less": lambda g: g.drop("output.weight").add(
        "output.weight", [64, len(vocabulary()[0]) - 1]
    ),
    "output with no rows": lambda g: g.drop("output.weight").add("output.weight", [64, 0]),  # cg6
    "norm of no elements": lambda g: _tensor(g, "blk.0.attn_norm.weight", shape=[0], data=b""),  # cg5
    "embedding with no rows": lambda g: _tensor(g, "token_embd.weight", shape=[64, 0], data=b""),
    "bias of another length": lambda g: g.add("blk.0.attn_qkv.bias", [64]),
    "NaN in a norm": _poison("blk.1.ffn_norm.weight", float("nan")),
    "infinity in the embedding": _poison("token_embd.weight", float("inf")),
    "minus infinity in the output": _poison("output.weight", float("-inf"), at=0),
    "NaN scale in Q8_0": _poison_scales("Q8_0", 34, 32),
    "NaN scale in Q4_0": _poison_scales("Q4_0", 18, 32),
    "NaN in F16": _poison_scales("F16", 2, 1),
}

_TOKENS, _SCORES, _TYPES = "tokenizer.ggml.tokens", "tokenizer.ggml.scores", "tokenizer.ggml.token_type"
_N = len(vocabulary()[0])

#: Vocabularies whose parts contradict each other or have the wrong type.
VOCABULARY: dict[str, Damage] = {
    "tokens as numbers": lambda g: g.set(_TOKENS, "[u32]", range(_N)),
    "tokens as one string": lambda g: g.set(_TOKENS, "str", "abc"),
    "tokens none": lambda g: g.set(_TOKENS, "[str]", []),
    "tokens more than rows": lambda g: g.set(_TOKENS, "[str]", [f"t{i}" for i in range(_N + 1)]).drop(
        _SCORES, _TYPES
    ),
    "token of 64 KiB and one": lambda g: g.set(_TOKENS, "[str]", [*vocabulary()[0][:-1], "x" * (2**16 + 1)]),
    "scores one too few": lambda g: g.set(_SCORES, "[f32]", [0.0] * (_N - 1)),
    "scores as i8": lambda g: g.set(_SCORES, "[i8]", [0] * _N),  # read as 4 bytes each elsewhere
    "scores as strings": lambda g: g.set(_SCORES, "[str]", ["0"] * _N),
    "scores NaN": lambda g: g.set(_SCORES, "[f32]", [float("nan")] * _N),
    "types one too many": lambda g: g.set(_TYPES, "[i32]", [1] * (_N + 1)),
    "types as i8": lambda g: g.set(_TYPES, "[i8]", [1] * _N),
    "types unknown": lambda g: g.set(_TYPES, "[i32]", [99] * _N),
    "types negative": lambda g: g.set(_TYPES, "[i32]", [-1] * _N),
    "end token beyond the vocabulary": lambda g: g.set("tokenizer.ggml.eos_token_id", "u32", _N),
    "first token 2^32-1": lambda g: g.set("tokenizer.ggml.bos_token_id", "u32", _HUGE),
    "end token negative": lambda g: g.set("tokenizer.ggml.eos_token_id", "i32", -1),  # ct2
    "end token as string": lambda g: g.set("tokenizer.ggml.eos_token_id", "str", "</s>"),
    "end token as list": lambda g: g.set("tokenizer.ggml.eos_token_id", "[u32]", [1, 2]),
    "switch as string": lambda g: g.set("tokenizer.ggml.add_bos_token", "str", "false"),
    "merges as numbers": lambda g: g.set("tokenizer.ggml.merges", "[i32]", [1, 2]),
    "tokenizer's name as number": lambda g: g.set("tokenizer.ggml.model", "u32", 1),
    "tokenizer's name not UTF-8": lambda g: g.set("tokenizer.ggml.model", "str", b"\xff"),
    "template as number": lambda g: g.set("tokenizer.chat_template", "u32", 1),
    "template not UTF-8": lambda g: g.set("tokenizer.chat_template", "str", b"{{ '\xff' }}"),
    "template of 64 KiB and one": lambda g: g.set("tokenizer.chat_template", "str", "x" * (2**16 + 1)),
    "template list": lambda g: g.set("tokenizer.chat_template", "[str]", ["a", "b"]),
}


_LETTERS = [*map(chr, range(0x21, 0x7F))]


def _byte_level(
    file: Gguf, merges: list[str | bytes] | None, tokens: list[str | bytes] | None = None
) -> Gguf:
    """Makes the vocabulary a byte-level BPE's, as GPT-2's."""
    tokens = tokens or [*_LETTERS, "he", "Ġ"]
    file.set("tokenizer.ggml.model", "str", "gpt2").set("tokenizer.ggml.pre", "str", "gpt-2")
    file.set(_TOKENS, "[str]", tokens).set(_TYPES, "[i32]", [1] * len(tokens)).drop(_SCORES)
    for key in list(file.keys):
        if key.name.endswith(b"_token_id"):
            key.value = scalar("u32", 0)
    return file if merges is None else file.set("tokenizer.ggml.merges", "[str]", merges)


#: Vocabularies whose merges cannot be read, or that have no tokens.
BROKEN_MERGES: dict[str, Damage] = {
    "tokens absent": lambda g: g.drop(_TOKENS, _SCORES, _TYPES),
    "merge without a space": lambda g: _byte_level(g, ["h e", "he"]),
    "merge empty": lambda g: _byte_level(g, ["h e", ""]),
    "merge not UTF-8": lambda g: _byte_level(g, ["h e", b"h \xff"]),
}

#: Vocabularies that are sound as far as they go, and go not far enough.
POOR_TOKENIZER: dict[str, Damage] = {
    "merges absent": lambda g: _byte_level(g, None),
    "no bytes and no unknown token": lambda g: (
        g.drop("tokenizer.ggml.unknown_token_id")
        .set(_TOKENS, "[str]", [f"t{rank}" for rank in range(_N)])
        .set(_TYPES, "[i32]", [1] * _N)
    ),
}

#: Tokenizers that this build does not know.
OTHER_TOKENIZERS: dict[str, Damage] = {
    "tokenizer absent": lambda g: _with(
        g, keys=[key for key in g.keys if not key.name.startswith(b"tokenizer.ggml")]
    ),
    "tokenizer unknown": lambda g: g.set("tokenizer.ggml.model", "str", "wordpiece-9"),
    "tokenizer's name empty": lambda g: g.set("tokenizer.ggml.model", "str", ""),
    "splitter unknown": lambda g: _byte_level(g, ["h e"]).set(
        "tokenizer.ggml.pre", "str", "no-such-splitter"
    ),
}

#: Other files of models, which this build does not run.
OTHER_MODELS: dict[str, Damage] = {
    "architecture gemma3": lambda g: g.set("general.architecture", "str", "gemma3"),
    "architecture empty": lambda g: g.set("general.architecture", "str", ""),
    "architecture of a megabyte": lambda g: g.set("general.architecture", "str", "x" * 2**20),  # cg10
    "architecture with control characters": lambda g: g.set("general.architecture", "str", "\x1b[2Jphi3\r\n"),
    "adapter": lambda g: g.set("general.type", "str", "adapter"),
    "quant MXFP4": lambda g: _retype(g, "blk.1.ffn_up.weight", "MXFP4"),
    "quant withdrawn": lambda g: _tensor(g, "blk.1.ffn_up.weight", dtype=31),
    "quant Q4_2 of 2023": lambda g: _tensor(g, "blk.1.ffn_up.weight", dtype=4),
    "quant not invented yet": lambda g: _tensor(g, "blk.1.ffn_up.weight", dtype=200),
    "weights of i32": lambda g: _retype(g, "blk.0.ffn_down.weight", "I32"),
    "norm of f64": lambda g: _retype(g, "output_norm.weight", "F64"),
    "norm of Q8_0": lambda g: _retype(g, "output_norm.weight", "Q8_0"),
    "scaling unknown": lambda g: g.set(_SCALING, "str", "dynamic-2"),
}

#: Sound files that candle cannot read or would give wrong text for.
CANDLE: dict[str, Damage] = {
    "quant IQ4_NL": lambda g: _retype(g, "blk.0.attn_output.weight", "IQ4_NL"),  # cg15
    "rope base candle ignores": lambda g: g.set(_BASE, "f32", 1e6),  # cp6
    "longrope candle ignores": lambda g: _long_factors(g).set(_ORIGINAL, "u32", 64),
    "linear scaling candle ignores": lambda g: g.set(_SCALING, "str", "linear").set(_FACTOR, "f32", 4.0),
    "yarn candle ignores": lambda g: g.set(_SCALING, "str", "yarn").set(_FACTOR, "f32", 4.0),
    "frequency factors candle ignores": lambda g: g.add(
        "rope_freqs.weight", [8], data=struct.pack("<8f", *[2.0] * 8)
    ),
    "tied embedding": lambda g: g.drop("output.weight"),  # cp10
    "bias candle ignores": lambda g: g.add("blk.0.attn_qkv.bias", [128]),
    "part of a head turns": lambda g: g.set(_ROPE, "u32", 8),
}

#: Faults in what only `llama` files have.
LLAMA: dict[str, Damage] = {
    "q absent": lambda g: g.drop("blk.0.attn_q.weight"),
    "k as wide as q": lambda g: g.set("llama.attention.head_count_kv", "u32", 4),
    "gate absent": lambda g: g.drop("blk.1.ffn_gate.weight"),
    "heads 0": lambda g: g.set("llama.attention.head_count", "u32", 0),
    "keys of phi3": lambda g: _with(
        g, keys=[Key(key.name.replace(b"llama.", b"phi3."), key.kind, key.value) for key in g.keys]
    ),
}

#: Unusual files with no fault: they must load and generate, or the rules are too strict.
SOUND: dict[str, Damage] = {
    "as it is": lambda g: g,
    "version 2": lambda g: _with(g, version=2),
    "alignment 64": lambda g: _with(g.set("general.alignment", "u32", 64), alignment=64),
    "no padding at the end": lambda g: g.add("extra", [3]).to_bytes()[:-20],
    "unused tensor of a type that candle lacks": lambda g: g.add("extra", [256], "IQ2_XS"),  # cg15
    "unused tensor of no elements": lambda g: g.add("extra", [0, 4]),
    "numbers as u64": lambda g: g.set(_LAYERS, "u64", 2).set(_CONTEXT, "i32", 256),
    "more rows than tokens": lambda g: (
        g.set(_TOKENS, "[str]", vocabulary()[0][:-1])
        .set(_SCORES, "[f32]", vocabulary()[1][:-1])
        .set(_TYPES, "[i32]", vocabulary()[2][:-1])
    ),
    "window 0": lambda g: g.set(_WINDOW, "u32", 0),
    "scaling none": lambda g: g.set(_SCALING, "str", "none"),
    "first context without scaling": lambda g: g.set(_ORIGINAL, "u32", 256),
    "description not UTF-8": lambda g: g.set("general.description", "str", b"\xff\xfe"),
    "no template": lambda g: g.drop("tokenizer.chat_template"),
    "300 rows for padding": lambda g: _byte_level(g, ["h e"]),  # the id of such a row has no text
    # Such merges and tokens can match no text, so they are left out.
    "merge of unknown pieces": lambda g: _byte_level(g, ["h e", "qqq zzz"]),
    "merge with an unknown result": lambda g: _byte_level(g, ["h e", "a b"]),
    "token outside the byte alphabet": lambda g: _byte_level(g, ["h e"], [*_LETTERS, "he", b"\xff"]),  # cg11
}


def _hole() -> tuple[Gguf, int]:
    """A sound header for a tebibyte of weights, and the length of that file, which is a hole after the header."""
    width, rows, head_dim = 2**17, 2**20, 256
    file = sound()
    shapes = {
        "token_embd": [width, rows],
        "blk.0.attn_norm": [width],
        "blk.0.attn_qkv": [width, width + 2 * head_dim],
        "blk.0.attn_output": [width, width],
        "blk.0.ffn_norm": [width],
        "blk.0.ffn_up": [width, 64],
        "blk.0.ffn_down": [32, width],
        "output_norm": [width],
        "output": [width, rows],
    }
    for key, value in {
        _LAYERS: 1,
        _EMBD: width,
        _HEADS: width // head_dim,
        _KV: 1,
        _FF: 32,
        _ROPE: head_dim,
    }.items():
        file.set(key, "u32", value)
    file.tensors, total = [], 0
    for name, shape in shapes.items():
        n_bytes = 4 * shape[0] * (shape[1] if len(shape) == 2 else 1)
        # A range has a length and takes no memory: the header needs no more of the data.
        file.tensors.append(Tensor(f"{name}.weight".encode(), shape, 0, range(n_bytes)))  # type: ignore[arg-type]
        total += n_bytes
    header = len(file.header())
    return file, header + -header % 32 + total


def _kinds() -> list[Kind]:
    kinds = [Kind(name, CORRUPT, damage) for name, damage in (CONTAINER | MODEL | VOCABULARY).items()]
    kinds += [Kind(f"llama: {name}", CORRUPT, damage, arch="llama") for name, damage in LLAMA.items()]
    kinds += [Kind(f"phi2: {name}", CORRUPT, damage, arch="phi2") for name, damage in family.PHI2.items()]
    kinds += [
        Kind(f"phimoe: {name}", CORRUPT, damage, arch="phimoe") for name, damage in family.PHIMOE.items()
    ]
    kinds += [
        Kind(f"phimoe: {name}", UNSUPPORTED, damage, arch="phimoe")
        for name, damage in family.PHIMOE_OTHERS.items()
    ]
    others = OTHER_MODELS | family.CHANGES
    kinds += [Kind(name, UNSUPPORTED, damage) for name, damage in others.items()]
    for arch in ("phi2", "phimoe"):
        kinds += [
            Kind(f"{arch}: {name}", UNSUPPORTED, damage, arch, candle=True, generates=True)
            for name, damage in family.SOUND.items()
        ]
    kinds += [Kind(name, UNSUPPORTED, damage, candle=True, generates=True) for name, damage in CANDLE.items()]
    for expected, rows in (
        (CORRUPT, BROKEN_MERGES),
        (TOKENIZER, POOR_TOKENIZER),
        (UNSUPPORTED, OTHER_TOKENIZERS),
    ):
        kinds += [Kind(f"tokenizer: {name}", expected, damage) for name, damage in rows.items()]
    for name, source in TEMPLATES.items():
        damage: Damage = lambda g, source=source: g.set("tokenizer.chat_template", "str", source)  # noqa: E731
        kinds.append(Kind(f"template: {name}", TEMPLATE, damage, generates=True))
    file, length = _hole()
    # The native backend would leave it in the file, and answer some day.
    kinds.append(Kind("a tebibyte of weights", MEMORY, lambda g: file.header(), candle=True, length=length))
    kinds += [Kind(f"sound: {name}", LOADS, damage, generates=True) for name, damage in SOUND.items()]
    return kinds


#: Every kind; those that expect `LOADS` are sound.
KINDS = _kinds()
