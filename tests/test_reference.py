"""Greedy answers against the float64 reference of `reference`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gguf_files import write_tiny
from reference import Model

import phicandle
from phicandle import Generator

DEMO = Path(phicandle.__file__).with_name("demo.gguf")
PROMPT = "Write a haiku about ice hockey"
# Quantised weights bring 8-bit activations with them. Where the best logits are this near, either may win.
NEAR_FLOAT, NEAR_QUANTISED = 1e-4, 0.2


def check(path: Path, near: float, tokens: int) -> tuple[int, ...]:
    """Every token of a greedy answer is the reference's best one, or as good as that."""
    with Generator(path) as generator:
        prompt = generator.tokenizer.apply_chat_template([{"role": "user", "content": PROMPT}], tokenize=True)
        answer = generator.generate(
            prompt, temperature=0, repeat_penalty=1.0, max_tokens=tokens, ignore_eos=True
        )
    written = answer.token_ids
    rows = Model(path).logits([*prompt, *written])[len(prompt) - 1 : -1]
    assert len(rows) == len(written) == tokens
    lost = rows.max(-1) - rows[np.arange(tokens), list(written)]
    assert lost.max() <= near, f"token {int(lost.argmax())} is {lost.max():.3g} below the best one"
    agreed = int((lost == 0).sum())
    print(
        f"{path.name}: {agreed} of {tokens} tokens are the reference's, the worst is {lost.max():.3g} below"
    )
    assert agreed >= tokens * 0.9
    return written


@pytest.mark.parametrize("arch", ["phi3", "llama"])
@pytest.mark.parametrize("dtype", ["F32", "Q8_0"])
def test_tiny_models(tmp_path: Path, arch: str, dtype: str) -> None:
    path = tmp_path / f"{arch}-{dtype}.gguf"
    write_tiny(path, arch=arch, dtype=dtype)
    check(path, NEAR_FLOAT if dtype == "F32" else NEAR_QUANTISED, 48)


def test_one_model_as_phi3_and_as_llama(tmp_path: Path) -> None:
    said = []
    for arch in ("phi3", "llama"):
        path = tmp_path / f"{arch}.gguf"
        write_tiny(path, arch=arch)
        said.append(check(path, NEAR_FLOAT, 32))
    assert said[0] == said[1]


def test_the_demo() -> None:
    check(DEMO, NEAR_QUANTISED, 24)
