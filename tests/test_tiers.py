"""Every tier of instructions that this CPU has writes the same text. Each is tried in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from gguf_files import write_tiny
from test_smollm2 import fetch

import phicandle
from phicandle import cpu_info

DEMO = Path(phicandle.__file__).with_name("demo.gguf")
TUTORIAL = "<|user|>\nWrite a haiku about ice hockey<|end|>\n<|assistant|>"
CHILD = """
import json, sys
from phicandle import Generator, cpu_info
path, tokens, threads, *prompts = sys.argv[1:]
with Generator(path, backend="native", threads=int(threads), context_length=512, progress=False) as generator:
    answers = [
        list(generator.generate(prompt, temperature=0, repeat_penalty=penalty, max_tokens=int(tokens)).token_ids)
        for prompt in prompts
        for penalty in (1.0, 1.2)
    ]
    print(json.dumps([cpu_info().tier, generator.info.backend, answers]))
"""


def answers(path: Path, tier: str, tokens: int, threads: int, *prompts: str) -> list[list[int]]:
    """The ids that a child with this tier writes."""
    words = [sys.executable, "-c", CHILD, str(path), str(tokens), str(threads), *prompts]
    environment = {**os.environ, "PHICANDLE_ISA": tier}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, done.stderr
    used, backend, found = json.loads(done.stdout)
    assert (used, backend) == (tier, "native")
    return found


def check(path: Path, tokens: int, *prompts: str) -> None:
    tiers = cpu_info().tiers
    expected = answers(path, tiers[0], tokens, 1, *prompts)
    assert all(expected)
    for tier in tiers[1:]:
        assert answers(path, tier, tokens, 2, *prompts) == expected, tier
    words = sum(map(len, expected))
    print(f"{path.name}: {len(expected)} greedy answers, {words} tokens, the same on {', '.join(tiers)}")


def test_the_demo() -> None:
    check(DEMO, 100, TUTORIAL, "Hello there", "Write a haiku about rain")


@pytest.mark.parametrize("dtype", ["F16", "BF16", "Q8_0", "Q4_0", "Q5_1"])
def test_random_weights(dtype: str, tmp_path: Path) -> None:
    """Where logits lie close together, any difference between tiers would show."""
    path = tmp_path / f"{dtype}.gguf"
    write_tiny(path, dtype=dtype, context=512)
    check(path, 150, "ice", "hockey on ice")


@pytest.mark.parametrize("arch", ["phi2", "phimoe"])
def test_other_architectures(arch: str, tmp_path: Path) -> None:
    path = tmp_path / f"{arch}.gguf"
    write_tiny(path, arch=arch, dtype="Q8_0", context=512)
    check(path, 100, "ice", "hockey on ice")


@pytest.mark.model
@pytest.mark.slow
def test_smollm2() -> None:
    try:
        path = fetch()
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        pytest.skip(f"SKIPPED: SmolLM2 could not be fetched: {error}")
    check(path, 40, "What is the capital of France?")
