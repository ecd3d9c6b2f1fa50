"""Every model of the family, small and random in its published proportions, against the float64 reference."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf_files import Gguf, tiny, vocabulary
from reference import KERNEL, Model, nmse
from test_native import BOUND, DOUBTFUL_HALVES, Logits, check, compare, prompts

from phicandle import Generator

#: Heads, groups, rotated parts, bases and stretches are the models' own; widths, layers and most vocabularies are not.
MODELS: dict[str, dict[str, Any]] = {
    "Phi-1.5": {"arch": "phi2", "heads": 8, "kv_heads": 8, "head_dim": 16, "embd": 128, "rope_dim": 8, "ff": 512},
    "Phi-2": {"arch": "phi2", "heads": 4, "kv_heads": 4, "head_dim": 20, "embd": 80, "rope_dim": 8, "ff": 320},
    "Phi-2, q, k and v in one": {"arch": "phi2", "fused": True, "kv_heads": 4, "rope_dim": 6},
    "Phi-3-mini-4k": {"heads": 8, "kv_heads": 8, "head_dim": 12, "embd": 96, "ff": 256, "window": 127},
    "Phi-3-medium-4k": {"heads": 40, "kv_heads": 10, "head_dim": 8, "embd": 320, "ff": 1120, "window": 127},
    "Phi-3.5-mini": {"heads": 8, "kv_heads": 8, "head_dim": 12, "embd": 96, "scaling": "longrope", "context": 2**17},
    "Phi-3.5-MoE": {
        "arch": "phimoe", "heads": 8, "kv_heads": 2, "experts": 16, "ff": 104, "scaling": "longrope", "context": 2**17,
    },
    "Phi-tiny-MoE": {"arch": "phimoe", "heads": 4, "kv_heads": 1, "head_dim": 32, "experts": 16, "ff": 16},
    "Phi-4": {"heads": 40, "kv_heads": 10, "head_dim": 8, "embd": 320, "rope_base": 250_000.0, "context": 16_384},
    "Phi-4-mini": {
        "heads": 24, "kv_heads": 8, "head_dim": 8, "embd": 192, "rope_dim": 6, "tied": True, "scaling": "longrope",
        "context": 2**17, "vocab": 200_064, "dtype": "F16",
    },
    "Phi-4, llamafied": {"arch": "llama", "heads": 40, "kv_heads": 10, "head_dim": 8, "embd": 320, "ff": 1120},
}  # fmt: skip


@pytest.fixture(scope="module")
def logits() -> Logits:
    return Logits()


@pytest.mark.parametrize("name", MODELS)
def test_plain_floats(logits: Logits, name: str, tmp_path: Path) -> None:
    """Over blocks of keys and values; nothing but halves of those can be in doubt, and where experts share a token."""
    path = tmp_path / f"{name}.gguf"
    tiny(**MODELS[name]).write(path)
    lengths = [20, 3] if "vocab" in MODELS[name] else [150, 67]
    compared = compare(logits, path, KERNEL, prompts(2, lengths))
    assert compared.clear <= BOUND
    assert np.median(compared.rows) <= BOUND
    assert compared.every <= DOUBTFUL_HALVES


#: Rows of whole super-blocks; rows of 3 and 5 blocks.
SUPER: dict[str, Any] = {"embd": 256, "ff": 256, "heads": 8, "kv_heads": 1, "head_dim": 32}
SMALL: dict[str, Any] = {"embd": 96, "ff": 160, "heads": 3, "kv_heads": 1, "head_dim": 32}
MIXES: dict[str, dict[str, Any]] = {
    "Q8_0": {**SMALL, "dtype": "Q8_0"},
    "Q4_0": {**SMALL, "dtype": "Q4_0"},
    "Q5_1": {**SMALL, "dtype": "Q5_1"},
    "BF16": {**SMALL, "dtype": "BF16"},
    "Q4_K_M": {
        **SUPER,
        "dtype": "Q4_K",
        "mix": {"attn_qkv": "Q5_K", "ffn_down": "Q6_K", "ffn_down_exps": "Q6_K", "output": "Q6_K"},
    },
    "IQ4_XS": {**SUPER, "dtype": "IQ4_XS"},
    "a quantised router": {**SMALL, "dtype": "Q8_0", "mix": {"ffn_gate_inp": "Q8_0"}},
}


@pytest.mark.parametrize("arch", ["phi2", "phimoe"])
@pytest.mark.parametrize("mix", MIXES)
def test_quantised(logits: Logits, mix: str, arch: str, tmp_path: Path) -> None:
    """With activations rounded as the kernels round them: behind LayerNorm, behind GELU, and before each expert."""
    path = tmp_path / f"{arch} {mix}.gguf"
    tiny(arch, **MIXES[mix]).write(path)
    check(compare(logits, path, KERNEL, prompts(60, [1, 2, 3, 4, 6])))


def test_show_names_the_experts(tmp_path: Path) -> None:
    path = tmp_path / "moe.gguf"
    tiny("phimoe", experts=16).write(path)
    command = [sys.executable, "-m", "phicandle", "show", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "feed-forward 128 in each of 16 experts, 2 used" in " ".join(done.stdout.split())


@pytest.mark.parametrize("arch", ["phi3", "llama"])
def test_norms_may_have_a_bias(logits: Logits, arch: str, tmp_path: Path) -> None:
    path = tmp_path / f"{arch} biases.gguf"
    numbers = np.random.default_rng(5)

    def write(file: Gguf) -> None:
        for name in ("blk.0.attn_norm", "blk.1.ffn_norm", "output_norm"):
            file.add(f"{name}.bias", [64], data=numbers.normal(0, 0.2, 64).astype("<f4").tobytes())
        file.write(path)

    write(tiny(arch))
    compared = compare(logits, path, KERNEL, prompts(2, [150, 67]))
    assert compared.clear <= BOUND
    assert np.median(compared.rows) <= BOUND
    assert nmse(Model(path).logits([1, 262, 300]), Model(_plain(arch, tmp_path)).logits([1, 262, 300])) > 1e-4


def _plain(arch: str, folder: Path) -> Path:
    path = folder / f"{arch} plain.gguf"
    tiny(arch).write(path)
    return path


SAME: dict[str, dict[str, Any]] = {
    "plain": {},
    "grouped heads": {"heads": 8, "kv_heads": 2, "head_dim": 8},
    "part of a head turns": {"rope_dim": 8},
    "Q8_0": {"dtype": "Q8_0"},
    "biases and a window": {"biases": True, "window": 20},
    "yarn": {"scaling": "yarn"},
}


@pytest.mark.parametrize("shape", SAME)
def test_a_llama_file_and_a_fused_phi3_file_have_the_same_bits(
    logits: Logits, shape: str, tmp_path: Path
) -> None:
    """The same weights: every logit, though rows of q and k lie in another order; so every token too."""
    rows, said = [], []
    for arch in ("phi3", "llama"):
        path = tmp_path / f"{arch}.gguf"
        tiny(arch, **SAME[shape]).write(path)
        rows.append(np.concatenate(logits(path, prompts(2, [150, 67]), width=len(vocabulary()[0]))))
        with Generator(path, backend="native") as generator:
            answers = [
                generator.generate(
                    "ice hockey", temperature=temperature, seed=7, max_tokens=60, ignore_eos=True
                )
                for temperature in (0.0, 1.0)
            ]
        said.append([(answer.token_ids, answer.text) for answer in answers])
    assert np.array_equal(rows[0].view(np.uint32), rows[1].view(np.uint32))
    assert said[0] == said[1]
    assert all(len(ids) == 60 for ids, _ in said[0])
