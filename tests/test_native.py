"""The native backend's logits against the float64 reference, for every type of weights and every shape of model."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from gguf_blocks import DTYPES, WEIGHTS
from gguf_files import tiny
from reference import EXACT, KERNEL, KERNEL_Q8, Model, Numerics, nmse

from phicandle import Generator, UnsupportedModelError

ROOT = Path(__file__).resolve().parent.parent
#: Float32 noise is some 1e-14. This is for rows that are not in doubt (see `reference`).
BOUND = 1e-9
#: Where one is, an activation may be rounded to the other side, and what follows from it all through the model.
DOUBTFUL = 1e-3
#: Where only keys and values are: a half-precision number has 11 bits, and one of them is one of many.
DOUBTFUL_HALVES = 1e-8
FLOATS = ("F32", "F16", "BF16")
IDS = 390
#: Tokens that models are loaded for: no more than the first training of the ones whose rotation is stretched.
CONTEXT = 160

Rows = npt.NDArray[np.float32]


class Logits:
    """`examples/logits.rs`, built."""

    def __init__(self) -> None:
        cargo = shutil.which("cargo")
        if cargo is None:
            pytest.skip("SKIPPED: there is no cargo to build examples/logits.rs with")
        build = [cargo, "build", "--quiet", "--locked", "--example", "logits"]
        subprocess.run(build, cwd=ROOT, check=True, timeout=1800)
        target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
        self.program = target / "debug" / "examples" / ("logits.exe" if os.name == "nt" else "logits")

    def __call__(self, path: Path, prompts: Sequence[Sequence[int]], *options: str, width: int) -> list[Rows]:
        """The rows of each prompt, one for each token."""
        ids = [",".join(map(str, prompt)) for prompt in prompts]
        words = [self.program, path, "backend=native", f"context={CONTEXT}", *options, *ids]
        done = subprocess.run(words, capture_output=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr.decode()
        rows = np.frombuffer(done.stdout, "<f4").reshape(-1, width)
        return np.split(rows, np.cumsum([len(prompt) for prompt in prompts])[:-1])


@pytest.fixture(scope="module")
def logits() -> Logits:
    return Logits()


def prompts(count: int, lengths: Sequence[int], seed: int = 3) -> list[list[int]]:
    numbers = random.Random(seed)
    return [[numbers.randrange(IDS) for _ in range(lengths[i % len(lengths)])] for i in range(count)]


@dataclass(frozen=True)
class Comparison:
    """NMSE of rows: against the reference that rounds as the kernels do, and against exact arithmetic."""

    #: Of each row.
    rows: npt.NDArray[np.float64]
    #: Of all of them together.
    every: float
    #: Of the ones that are not in doubt, and how many those are.
    clear: float
    n_clear: int
    #: Of all of them, from exact arithmetic.
    exact: float


def compare(
    logits: Logits, path: Path, numerics: Numerics, prompts: Sequence[Sequence[int]], *options: str
) -> Comparison:
    """Runs the prompts and says how far the logits are off."""
    model, exact = Model(path, numerics, context=CONTEXT), Model(path, EXACT, context=CONTEXT)
    found = np.concatenate(logits(path, prompts, *options, width=len(model.weights["token_embd.weight"])))
    traces = [model.run(list(prompt)) for prompt in prompts]
    expected = np.concatenate([trace.logits for trace in traces])
    clear = ~np.concatenate([trace.doubtful for trace in traces])
    compared = Comparison(
        np.array([nmse(*pair) for pair in zip(found, expected, strict=True)]),
        nmse(found, expected),
        nmse(found[clear], expected[clear]) if clear.any() else 0.0,
        int(clear.sum()),
        nmse(found, np.concatenate([exact.logits(list(prompt)) for prompt in prompts])),
    )
    print(
        f"{path.stem}: NMSE {compared.clear:.1e} in {compared.n_clear} clear rows, {compared.every:.1e} in all "
        f"{len(clear)}, median {np.median(compared.rows):.1e}; {compared.exact:.1e} from exact arithmetic"
    )
    return compared


#: Rows of whole super-blocks, few keys and values: each of them may be in doubt.
SUPER: dict[str, Any] = {"embd": 256, "ff": 512, "heads": 8, "kv_heads": 1, "head_dim": 32}
#: Rows of 3 and 5 blocks, where kernels take two at a time; a feed-forward layer whose rows are no multiple of 16 x 3.
SMALL: dict[str, Any] = {"embd": 96, "ff": 160, "heads": 3, "kv_heads": 1, "head_dim": 32}


def sizes(dtype: str) -> dict[str, Any]:
    return SUPER if dtype.endswith("_K") or dtype == "IQ4_XS" else SMALL


def check(compared: Comparison, share: float = 1 / 8) -> None:
    """What holds where things are rounded to 8 bits; `share` of the rows should be clear."""
    assert compared.n_clear >= len(compared.rows) * share
    assert compared.clear <= BOUND
    assert np.median(compared.rows) <= BOUND
    assert compared.every <= DOUBTFUL


@pytest.mark.parametrize("arch", ["phi3", "llama"])
@pytest.mark.parametrize("dtype", [dtype for dtype in WEIGHTS if dtype not in FLOATS])
def test_quantised_weights(logits: Logits, dtype: str, arch: str, tmp_path: Path) -> None:
    """Each type, with activations rounded as the kernel rounds them."""
    path = tmp_path / f"{arch}-{dtype}.gguf"
    tiny(arch, dtype=dtype, **sizes(dtype)).write(path)
    check(compare(logits, path, KERNEL, prompts(60, [1, 2, 3, 4, 6])))


SHAPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "grouped heads": {"heads": 8, "kv_heads": 2, "head_dim": 8},
    "one head of keys": {"heads": 4, "kv_heads": 1},
    "as many heads of keys": {"heads": 4, "kv_heads": 4},
    "odd sizes": {"embd": 72, "ff": 104, "heads": 3, "kv_heads": 1, "head_dim": 24},
    "heads of 8": {"embd": 40, "ff": 56, "heads": 5, "kv_heads": 5, "head_dim": 8},
    "heads of 96": {"heads": 2, "kv_heads": 2, "head_dim": 96},
    "heads of 128": {"heads": 4, "kv_heads": 2, "head_dim": 128},
    "heads of 10": {"heads": 3, "kv_heads": 1, "head_dim": 10},
    "part of a head turns": {"rope_dim": 8},
    "most of a head turns": {"head_dim": 96, "rope_dim": 72},
    "another base": {"rope_base": 250_000.0},
    "linear": {"scaling": "linear"},
    "yarn": {"scaling": "yarn"},
    "longrope": {"scaling": "longrope", "context": 1024},
    "longrope of part of a head": {"scaling": "longrope", "context": 1024, "head_dim": 32, "rope_dim": 24},
    "llama3": {"scaling": "llama3"},
    "window of 70": {"window": 70},
    "window of 64": {"window": 64},
    "window of 3": {"window": 3},
    "tied": {"tied": True},
    "biases": {"biases": True},
    "another epsilon": {"eps": 1e-3},
    "F16": {"dtype": "F16"},
    "BF16": {"dtype": "BF16", "embd": 72, "ff": 104, "heads": 3, "kv_heads": 1, "head_dim": 24},
    "five layers": {"layers": 5},
}


@pytest.mark.parametrize("arch", ["phi3", "llama"])
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes(logits: Logits, shape: str, arch: str, tmp_path: Path) -> None:
    """Each shape in plain floats, over blocks of keys and values; nothing but halves of those can be in doubt."""
    path = tmp_path / f"{arch} {shape}.gguf"
    tiny(arch, **SHAPES[shape]).write(path)
    compared = compare(logits, path, KERNEL, prompts(2, [150, 67]))
    assert compared.clear <= BOUND
    assert np.median(compared.rows) <= BOUND
    assert compared.every <= DOUBTFUL_HALVES


MIXES: dict[str, dict[str, Any]] = {
    "Q4_K_M": {"dtype": "Q4_K", "mix": {"attn_qkv": "Q5_K", "ffn_down": "Q6_K", "output": "Q6_K"}},
    "Q4_K_M tied": {"dtype": "Q4_K", "mix": {"token_embd": "Q6_K"}, "tied": True},
    "all sorts": {
        "dtype": "Q4_0",
        "mix": {
            "attn_qkv": "IQ4_XS",
            "attn_output": "Q8_0",
            "ffn_up": "BF16",
            "ffn_down": "Q2_K",
            "output": "F16",
        },
    },
}


@pytest.mark.parametrize("mix", MIXES)
def test_mixed_types(logits: Logits, mix: str, tmp_path: Path) -> None:
    path = tmp_path / f"{mix}.gguf"
    tiny(**SUPER, **MIXES[mix]).write(path)
    check(compare(logits, path, KERNEL, prompts(60, [1, 2, 3, 4, 6])))


@pytest.mark.parametrize("arch", ["phi3", "llama"])
@pytest.mark.parametrize("head_dim", [8, 10, 16, 24, 40])
def test_keys_and_values_in_8_bits(logits: Logits, head_dim: int, arch: str, tmp_path: Path) -> None:
    """Queries, keys and values are rounded as activations are, a scale for each head; the same bound holds for it.

    From exact arithmetic the logits are as far as 8-bit activations bring them, and no farther.
    """
    path = tmp_path / f"{arch} q8 {head_dim}.gguf"
    tiny(arch, embd=48, ff=64, heads=2, kv_heads=1, head_dim=head_dim, rope_dim=head_dim).write(path)
    compared = compare(logits, path, KERNEL_Q8, prompts(60, [1, 2, 3, 4, 6, 70]), "kv=q8")
    check(compared, 1 / 2)
    assert compared.exact <= DOUBTFUL


@pytest.mark.parametrize("quant", ["Q8_1", "Q8_K"])
def test_types_of_activations_are_no_weights(quant: str, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    file = tiny(embd=256, ff=256, heads=4, head_dim=64)
    number, elements, size = DTYPES[quant]
    tensor = file.tensor("blk.1.ffn_down.weight")
    tensor.dtype, tensor.data = number, bytes(256 * 256 // elements * size)
    file.write(path)
    for call in (Generator, Generator.estimate):
        with pytest.raises(UnsupportedModelError, match=quant) as caught:
            call(path, backend="native")
        assert caught.value.quant == quant
