"""The tokenizer's Python door. That the ids are right is tested in Rust, against published lists."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from gguf_files import CONTROL_TOKENS

from phicandle import Generator, InvalidParameterError, PhicandleError, Tokenizer

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
TEXTS = [
    "ice hockey",
    "",
    " two  spaces ",
    "naïve café",
    "日本語",
    "👩‍👩‍👧‍👦",
    "tab\tnew\nline",
    "<|end|>",
    "\x00\x7f",
]


@pytest.fixture(scope="module")
def tokenizer(tiny_file: Path) -> Tokenizer:
    return Tokenizer.from_file(tiny_file)


@pytest.mark.parametrize("text", TEXTS)
def test_text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert ids[0] == tokenizer.bos_id
    assert tokenizer.encode(text, bos=False) == ids[1:]
    assert tokenizer.decode(ids) == text
    assert all(0 <= token < tokenizer.vocab_size for token in ids)
    assert not set(ids[1:]) & set(tokenizer.special.values())


def test_special_tokens(tokenizer: Tokenizer) -> None:
    assert set(CONTROL_TOKENS) <= set(tokenizer.special)
    assert {tokenizer.special["<|end|>"], tokenizer.special["<|endoftext|>"]} <= tokenizer.eos_ids
    end = [tokenizer.special["<|end|>"]]
    assert tokenizer.decode(end) == ""
    assert tokenizer.decode(end, skip_special=False) == "<|end|>"


def test_bytes_that_are_not_text(tokenizer: Tokenizer) -> None:
    lone = 3 + 0xE6  # The token of the first byte of a three-byte character.
    assert tokenizer.decode([lone]) == "\ufffd"


def test_chat_template(tokenizer: Tokenizer) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    text = "<|system|>\nBe brief.<|end|>\n<|user|>\nHi<|end|>\n"
    assert tokenizer.apply_chat_template(messages) == text + "<|assistant|>\n"
    assert tokenizer.apply_chat_template(messages, add_generation_prompt=False) == text
    ids = tokenizer.apply_chat_template(messages, tokenize=True)
    assert tokenizer.decode(ids, skip_special=False).count("<|end|>") == 2


def test_a_generators_tokenizer_is_the_files(tokenizer: Tokenizer, tiny: Generator) -> None:
    assert tiny.tokenizer.encode("ice hockey") == tokenizer.encode("ice hockey")
    assert tiny.tokenizer.special == tokenizer.special
    assert tiny.tokenizer.eos_ids == tokenizer.eos_ids


def test_pickling(tokenizer: Tokenizer, tiny: Generator) -> None:
    assert pickle.loads(pickle.dumps(tokenizer)).encode("ice") == tokenizer.encode("ice")
    with pytest.raises(TypeError, match="from_file"):
        pickle.dumps(tiny.tokenizer)


WRONG: list[tuple[str, tuple[Any, ...]]] = [
    ("encode", ("\ud800",)),
    ("encode", (b"x",)),
    ("encode", (None,)),
    ("encode", ("x", 1)),
    ("decode", ("x",)),
    ("decode", (5,)),
    ("decode", ([-1],)),
    ("decode", ([1.0],)),
    ("decode", ([True],)),
    ("decode", ([2**40],)),
    ("decode", ([1], "no")),
    ("apply_chat_template", ("x",)),
    ("apply_chat_template", ([],)),
    ("apply_chat_template", ([5],)),
    ("apply_chat_template", ([{"role": "user"}],)),
    ("apply_chat_template", ([{"role": "user", "content": "x"}], 1)),
]


@pytest.mark.parametrize(("method", "arguments"), WRONG, ids=lambda item: repr(item)[:40])
def test_wrong_arguments(tokenizer: Tokenizer, method: str, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(InvalidParameterError) as caught:
        getattr(tokenizer, method)(*arguments)
    assert caught.value.hint


def test_an_id_past_the_vocabulary(tokenizer: Tokenizer) -> None:
    with pytest.raises(PhicandleError):
        tokenizer.decode([tokenizer.vocab_size])


@pytest.mark.parametrize("path", [5, None, b"x", "a\0b"])
def test_paths_that_are_none(path: Any) -> None:
    with pytest.raises(InvalidParameterError):
        Tokenizer.from_file(path)


@pytest.mark.parametrize(
    ("vocabulary", "expected"),
    [("phi-3-vocab.gguf", "phi-3-tokens.json"), ("gpt-2-vocab.gguf", "gpt-2-tokens.json")],
)
def test_published_ids(vocabulary: str, expected: str) -> None:
    if not DATA.is_dir():
        pytest.skip("SKIPPED: the folder with the published vocabularies is not there")
    tokenizer = Tokenizer.from_file(DATA / vocabulary)
    cases = json.loads((DATA / expected).read_text(encoding="utf-8"))
    assert cases
    for case in cases:
        assert tokenizer.encode(case["text"], bos=False) == case["ids"], case["text"]
