"""How likely text is: logprobs, `score` and `perplexity`, against the float64 reference."""

from __future__ import annotations

import asyncio
import json
import math
import pickle
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from gguf_files import write_tiny
from reference import KERNEL, Model

from phicandle import (
    Completion,
    ContextOverflowError,
    GenerationCancelled,
    GenerationTimeout,
    Generator,
    InvalidParameterError,
    Perplexity,
    Score,
    TokenLogprob,
)

IDS = [5, 120, 33, 7, 290, 11, 64, 3, 200, 41, 8, 99]
#: The reference rounds as the kernels do; what may be rounded to either side is more with 8-bit activations.
NEAR = {"F32": 2e-4, "Q8_0": 0.1}


def log_softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    shifted = logits - logits.max(-1, keepdims=True)
    found: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return found


@pytest.fixture(scope="module", params=[("phi3", "F32"), ("llama", "Q8_0")], ids=str)
def pair(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Generator, Model, float]]:
    arch, dtype = request.param
    path = tmp_path_factory.mktemp("scoring") / f"{arch}.gguf"
    write_tiny(path, arch=arch, dtype=dtype, context=256)
    with Generator(path) as generator:
        yield generator, Model(path, KERNEL), NEAR[dtype]


def test_a_prompts_logprobs_are_the_references(pair: tuple[Generator, Model, float]) -> None:
    generator, model, near = pair
    answer = generator.generate(IDS, max_tokens=1, prompt_logprobs=3)
    assert answer.prompt_logprobs is not None
    assert answer.prompt_logprobs[0] is None
    expected = log_softmax(model.logits(IDS))
    assert len(answer.prompt_logprobs) == len(IDS)
    for place, found in enumerate(answer.prompt_logprobs[1:], 1):
        assert found is not None
        assert found.token_id == IDS[place]
        row = expected[place - 1]
        assert abs(found.logprob - row[IDS[place]]) < near
        assert len(found.top) == 3
        assert [other.logprob for other in found.top] == sorted((o.logprob for o in found.top), reverse=True)
        for other in found.top:
            assert abs(other.logprob - row[other.token_id]) < near
        assert found.top[-1].logprob >= np.sort(row)[-3] - near


def test_a_long_prompt_is_read_in_pieces_and_says_the_same(tiny: Generator, tiny_file: Path) -> None:
    ids = [(7 * place) % 300 for place in range(150)]
    expected = log_softmax(Model(tiny_file, KERNEL).logits(ids))
    found = tiny.generate(ids, max_tokens=1, prompt_logprobs=0).prompt_logprobs
    assert found is not None
    assert len(found) == 150
    said = [token.logprob for token in found if token is not None]
    assert np.abs(said - expected[np.arange(149), ids[1:]]).max() < NEAR["F32"]


def test_scores_are_the_references(pair: tuple[Generator, Model, float]) -> None:
    generator, model, near = pair
    continuations = [[7], [7, 8, 9, 10], [290, 11], [1] * 50]
    scores = generator.score(IDS, continuations)
    for tokens, score in zip(continuations, scores, strict=True):
        rows = log_softmax(model.logits([*IDS, *tokens]))[len(IDS) - 1 : -1]
        expected = rows[np.arange(len(tokens)), tokens]
        assert score.token_ids == tuple(tokens)
        assert np.abs([found.logprob for found in score.logprobs] - expected).max() < near
        assert score.sum == math.fsum(found.logprob for found in score.logprobs)
        assert score.mean == score.sum / len(tokens)


def test_all_continuations_of_one_token_share_one_certainty(tiny: Generator) -> None:
    size = tiny.info.vocab_size
    scores = tiny.score(IDS, [[token] for token in range(size)])
    assert abs(sum(math.exp(score.sum) for score in scores) - 1) < 1e-6


@pytest.mark.parametrize("backend", ["native", "candle"])
def test_a_written_answer_scores_what_it_was_written_with(tmp_path: Path, backend: Any) -> None:
    """To the last bit, whatever penalties and temperature chose."""
    path = tmp_path / "model.gguf"
    write_tiny(path, dtype="Q8_0", heads=4, kv_heads=4, head_dim=16, embd=64)
    with Generator(path, backend=backend) as generator:
        for temperature in (0.0, 1.0):
            answer = generator.generate(
                IDS, temperature=temperature, seed=3, max_tokens=40, ignore_eos=True, logprobs=0
            )
            (score,) = generator.score(IDS, [answer.token_ids])
            assert score.logprobs == answer.logprobs
        first, second = generator.score(IDS, [[4, 5, 6], answer.token_ids])
        assert second.logprobs == answer.logprobs
        assert first.logprobs == generator.score(IDS, [[4, 5, 6]])[0].logprobs


def test_chunks_carry_the_logprobs_of_their_tokens(demo: Generator) -> None:
    chunks = list(demo.stream("Write a haiku about rain", seed=4, logprobs=2))
    told = [found for chunk in chunks for found in chunk.logprobs or ()]
    assert [found.token_id for found in told] == [token for chunk in chunks for token in chunk.token_ids]
    assert all(len(chunk.logprobs or ()) == len(chunk.token_ids) for chunk in chunks)
    whole = demo.generate("Write a haiku about rain", seed=4, logprobs=2)
    assert tuple(told) == whole.logprobs
    assert pickle.loads(pickle.dumps(chunks[0])).logprobs == chunks[0].logprobs
    text = b"".join(found.spelling for found in told[: len(told) - 1]).decode()
    assert text == whole.text


def test_openais_form(demo: Generator) -> None:
    answer = demo.generate("Write a haiku about rain", temperature=0.0, logprobs=1)
    assert answer.logprobs is not None
    assert answer.finish_reason == "stop"
    chat = json.loads(json.dumps(answer.to_openai()))["choices"][0]["logprobs"]
    assert "".join(entry["token"] for entry in chat["content"]) == answer.text
    assert bytes(chat["content"][0]["bytes"]).decode() == chat["content"][0]["token"]
    assert chat["content"][0]["top_logprobs"][0]["logprob"] >= chat["content"][0]["logprob"]
    text = json.loads(json.dumps(answer.to_openai("text")))["choices"][0]["logprobs"]
    assert text["tokens"] == [entry["token"] for entry in chat["content"]]
    for token, offset in zip(text["tokens"], text["text_offset"], strict=True):
        assert answer.text[offset:].startswith(token)
    assert demo.generate("Write a haiku", max_tokens=2).to_openai()["choices"][0]["logprobs"] is None


def expected_perplexity(model: Model, ids: list[int], window: int, stride: int) -> float:
    """Hugging Face's loop, with the labels moved by one as its models do."""
    scored: list[float] = []
    previous = 0
    for begin in range(0, len(ids), stride):
        end = min(begin + window, len(ids))
        rows = log_softmax(model.logits(ids[begin:end]))
        targets = end - previous
        places = range(max(1, end - begin - targets), end - begin)
        scored += [float(rows[place - 1, ids[begin + place]]) for place in places]
        previous = end
        if end == len(ids):
            break
    return math.exp(-math.fsum(scored) / len(scored))


@pytest.mark.parametrize(("window", "stride"), [(32, 8), (32, 16), (32, 31), (64, 1), (200, 100)])
def test_perplexity_is_the_references(pair: tuple[Generator, Model, float], window: int, stride: int) -> None:
    generator, model, near = pair
    ids = [(11 * place + place // 7) % 300 for place in range(70)]
    found = generator.perplexity(ids, window=window, stride=stride)
    assert (found.scored_tokens, found.window, found.stride) == (69, window, stride)
    assert abs(math.log(float(found)) - math.log(expected_perplexity(model, ids, window, stride))) < near


def test_text_begins_with_its_bos_and_can_do_without(demo: Generator) -> None:
    text = "the old pond is still, and a frog jumps into the sound of water"
    with_bos = demo.tokenizer.encode(text, bos=True)
    assert demo.perplexity(text, bos=True) == demo.perplexity(with_bos)
    assert demo.perplexity(text, bos=False) == demo.perplexity(demo.tokenizer.encode(text, bos=False))
    assert demo.perplexity(text).stride == demo.info.context_length // 2


def test_async_twins_say_the_same(tiny: Generator) -> None:
    async def main() -> tuple[list[Score], Perplexity]:
        scores, perplexity = await asyncio.gather(
            tiny.ascore(IDS, [[3, 4], [5]]), tiny.aperplexity(IDS * 5, window=16)
        )
        return scores, perplexity

    assert asyncio.run(main()) == (tiny.score(IDS, [[3, 4], [5]]), tiny.perplexity(IDS * 5, window=16))


def test_neighbours_do_not_change_a_score(tiny: Generator) -> None:
    expected = tiny.score(IDS, [[3, 4, 5]])
    found: list[list[Score]] = []
    threads = [threading.Thread(target=lambda: found.append(tiny.score(IDS, [[3, 4, 5]]))) for _ in range(4)]
    stream = tiny.stream(IDS, max_tokens=60, ignore_eos=True)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stream.result().finish_reason == "length"
    assert found == [expected] * 4


def test_text_after_raw_text_is_cut_as_one(demo: Generator) -> None:
    prompt, rest = "the old pond", " is still"
    (score,) = demo.score(prompt, rest, template=False)
    whole = demo.tokenizer.encode(prompt + rest)
    assert list(score.token_ids) == whole[len(demo.tokenizer.encode(prompt)) :]
    (score,) = demo.score(prompt, [rest])
    assert list(score.token_ids) == demo.tokenizer.encode(rest, bos=False)


@pytest.mark.parametrize(
    "bad", [[], [[]], [""], b"text", [b"text"], 5, None, [5], [["a"]], [[-1]], [[2**40]], {"a": 1}]
)
def test_bad_continuations(tiny: Generator, bad: Any) -> None:
    with pytest.raises(InvalidParameterError) as caught:
        tiny.score(IDS, bad)
    assert caught.value.parameter == "continuations"
    assert caught.value.hint


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"stride": 0}, "stride"),
        ({"window": 16, "stride": 16}, "stride"),
        ({"stride": 1.5}, "stride"),
        ({"window": 1}, "window"),
        ({"window": 10**9}, "window"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": math.nan}, "timeout"),
        ({"timeout": "soon"}, "timeout"),
    ],
)
def test_bad_windows(tiny: Generator, given: dict[str, Any], name: str) -> None:
    with pytest.raises(InvalidParameterError) as caught:
        tiny.perplexity(IDS, **given)
    assert caught.value.parameter == name


@pytest.mark.parametrize("bad", ["", [], [1], [2**31], None, 7, b"abc", ["a", "b"]])
def test_bad_texts(tiny: Generator, bad: Any) -> None:
    with pytest.raises(InvalidParameterError):
        tiny.perplexity(bad, bos=False) if isinstance(bad, str) else tiny.perplexity(bad)


def test_what_is_too_long_is_refused(tiny: Generator) -> None:
    longest = tiny.info.context_length
    with pytest.raises(ContextOverflowError):
        tiny.score(IDS, [[1] * (longest - len(IDS) + 1)])


def test_time_and_close_end_a_score(tiny_file: Path) -> None:
    with Generator(tiny_file) as generator:
        with pytest.raises(GenerationTimeout):
            generator.score(IDS, [[1] * 4000] * 50, timeout=0.05)
        with pytest.raises(GenerationTimeout):
            generator.perplexity(IDS * 600, stride=1, window=64, timeout=0.05)
        failed: list[BaseException] = []

        def score() -> None:
            try:
                generator.score(IDS, [[1] * 4000] * 50)
            except GenerationCancelled as error:
                failed.append(error)

        thread = threading.Thread(target=score)
        thread.start()
        while generator.stats.active == 0:
            time.sleep(0.001)
        generator.close()
        thread.join(10)
        assert len(failed) == 1


def test_a_cancelled_task_ends_its_score(tiny_file: Path) -> None:
    with Generator(tiny_file) as generator:

        async def main() -> None:
            task = asyncio.create_task(generator.ascore(IDS, [[1] * 4000] * 50))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(main())
        while generator.stats.active:
            time.sleep(0.001)
        assert generator.score(IDS, [[1]])[0].token_ids == (1,)


def test_records_are_values() -> None:
    token = TokenLogprob(3, -0.5, b"\xc3", (TokenLogprob(4, -0.25),))
    assert token.token == "\ufffd"
    assert token == pickle.loads(pickle.dumps(token))
    score = Score((token, TokenLogprob(5, -1.5)))
    assert (score.sum, score.mean, score.token_ids) == (-2.0, -1.0, (3, 5))
    assert float(Perplexity(mean_logprob=-1e9, scored_tokens=1, windows=1, window=2, stride=1)) == math.inf
    assert Completion("").logprobs is None
