"""Weights that are no numbers: a typed error, when the file is loaded or at the first answer, and never a text."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from gguf_blocks import DTYPES, WEIGHTS
from gguf_files import Gguf, tiny

from phicandle import CorruptModelError, Generator, NumericalError

#: Where a block has its half-precision scales; the rest have one at the beginning, or are plain numbers.
SCALES = {
    "Q4_1": (0, 2), "Q5_1": (0, 2), "Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,),
}  # fmt: skip
#: Their bits as f32: what a half or a bfloat16 has are the upper ones.
VALUES = {"NaN": 0x7FC0_0000, "infinity": 0x7F80_0000, "minus infinity": 0xFF80_0000}
PROMPT = [1, 262, 300]


def poison(file: Gguf, name: str, dtype: str, at: int, bits: int, row: int = 0) -> None:
    """Sets the scale `at` the given byte of a row's first block, or a row's first number."""
    tensor = file.tensor(name)
    _, elements, size = DTYPES[dtype]
    half = bits >> 16 & 0x8000 | 0x7C00 | (0x200 if bits == VALUES["NaN"] else 0)
    if dtype == "F32":
        value = struct.pack("<I", bits)
    elif dtype == "BF16":
        value = struct.pack("<H", bits >> 16)
    else:
        value = struct.pack("<H", half)
    start = row * (tensor.shape[0] // elements * size) + at
    tensor.data = tensor.data[:start] + value + tensor.data[start + len(value) :]


def refuses(path: Path, memory: str) -> bool:
    """Whether loading and answering ends in the right error."""
    try:
        with Generator(path, backend="native", memory=memory) as generator:
            generator.generate(PROMPT, max_tokens=2, temperature=0)
    except (CorruptModelError, NumericalError):
        return True
    return False


@pytest.mark.parametrize("dtype", WEIGHTS)
def test_matrices(dtype: str, tmp_path: Path) -> None:
    """One scale, or one number, of one row of any matrix. The embedding's row is one that the prompt uses."""
    sound = tiny(dtype=dtype, embd=256, ff=256, heads=8, kv_heads=1, head_dim=32)
    path = tmp_path / "model.gguf"
    sound.write(path)
    for memory in ("repack", "mmap"):
        assert not refuses(path, memory)
    silent = []
    # Of q, k and v; of gate and up.
    rows = {"attn_qkv": (3, 259, 291), "attn_output": (3,), "ffn_up": (3, 259), "ffn_down": (3,)}
    places = [("token_embd.weight", 262), ("output.weight", 394)]
    places += [(f"blk.1.{name}.weight", row) for name in rows for row in rows[name]]
    for name, row in places:
        data = sound.tensor(name).data
        for at in SCALES.get(dtype, (0,)):
            for value, bits in VALUES.items():
                poison(sound, name, dtype, at, bits, row)
                sound.write(path)
                sound.tensor(name).data = data
                silent += [
                    (name, row, at, value, mode) for mode in ("repack", "mmap") if not refuses(path, mode)
                ]
    assert not silent


@pytest.mark.parametrize("dtype", ["F32", "Q8_0"])
@pytest.mark.parametrize("arch", ["phi2", "phimoe"])
def test_other_architectures(arch: str, dtype: str, tmp_path: Path) -> None:
    """Biases, routers, and experts: where weights are copied, also of an expert that the prompt does not meet."""
    sound = tiny(arch, dtype=dtype)
    path = tmp_path / "model.gguf"
    sound.write(path)
    for memory in ("repack", "mmap"):
        assert not refuses(path, memory)
    silent = []
    for tensor in sound.tensors:
        name, data = tensor.name.decode(), tensor.data
        kind = dtype if tensor.dtype == DTYPES[dtype][0] else "F32"
        experts = tensor.shape[2] if len(tensor.shape) == 3 else 1
        for expert in range(experts):
            row = expert * tensor.shape[1] + 3 if experts > 1 else 262 * (name == "token_embd.weight")
            poison(sound, name, kind, 0, VALUES["NaN"], row)
            sound.write(path)
            tensor.data = data
            modes = ("repack",) if experts > 1 else ("repack", "mmap")
            silent += [(name, expert, mode) for mode in modes if not refuses(path, mode)]
    assert not silent


@pytest.mark.parametrize("name", ["blk.0.attn_norm", "blk.1.ffn_norm", "output_norm"])
@pytest.mark.parametrize("value", VALUES)
def test_norms(name: str, value: str, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    file = tiny()
    poison(file, f"{name}.weight", "F32", 0, VALUES[value])
    file.write(path)
    assert refuses(path, "repack")
    assert refuses(path, "mmap")
