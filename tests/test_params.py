"""Sampling parameters and keyword arguments: defaults, aliases, ranges, mistakes."""

from __future__ import annotations

import copy
import math
import pickle
from pathlib import Path
from typing import Any

import pytest
from conftest import PROMPT

from phicandle import Generator, InvalidParameterError, SamplingParams
from phicandle.types import KvDtype

TUTORIAL = {
    "max_tokens": 100,
    "temperature": 1.0,
    "top_k": None,
    "top_p": None,
    "min_p": None,
    "typical_p": None,
    "repeat_penalty": 1.2,
    "repeat_last_n": 64,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "logit_bias": None,
    "seed": None,
    "stop": (),
    "stop_token_ids": (),
    "include_stop": False,
    "ignore_eos": False,
    "min_tokens": 0,
    "n": 1,
    "logprobs": None,
    "prompt_logprobs": None,
    "schema": None,
    "regex": None,
    "choices": None,
    "grammar": None,
    "tools": (),
    "tool_choice": "auto",
    "timeout": None,
    "priority": 0,
    "template": None,
    "overflow": "error",
}

ALIASES: list[tuple[dict[str, Any], str, Any]] = [
    ({"max_new_tokens": 7}, "max_tokens", 7),
    ({"max_completion_tokens": 7}, "max_tokens", 7),
    ({"sample_len": 7}, "max_tokens", 7),
    ({"num_predict": 7}, "max_tokens", 7),
    ({"temp": 0.5}, "temperature", 0.5),
    ({"repetition_penalty": 1.5}, "repeat_penalty", 1.5),
    ({"penalty_window": 5}, "repeat_last_n", 5),
    ({"stop_strings": ["a", "b"]}, "stop", ("a", "b")),
    ({"stop_sequences": "a"}, "stop", ("a",)),
    ({"typical": 0.9}, "typical_p", 0.9),
    ({"rng_seed": 3}, "seed", 3),
    ({"random_seed": 3}, "seed", 3),
    ({"response_format": {"type": "text"}}, "schema", None),
]

WRONG: list[tuple[str, Any]] = [
    ("max_tokens", 0),
    ("max_tokens", -1),
    ("max_tokens", 1.5),
    ("max_tokens", "5"),
    ("max_tokens", True),
    ("max_tokens", 2**70),
    ("temperature", -0.1),
    ("temperature", math.nan),
    ("temperature", math.inf),
    ("temperature", "hot"),
    ("temperature", None),
    ("temperature", False),
    ("temperature", 1e9),
    ("top_k", 0),
    ("top_k", -3),
    ("top_k", 2.0),
    ("top_p", 0.0),
    ("top_p", 1.1),
    ("top_p", math.nan),
    ("top_p", "x"),
    ("min_p", -0.1),
    ("min_p", 1.1),
    ("typical_p", 0),
    ("typical_p", 2),
    ("repeat_penalty", 0.0),
    ("repeat_penalty", -1),
    ("repeat_penalty", math.inf),
    ("repeat_penalty", None),
    ("repeat_last_n", -1),
    ("repeat_last_n", 1.0),
    ("presence_penalty", 2.5),
    ("presence_penalty", math.nan),
    ("frequency_penalty", -3),
    ("frequency_penalty", []),
    ("logit_bias", {1: 1000}),
    ("logit_bias", {-1: 1}),
    ("logit_bias", {1: "x"}),
    ("logit_bias", {"a": 1}),
    ("logit_bias", [1]),
    ("logit_bias", {2**33: 1.0}),
    ("logit_bias", {1: math.nan}),
    ("seed", -1),
    ("seed", 2**64),
    ("seed", 1.0),
    ("seed", "1"),
    ("stop", ""),
    ("stop", [""]),
    ("stop", [1]),
    ("stop", 5),
    ("stop", b"x"),
    ("stop", "\ud800"),
    ("stop", ["x" * 5000]),
    ("stop", ["x"] * 300),
    ("stop_token_ids", [-1]),
    ("stop_token_ids", ["a"]),
    ("stop_token_ids", 5),
    ("stop_token_ids", [2**32]),
    ("include_stop", 1),
    ("ignore_eos", "yes"),
    ("min_tokens", -1),
    ("min_tokens", 101),
    ("min_tokens", None),
    ("timeout", 0),
    ("priority", 1001),
    ("priority", 0.5),
    ("timeout", -1),
    ("logprobs", True),
    ("logprobs", 21),
    ("logprobs", -1),
    ("logprobs", 1.0),
    ("prompt_logprobs", "1"),
    ("prompt_logprobs", 2**70),
    ("timeout", math.nan),
    ("timeout", math.inf),
    ("timeout", "1s"),
    ("template", "x"),
    ("template", 1),
]

NOT_YET: list[tuple[str, Any]] = [
    ("schema", {"type": "object"}),
    ("regex", "a+"),
    ("choices", ["a"]),
    ("grammar", "root ::= x"),
    ("tools", [{}]),
    ("tool_choice", "required"),
    ("response_format", {"type": "json_object"}),
]


def test_the_defaults_are_the_tutorials() -> None:
    assert SamplingParams().as_dict() == TUTORIAL


@pytest.mark.parametrize(("given", "name", "value"), ALIASES, ids=lambda item: str(item))
def test_aliases(given: dict[str, Any], name: str, value: Any) -> None:
    assert getattr(SamplingParams(**given), name) == value
    assert getattr(SamplingParams().replace(**given), name) == value


@pytest.mark.parametrize(("name", "value"), WRONG, ids=lambda item: repr(item)[:30])
def test_wrong_values_name_the_parameter(name: str, value: Any) -> None:
    with pytest.raises(InvalidParameterError) as caught:
        SamplingParams(**{name: value})
    assert caught.value.parameter == name
    assert caught.value.hint
    assert name in str(caught.value)
    assert len(str(caught.value)) < 1500


@pytest.mark.parametrize(("name", "value"), NOT_YET, ids=lambda item: repr(item)[:30])
def test_what_this_version_lacks_is_refused(name: str, value: Any) -> None:
    with pytest.raises(InvalidParameterError, match="not in this version") as caught:
        SamplingParams(**{name: value})
    assert caught.value.parameter == name


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("max_token", "max_tokens"),
        ("temprature", "temperature"),
        ("topp", "top_p"),
        ("repeat_penality", "repeat_penalty"),
        ("stopp", "stop"),
    ],
)
def test_unknown_names_get_the_nearest_one(tiny: Generator, name: str, nearest: str) -> None:
    for call in (SamplingParams, SamplingParams().replace, lambda **given: tiny.stream(PROMPT, **given)):
        with pytest.raises(InvalidParameterError, match=f"Did you mean {nearest}") as caught:
            call(**{name: 1})  # type: ignore[operator]
        assert (caught.value.parameter, caught.value.suggestion) == (name, nearest)


def test_a_name_like_nothing_gets_the_list() -> None:
    with pytest.raises(InvalidParameterError, match="max_tokens, temperature") as caught:
        SamplingParams(xyzzyqwv=1)  # type: ignore[call-arg]
    assert caught.value.suggestion is None


@pytest.mark.parametrize(
    "given",
    [
        {"max_tokens": 5, "max_new_tokens": 6},
        {"max_new_tokens": 6, "sample_len": 6},
        {"temp": 0.5, "temperature": 0.7},
    ],
)
def test_one_thing_under_two_names(given: dict[str, Any]) -> None:
    for call in (SamplingParams, SamplingParams().replace):
        with pytest.raises(InvalidParameterError, match="Pass only"):
            call(**given)


def test_values_of_other_libraries_are_numbers() -> None:
    class Integer:
        def __index__(self) -> int:
            return 5

    class Real:
        def __float__(self) -> float:
            return 0.5

    params = SamplingParams(max_tokens=Integer(), temperature=Real(), logit_bias={"7": 1, 8: -1})  # type: ignore[arg-type, dict-item]
    assert (params.max_tokens, params.temperature, params.logit_bias) == (5, 0.5, {7: 1.0, 8: -1.0})


def test_params_are_values() -> None:
    params = SamplingParams(seed=1, stop="x", logit_bias={3: 1.0})
    assert params == SamplingParams(seed=1, stop=["x"], logit_bias={3: 1.0})
    assert params != SamplingParams(seed=2)
    assert hash(params) == hash(SamplingParams(seed=1, stop="x", logit_bias={3: 1.0}))
    assert pickle.loads(pickle.dumps(params)) == copy.deepcopy(params) == params
    assert "seed=1" in repr(params)
    assert params.replace() is params
    with pytest.raises(AttributeError):
        params.seed = 2  # type: ignore[misc]
    with pytest.raises(AttributeError):
        del params.seed  # type: ignore[misc]


def test_ids_past_the_vocabulary_are_refused_by_the_model(tiny: Generator) -> None:
    for given in ({"logit_bias": {10**6: 1.0}}, {"stop_token_ids": [10**6]}):
        with pytest.raises(InvalidParameterError) as caught:
            tiny.generate(PROMPT, **given)  # type: ignore[arg-type]
        assert caught.value.parameter in given


def test_params_must_be_params(tiny: Generator) -> None:
    with pytest.raises(InvalidParameterError) as caught:
        tiny.generate(PROMPT, {"max_tokens": 5})  # type: ignore[arg-type]
    assert caught.value.parameter == "params"


def test_bias_and_bans_have_their_effect(tiny: Generator) -> None:
    forced = tiny.generate(PROMPT, logit_bias={300: 100.0}, max_tokens=4, repeat_penalty=1.0, temperature=0.0)
    assert set(forced.token_ids) == {300}
    assert forced.finish_reason == "length"


GENERATOR: list[tuple[dict[str, Any], str]] = [
    ({"device": "tpu"}, "device"),
    ({"device": 5}, "device"),
    ({"backend": "torch"}, "backend"),
    ({"threads": 0}, "threads"),
    ({"threads": "all"}, "threads"),
    ({"n_threads": -1}, "threads"),
    ({"context_length": 0}, "context_length"),
    ({"n_ctx": 1.5}, "context_length"),
    ({"threads": 1025}, "threads"),
    ({"kv_dtype": "q8_0"}, "kv_dtype"),
    ({"kv_dtype": 8}, "kv_dtype"),
    ({"memory": "swap"}, "memory"),
    ({"memory": None}, "memory"),
    ({"memory": "lots"}, "memory"),
    ({"memory": 0}, "memory"),
    ({"memory": "6TB"}, "memory"),
    ({"memory": "GB"}, "memory"),
    ({"max_batch": 0}, "max_batch"),
    ({"max_queue": -1}, "max_queue"),
    ({"progress": "yes"}, "progress"),
    ({"offline": "yes"}, "offline"),
    ({"token": b"hf_secret"}, "token"),
    ({"chat_template": 5}, "chat_template"),
    ({"tokenizer": 5}, "tokenizer"),
    ({"cache_dir": 5}, "cache_dir"),
    ({"revision": 5}, "revision"),
    ({"filename": "\ud800"}, "filename"),
    ({"modle": "x"}, "modle"),
    ({"n_gpu_layers": 3}, "n_gpu_layers"),
    ({"model_path": "x"}, "model"),
]


@pytest.mark.parametrize(("given", "parameter"), GENERATOR, ids=lambda item: str(item)[:40])
def test_wrong_arguments_of_a_generator(tiny_file: Path, given: dict[str, Any], parameter: str) -> None:
    with pytest.raises(InvalidParameterError) as caught:
        Generator(tiny_file, **given)
    assert caught.value.parameter == parameter
    assert caught.value.hint
    assert "hf_secret" not in str(caught.value)


@pytest.mark.parametrize(
    "model", ["", "a\0b.gguf", 5, b"x.gguf", "no-owner", "a/b/c/d", "owner/name:not a quant", "owner/\ud800"]
)
def test_models_that_are_no_models(offline: Path, model: Any) -> None:
    with pytest.raises((InvalidParameterError, FileNotFoundError)) as caught:
        Generator(model)
    assert caught.value.hint  # type: ignore[attr-defined]


def test_aliases_of_a_generator(tiny_file: Path) -> None:
    with Generator(model_path=tiny_file, n_ctx=200, local_files_only=True, memory_limit="2 GB") as generator:
        assert generator.info.context_length == 200


def test_a_memory_limit_holds(tiny_file: Path) -> None:
    with pytest.raises(MemoryError) as caught:
        Generator(tiny_file, memory="1MB")
    assert caught.value.available == 10**6  # type: ignore[attr-defined]
    assert caught.value.needed > 10**6  # type: ignore[attr-defined]


@pytest.mark.parametrize("memory", ["auto", "repack", "mmap", "2GB", 2 * 10**9])
@pytest.mark.parametrize("kv_dtype", ["f16", "q8"])
def test_ways_to_keep_weights_keys_and_values(tiny_file: Path, memory: int | str, kv_dtype: KvDtype) -> None:
    plan = Generator.estimate(tiny_file, memory=memory, kv_dtype=kv_dtype, threads=1)
    assert plan.fits
    if memory not in ("auto", "repack", "mmap"):
        assert plan.available_bytes <= 2 * 10**9


def test_the_plan_keeps_to_a_memory_limit(tiny_file: Path) -> None:
    copied, mapped = (
        Generator.estimate(tiny_file, context_length=64, memory=how) for how in ("repack", "mmap")
    )
    assert mapped.total_bytes < copied.total_bytes
    # Where a copy of the weights does not fit, they stay in the file.
    limited = Generator.estimate(tiny_file, context_length=64, memory=copied.total_bytes - 1)
    assert (limited.total_bytes, limited.available_bytes) == (mapped.total_bytes, copied.total_bytes - 1)
    assert limited.fits
    exact = Generator.estimate(tiny_file, context_length=64, memory=mapped.total_bytes)
    assert exact.fits
    assert not Generator.estimate(tiny_file, context_length=64, memory=mapped.total_bytes - 1).fits


def test_the_environment_names_the_model(
    tiny_file: Path, offline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHICANDLE_MODEL", str(tiny_file))
    with Generator() as generator:
        assert generator.info.name == "tiny"
