"""Whole files with the vocabularies of the family: their ids, their turns, and that every end of a turn stops."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gguf_files import tiny
from gguf_files import vocabulary as phi_3_vocabulary
from hypothesis import given, settings
from hypothesis import strategies as st
from vocabularies import ALL, PHI_2, PHI_4, PHI_4_MINI, Vocabulary

from phicandle import (
    Generator,
    InvalidParameterError,
    TemplateError,
    Tokenizer,
    TokenizerError,
    UnsupportedModelError,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vocabularies")
    for vocabulary in ALL:
        vocabulary.file().write(folder / f"{vocabulary.name}.gguf")
    return folder


@pytest.fixture(scope="module")
def tokenizers(folder: Path) -> dict[str, Tokenizer]:
    return {vocabulary.name: Tokenizer.from_file(folder / f"{vocabulary.name}.gguf") for vocabulary in ALL}


# Characters of every general category; contractions, spaces and the words of the merges more often than chance gives.
TEXTS = st.lists(
    st.one_of(
        st.text(max_size=6),
        st.sampled_from(
            ["'s", "'T", "'rE", "'LL", "\u2019s", "'x", "don't", "HTTPServer", " the", "hockey", "日本語"]
        ),
        st.text(alphabet=" \t\n\r\u00a0\u2003\x00\ufeff", min_size=1, max_size=4),
        st.text(alphabet="0123456789½Ⅻ٣", min_size=1, max_size=5),
        st.text(alphabet="aAéÉǅʰªא語\u0301\u0e34", min_size=1, max_size=6),
        st.text(alphabet="!?/_-<|>$€👩‍👧\ufe0f", min_size=1, max_size=4),
        st.tuples(st.characters(exclude_categories=["Cs"]), st.integers(2, 70)).map(
            lambda run: run[0] * run[1]
        ),
    ),
    max_size=8,
).map("".join)


@settings(max_examples=400, deadline=None)
@given(text=TEXTS)
def test_ids_are_those_of_the_published_pattern_and_merges(
    tokenizers: dict[str, Tokenizer], text: str
) -> None:
    for vocabulary in (PHI_4, PHI_4_MINI):
        ids = tokenizers[vocabulary.name].encode(text, bos=False)
        assert ids == vocabulary.encode(text), vocabulary.name
    for tokenizer in tokenizers.values():
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_phi_2_has_tokens_for_runs_of_spaces(tokenizers: dict[str, Tokenizer]) -> None:
    tokenizer = tokenizers["Phi-2"]
    tokens = PHI_2.tokens
    runs = [tokens.index(text) for text in ("    ", "  ")]
    assert tokenizer.encode("      the", bos=False) == runs + PHI_2.encode("the")
    assert tokenizer.encode("\t\tif", bos=False) == [tokens.index("\t\t"), *PHI_2.encode("if")]
    assert tokenizer.decode(runs) == "      "
    assert set(tokenizer.special) == {"<|endoftext|>"}


@pytest.mark.parametrize(
    "text", ["A" * 200_000, " " * 200_000, "語" * 70_000, "\n" * 200_000, "a b" * 70_000]
)
def test_long_runs_come_back(tokenizers: dict[str, Tokenizer], text: str) -> None:
    for tokenizer in tokenizers.values():
        assert tokenizer.decode(tokenizer.encode(text)) == text


def endings() -> Iterator[Any]:
    """Files that name the right token, a letter or none as end of text, with right and wrong types."""
    for vocabulary in ALL:
        for eos, kind in (("<|endoftext|>", 3), ("a", 4), (None, 1)):
            for closer in vocabulary.closers:
                yield pytest.param(
                    vocabulary, eos, kind, closer, id=f"{vocabulary.name}-{eos}-{kind}-{closer}"
                )


@pytest.mark.parametrize(("vocabulary", "eos", "kind", "closer"), list(endings()))
def test_every_end_of_a_turn_stops_and_is_never_seen(
    tmp_path: Path, vocabulary: Vocabulary, eos: str | None, kind: int, closer: str
) -> None:
    path = tmp_path / "model.gguf"
    vocabulary.file(eos=eos, control_type=kind, arch="phi2" if vocabulary is PHI_2 else "phi3").write(path)
    end = vocabulary.tokens.index(closer)
    with Generator(path) as generator:
        assert end in generator.tokenizer.eos_ids
        stopped = generator.generate("the ice", max_tokens=8, logit_bias={end: 100.0}, temperature=0)
        assert (stopped.text, stopped.finish_reason, list(stopped.token_ids)) == ("", "stop", [end])
        ignored = generator.generate(
            "the ice",
            max_tokens=3,
            logit_bias={end: 100.0},
            temperature=0,
            ignore_eos=True,
            repeat_penalty=1.0,
        )
        assert (ignored.text, ignored.finish_reason, list(ignored.token_ids)) == ("", "length", [end] * 3)


@pytest.mark.parametrize("closer", ["<|end|>", "<|endoftext|>", "<|assistant|>", "</s>"])
@pytest.mark.parametrize("eos", ["<|endoftext|>", "▁the"])
def test_phi_3_stops_at_all_that_its_generation_config_lists(tmp_path: Path, closer: str, eos: str) -> None:
    path = tmp_path / "model.gguf"
    file = tiny()
    tokens = phi_3_vocabulary()[0]
    file.set("tokenizer.ggml.eos_token_id", "u32", tokens.index(eos)).write(path)
    end = tokens.index(closer)
    with Generator(path) as generator:
        stopped = generator.generate("the ice", max_tokens=8, logit_bias={end: 100.0}, temperature=0)
        assert (stopped.text, stopped.finish_reason) == ("", "stop")


@pytest.mark.parametrize(
    ("vocabulary", "expected"),
    [
        (PHI_2, "S\nInstruct: Hi\nOutput:"),
        (
            PHI_4,
            "<|im_start|>system<|im_sep|>S<|im_end|><|im_start|>user<|im_sep|>Hi<|im_end|>"
            "<|im_start|>assistant<|im_sep|>",
        ),
        (PHI_4_MINI, "<|system|>S<|end|><|user|>Hi<|end|><|assistant|>"),
    ],
    ids=lambda value: value.name if isinstance(value, Vocabulary) else "",
)
def test_a_file_without_a_template_gets_its_familys(
    folder: Path, tokenizers: dict[str, Tokenizer], vocabulary: Vocabulary, expected: str
) -> None:
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "Hi"}]
    tokenizer = tokenizers[vocabulary.name]
    assert tokenizer.apply_chat_template(messages) == expected
    control = set(tokenizer.special.values())
    marks = [token for token in tokenizer.apply_chat_template(messages, tokenize=True) if token in control]
    assert [tokenizer.token(token) for token in marks] == re.findall(r"<\|[^|]*\|>", expected)
    with Generator(folder / f"{vocabulary.name}.gguf") as generator:
        assert not generator.info.has_chat_template
        assert generator.generate("Hi", max_tokens=2, ignore_eos=True).usage.prompt_tokens == len(
            tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=True)
        )


def test_tools_reach_the_template(tokenizers: dict[str, Tokenizer]) -> None:
    tokenizer = tokenizers["Phi-4-mini"]
    function = {
        "name": "get_weather",
        "description": "of a <|end|> city",
        "parameters": {"city": {"type": "str"}},
    }
    messages = [{"role": "user", "content": "Paris?"}]
    text = tokenizer.apply_chat_template(messages, tools=[{"type": "function", "function": function}])
    assert text == (
        '<|system|><|tool|>[{"name": "get_weather", "description": "of a <|end|> city", "parameters": '
        '{"city": {"type": "str"}}}]<|/tool|><|end|><|user|>Paris?<|end|><|assistant|>'
    )
    ids = tokenizer.apply_chat_template(messages, tokenize=True, tools=[function])
    assert ids.count(tokenizer.special["<|end|>"]) == 2
    assert tokenizer.apply_chat_template(messages, tools=[]) == tokenizer.apply_chat_template(messages)
    with pytest.raises(TemplateError, match="tools"):
        tokenizers["Phi-4"].apply_chat_template(messages, tools=[function])
    for wrong in ("x", 5, [5], [{"a": float("nan")}], [{"a": object()}]):
        with pytest.raises(InvalidParameterError):
            tokenizer.apply_chat_template(messages, tools=wrong)  # type: ignore[arg-type]


def test_special_tokens_are_visible(tokenizers: dict[str, Tokenizer], tiny_file: Path) -> None:
    for vocabulary in ALL:
        tokenizer = tokenizers[vocabulary.name]
        control = {token for token in vocabulary.control if not token.isspace()}
        assert {text: tokenizer.token(token) for text, token in tokenizer.special.items()} == {
            text: text for text in control
        }
        assert tokenizer.eos_ids == {tokenizer.special[text] for text in vocabulary.closers}
        assert tokenizer.eos_id == tokenizer.bos_id == tokenizer.special["<|endoftext|>"]
        assert (tokenizer.unk_id, tokenizer.pad_id) == (None, None)
    assert tokenizers["Phi-4"].eot_id == tokenizers["Phi-4"].special["<|im_end|>"]
    assert tokenizers["Phi-4-mini"].eot_id == tokenizers["Phi-4-mini"].special["<|end|>"]
    assert tokenizers["Phi-2"].eot_id is None
    phi_3 = Tokenizer.from_file(tiny_file)
    assert (phi_3.bos_id, phi_3.unk_id, phi_3.eot_id) == (1, 0, phi_3.special["<|end|>"])
    assert phi_3.pad_id == phi_3.eos_id == phi_3.special["<|endoftext|>"]
    with pytest.raises(TokenizerError):
        phi_3.token(phi_3.vocab_size)
    with pytest.raises(InvalidParameterError):
        phi_3.token(-1)


def test_an_unknown_pre_tokenizer_is_an_error_that_lists_the_known(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    PHI_4.file().set("tokenizer.ggml.pre", "str", "klingon").write(path)
    with pytest.raises(UnsupportedModelError, match=r"`klingon`; known are default, gpt-2, .*dbrx.*gpt-4o"):
        Tokenizer.from_file(path)
