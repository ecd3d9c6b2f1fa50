"""`n=`: several answers to one prompt, each of which is what its seed gives alone."""

from __future__ import annotations

import asyncio
import copy
import gc
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

import pytest
from conftest import PROMPT
from test_stream import ENDLESS, LONG_PROMPT, idle

import phicandle
from phicandle import (
    Chunk,
    Completion,
    GenerationCancelled,
    GenerationTimeout,
    Generator,
    InvalidParameterError,
    QueueFullError,
    SamplingParams,
)


def alone(generator: Generator, n: int, seed: int, **extra: Any) -> list[Completion]:
    return [generator.generate(PROMPT, seed=(seed + index) % 2**64, **extra) for index in range(n)]


def what_was_said(answers: Iterable[Completion]) -> list[tuple[object, ...]]:
    return [
        (
            each.text,
            each.token_ids,
            each.finish_reason,
            each.stop_reason,
            each.seed,
            each.logprobs,
            # What was there already depends on who came before.
            (each.usage.prompt_tokens, each.usage.completion_tokens),
        )
        for each in answers
    ]


@pytest.mark.parametrize("seed", [0, 7, 2**64 - 2])
def test_each_choice_is_what_its_seed_gives_alone(demo: Generator, seed: int) -> None:
    answer = demo.generate(PROMPT, seed=seed, n=5)
    assert what_was_said(answer.choices) == what_was_said(alone(demo, 5, seed))
    assert len({choice.text for choice in answer.choices}) > 1
    assert all(choice.choices == (choice,) for choice in answer.choices)


@pytest.mark.parametrize(
    "extra", [{"logprobs": 2}, {"stop": ["e", "<|"]}, {"temperature": 0.0}, {"top_k": 3}]
)
def test_parameters_hold_for_each_choice(tiny: Generator, extra: dict[str, Any]) -> None:
    answer = tiny.generate(PROMPT, seed=3, n=3, max_tokens=30, **extra)
    assert what_was_said(answer.choices) == what_was_said(alone(tiny, 3, 3, max_tokens=30, **extra))


def test_the_whole_is_the_first_choice_but_for_its_usage(demo: Generator) -> None:
    answer = demo.generate(PROMPT, seed=3, n=4, logprobs=1)
    first = answer.choices[0]
    for name in ("text", "token_ids", "finish_reason", "stop_reason", "seed", "model", "logprobs", "metrics"):
        assert getattr(answer, name) == getattr(first, name)
    assert str(answer) == first.text
    assert answer.usage.prompt_tokens == first.usage.prompt_tokens
    assert answer.usage.completion_tokens == sum(len(choice.token_ids) for choice in answer.choices)
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_without_a_seed_the_choices_can_still_be_repeated(demo: Generator) -> None:
    answer = demo.generate(PROMPT, n=3)
    assert answer.seed is not None
    assert [choice.seed for choice in answer.choices] == [(answer.seed + index) % 2**64 for index in range(3)]
    again = demo.generate(PROMPT, n=3, seed=answer.seed)
    assert [choice.text for choice in again.choices] == [choice.text for choice in answer.choices]
    assert demo.generate(PROMPT, n=3).seed != answer.seed


def test_one_choice_is_a_plain_answer(demo: Generator) -> None:
    answer = demo.generate(PROMPT, seed=3, n=1)
    assert answer.choices == (answer,)
    assert "choices" not in answer.as_dict()


def test_choices_are_part_of_what_a_completion_is(demo: Generator) -> None:
    answer = demo.generate(PROMPT, seed=3, n=2)
    for twin in (pickle.loads(pickle.dumps(answer)), copy.deepcopy(answer)):
        assert twin == answer
        assert hash(twin) == hash(answer)
        assert twin.choices == answer.choices
    assert answer != answer.choices[0]
    assert [choice["text"] for choice in answer.as_dict()["choices"]] == [
        each.text for each in answer.choices
    ]
    assert "_choices" not in answer.as_dict()
    assert "_choices" not in repr(answer)


@pytest.mark.parametrize("kind", ["chat", "text"])
def test_openais_form_has_all_choices(demo: Generator, kind: str) -> None:
    answer = demo.generate(PROMPT, seed=3, n=3)
    form = answer.to_openai(kind)
    assert [choice["index"] for choice in form["choices"]] == [0, 1, 2]
    texts = [choice["message"]["content"] if kind == "chat" else choice["text"] for choice in form["choices"]]
    assert texts == [choice.text for choice in answer.choices]
    assert form["usage"]["prompt_tokens"] == answer.usage.prompt_tokens
    assert form["usage"]["completion_tokens"] == answer.usage.completion_tokens


def parts(chunks: list[Chunk], n: int) -> list[str]:
    return ["".join(chunk for chunk in chunks if chunk.index == index) for index in range(n)]


def test_chunks_of_a_stream_say_whose_they_are(demo: Generator) -> None:
    whole = demo.generate(PROMPT, seed=3, n=4)
    with demo.stream(PROMPT, seed=3, n=4) as stream:
        assert isinstance(stream, phicandle.Stream)
        chunks = list(stream)
        assert parts(chunks, 4) == [choice.text for choice in whole.choices]
        assert stream.done
        assert stream.text == whole.text
        assert what_was_said(stream.result().choices) == what_was_said(whole.choices)
    ends = [chunk for chunk in chunks if chunk.finish_reason is not None]
    assert sorted(chunk.index for chunk in ends) == [0, 1, 2, 3]
    for chunk in ends:
        assert chunk.usage == whole.choices[chunk.index].usage


def test_all_choices_are_written_at_once(tiny: Generator) -> None:
    with tiny.stream(PROMPT, n=4, max_tokens=1500, ignore_eos=True) as stream:
        most, first = 0.0, set()
        # How soon all of them have joined is up to the system.
        for chunk in stream:
            most = max(most, tiny.stats.batch_size)
            first.add(chunk.index)
            if most > 2 and first == {0, 1, 2, 3}:
                break
        assert most > 2
        assert first == {0, 1, 2, 3}
    assert idle(tiny)


def test_the_index_of_a_chunk_survives_pickling(demo: Generator) -> None:
    chunk = next(chunk for chunk in demo.stream(PROMPT, seed=3, n=2) if chunk.index == 1)
    assert pickle.loads(pickle.dumps(chunk)).index == 1


def test_async_streams_and_answers_have_choices(demo: Generator) -> None:
    whole = demo.generate(PROMPT, seed=3, n=4)

    async def main() -> None:
        async with demo.astream(PROMPT, seed=3, n=4) as stream:
            chunks = [chunk async for chunk in stream]
            assert parts(chunks, 4) == [choice.text for choice in whole.choices]
            assert stream.done
            assert what_was_said((await stream.result()).choices) == what_was_said(whole.choices)
        answer = await demo.agenerate(PROMPT, seed=3, n=4)
        assert what_was_said(answer.choices) == what_was_said(whole.choices)

    asyncio.run(main())


def test_a_stream_of_choices_is_stopped_like_any_other(tiny: Generator) -> None:
    stream = tiny.stream(PROMPT, n=3, **ENDLESS)
    next(stream)
    with pytest.raises(GenerationTimeout) as caught:
        stream.result(timeout=0.01)
    assert caught.value.partial is not None
    assert len(caught.value.partial.choices) == 3
    stream.cancel()
    rest = list(stream)
    assert sorted(chunk.index for chunk in rest if chunk.finish_reason == "cancelled") == [0, 1, 2]
    assert {choice.finish_reason for choice in stream.result().choices} == {"cancelled"}
    assert idle(tiny)

    closed = tiny.stream(PROMPT, n=3, **ENDLESS)
    closed.close()
    assert list(closed) == []
    assert idle(tiny)

    for _ in tiny.stream(PROMPT, n=3, **ENDLESS):
        break
    gc.collect()
    assert idle(tiny)


def test_cancelling_a_task_ends_all_choices(tiny: Generator) -> None:
    async def main() -> None:
        task = asyncio.create_task(tiny.agenerate(LONG_PROMPT, n=3, **ENDLESS))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert idle(tiny)


def test_a_timeout_holds_for_each_choice(tiny: Generator) -> None:
    answer = tiny.generate(PROMPT, n=3, timeout=0.05, **ENDLESS)
    assert {choice.finish_reason for choice in answer.choices} == {"timeout"}


def test_closing_the_generator_ends_all_choices() -> None:
    generator = Generator("demo")
    stream = generator.stream(PROMPT, n=3, **ENDLESS)
    next(stream)
    generator.close()
    with pytest.raises(GenerationCancelled):
        list(stream)


def test_all_choices_are_started_or_none() -> None:
    with Generator("demo", max_batch=2, max_queue=2) as generator:
        with pytest.raises(InvalidParameterError, match="4 requests") as caught:
            generator.generate(PROMPT, n=5)
        assert caught.value.parameter == "n"
        neighbours = [generator.stream(PROMPT, **ENDLESS) for _ in range(2)]
        with pytest.raises(QueueFullError):
            generator.stream(PROMPT, n=4)
        for neighbour in neighbours:
            neighbour.cancel()
        assert idle(generator)
        assert len(generator.generate(PROMPT, n=4).choices) == 4


@pytest.mark.skipif(not hasattr(signal, "SIGPIPE"), reason="Windows has no SIGPIPE")
def test_a_stream_that_is_left_does_not_end_a_program_that_dies_of_broken_pipes() -> None:
    code = f"""
import gc, signal, time
from phicandle import Generator
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
with Generator("demo") as generator:
    for _ in range(20):
        for _ in generator.stream({PROMPT!r}, n=3, max_tokens=300, ignore_eos=True):
            break
        gc.collect()
    while generator.stats.active or generator.stats.queued:
        time.sleep(0.01)
print("alive")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "alive\n", "")


@pytest.mark.parametrize("n", [0, -1, 1025, True, 1.0, "2", None])
def test_n_is_a_number_of_answers(n: Any) -> None:
    with pytest.raises(InvalidParameterError) as caught:
        SamplingParams(n=n)
    assert caught.value.parameter == "n"
