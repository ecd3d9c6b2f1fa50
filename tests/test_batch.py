"""Batches: many prompts in one call, each answered as it would be alone, with a window of requests in the engine."""

from __future__ import annotations

import asyncio
import gc
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import PROMPT
from test_stream import idle

from phicandle import (
    Chunk,
    ClosedError,
    Completion,
    ContextOverflowError,
    GenerationCancelled,
    Generator,
    InvalidParameterError,
    PhicandleError,
    QueueFullError,
    SamplingParams,
)

TOPICS = ("ice hockey", "tea", "rain", "the sea", "an old pond", "snow", "a train", "the moon")
PROMPTS = [f"Write a haiku about {topic}" for topic in TOPICS]
TOO_LONG = "ice hockey is in the air " * 4000
LONG: dict[str, Any] = {"max_tokens": 1500, "ignore_eos": True}


def texts(answers: list[Completion]) -> list[str]:
    return [answer.text for answer in answers]


def alone(generator: Generator, **given: Any) -> list[str]:
    return [generator.generate(prompt, **given).text for prompt in PROMPTS]


async def later(items: Any, pause: float = 0.0) -> AsyncIterator[Any]:
    for item in items:
        await asyncio.sleep(pause)
        yield item


def every_way(generator: Generator, prompts: list[Any], *params: Any, **given: Any) -> list[list[Completion]]:
    """The answers in the order of the prompts, by each method that gives answers."""

    async def collect(pairs: AsyncIterator[tuple[int, Completion]]) -> list[Completion]:
        return [answer for _, answer in sorted([pair async for pair in pairs], key=lambda pair: pair[0])]

    def sort(pairs: Iterator[tuple[int, Completion]]) -> list[Completion]:
        return [answer for _, answer in sorted(pairs, key=lambda pair: pair[0])]

    return [
        generator.batch(prompts, *params, **given),
        generator.batch(iter(prompts), *params, **given),
        sort(generator.batch_iter(prompts, *params, **given)),
        [answer for _, answer in generator.batch_iter(prompts, *params, ordered=True, **given)],
        asyncio.run(generator.abatch(prompts, *params, **given)),
        asyncio.run(generator.abatch(later(prompts), *params, **given)),
        asyncio.run(collect(generator.abatch_iter(later(prompts, 0.001), *params, **given))),
    ]


def test_each_answer_is_what_generate_gives(demo: Generator) -> None:
    expected = alone(demo, seed=11)
    for answers in every_way(demo, PROMPTS, seed=11):
        assert texts(answers) == expected
        assert [answer.seed for answer in answers] == [11] * len(PROMPTS)
    assert len(set(expected)) > 1


def test_chunks_of_each_answer_join_to_its_text(demo: Generator) -> None:
    expected = alone(demo, seed=11)
    found = [""] * len(PROMPTS)
    ends: list[int] = []
    for index, chunk in demo.batch_stream(PROMPTS, seed=11):
        assert isinstance(chunk, Chunk)
        assert index not in ends
        found[index] += chunk
        if chunk.finish_reason is not None:
            assert chunk.usage is not None
            ends.append(index)
    assert found == expected
    assert sorted(ends) == list(range(len(PROMPTS)))

    async def main() -> list[str]:
        found = [""] * len(PROMPTS)
        async for index, chunk in demo.abatch_stream(later(PROMPTS), seed=11):
            found[index] += chunk
        return found

    assert asyncio.run(main()) == expected


def test_prompts_have_all_their_forms(demo: Generator) -> None:
    forms: list[Any] = [
        PROMPT,
        [{"role": "user", "content": PROMPT}],
        demo.tokenizer.apply_chat_template([{"role": "user", "content": PROMPT}], tokenize=True),
    ]
    answers = demo.batch(forms, temperature=0.0)
    assert len(set(texts(answers))) == 1
    assert demo.batch([]) == []
    assert asyncio.run(demo.abatch(later([]))) == []
    assert list(demo.batch_stream(())) == []


def test_without_a_seed_each_prompt_has_its_own(demo: Generator) -> None:
    answers = demo.batch([PROMPT] * 4)
    assert len({answer.seed for answer in answers}) == 4


def test_each_prompt_may_have_its_own_parameters(demo: Generator) -> None:
    each = [SamplingParams(seed=seed, max_tokens=3 + seed) for seed in range(len(PROMPTS))]
    expected = [demo.generate(prompt, params).text for prompt, params in zip(PROMPTS, each, strict=True)]
    for answers in every_way(demo, PROMPTS, each):
        assert texts(answers) == expected
        assert [answer.usage.completion_tokens for answer in answers] == [
            3 + seed for seed in range(len(each))
        ]
    cold = [
        demo.generate(prompt, params, max_tokens=4).text for prompt, params in zip(PROMPTS, each, strict=True)
    ]
    assert texts(demo.batch(PROMPTS, tuple(each), max_new_tokens=4)) == cold


@pytest.mark.parametrize("given", [1, 3])
def test_as_many_parameters_as_prompts(demo: Generator, given: int) -> None:
    each = [SamplingParams()] * given
    with pytest.raises(
        InvalidParameterError, match=f"params has {given} items, and there are 2 prompts"
    ) as caught:
        demo.batch(PROMPTS[:2], each)
    assert caught.value.parameter == "params"
    # Of prompts without a length that is known when they run out, or go on.
    with pytest.raises(InvalidParameterError, match=f"params has {given} items"):
        demo.batch(iter(PROMPTS[:2]), each)
    with pytest.raises(InvalidParameterError, match=f"params has {given} items"):
        asyncio.run(demo.abatch(later(PROMPTS[:2]), each))
    assert idle(demo)


def test_choices_of_each_prompt(demo: Generator) -> None:
    expected = [texts(list(demo.generate(prompt, seed=5, n=3).choices)) for prompt in PROMPTS]
    for answers in every_way(demo, PROMPTS, seed=5, n=3):
        assert [texts(list(answer.choices)) for answer in answers] == expected
    found = [[""] * 3 for _ in PROMPTS]
    for index, chunk in demo.batch_stream(PROMPTS, seed=5, n=3):
        found[index][chunk.index] += chunk
    assert found == expected


class Outstanding:
    """Prompts without end, which note how many were taken and not yet answered."""

    def __init__(self, count: int | None = None) -> None:
        self.count = count
        self.taken = self.answered = self.most = 0

    def __iter__(self) -> Iterator[str]:
        while self.count is None or self.taken < self.count:
            self.taken += 1
            self.most = max(self.most, self.taken - self.answered)
            yield PROMPTS[self.taken % len(PROMPTS)]


def test_thousands_of_prompts_are_taken_a_window_at_a_time() -> None:
    with Generator("demo", max_batch=8) as generator:
        prompts = Outstanding(2000)
        seen = set()
        most_in_engine = 0
        for index, answer in generator.batch_iter(prompts, max_tokens=2, seed=1):
            prompts.answered += 1
            seen.add(index)
            assert answer.usage.completion_tokens == 2
            stats = generator.stats
            most_in_engine = max(most_in_engine, stats.active + stats.queued)
        assert seen == set(range(2000))
        assert 8 < prompts.most <= 16
        # How many are left when this thread has its turn is a matter of luck.
        assert 0 < most_in_engine <= 16
        assert generator.stats.finished == 2000
        assert idle(generator)


def test_thousands_of_prompts_of_an_async_source() -> None:
    async def main(generator: Generator) -> Outstanding:
        prompts = Outstanding(2000)
        async for _ in generator.abatch_iter(later(prompts), max_tokens=2):
            prompts.answered += 1
        return prompts

    with Generator("demo", max_batch=8) as generator:
        prompts = asyncio.run(main(generator))
        assert prompts.taken == prompts.answered == 2000
        assert prompts.most <= 16


def test_endless_prompts_can_be_left() -> None:
    with Generator("demo", max_batch=4) as generator:
        prompts = Outstanding()
        for count, _ in enumerate(generator.batch_iter(prompts, max_tokens=2)):
            prompts.answered += 1
            if count == 100:
                break
        gc.collect()
        assert prompts.taken <= 101 + 8
        assert idle(generator)


def test_answers_come_as_they_are_completed_or_in_order(tiny: Generator) -> None:
    each = [SamplingParams(max_tokens=2000, ignore_eos=True, seed=1)]
    each += [SamplingParams(max_tokens=2, ignore_eos=True, seed=1)] * 7
    completed = [index for index, _ in tiny.batch_iter([PROMPT] * 8, each)]
    assert sorted(completed) == list(range(8))
    assert completed[-1] == 0
    assert [index for index, _ in tiny.batch_iter([PROMPT] * 8, each, ordered=True)] == list(range(8))


def test_order_is_kept_with_bounded_memory() -> None:
    with Generator("demo", max_batch=2, context_length=1024) as generator:
        prompts = Outstanding(200)
        each = [SamplingParams(max_tokens=400, ignore_eos=True)] + [SamplingParams(max_tokens=1)] * 199
        for expected, (index, _) in enumerate(generator.batch_iter(iter(prompts), each, ordered=True)):
            assert index == expected
            prompts.answered += 1
        # Four windows of twice max_batch.
        assert prompts.most <= 16


@pytest.mark.parametrize("max_queue", [0, 1, 3])
def test_a_small_queue_only_slows_a_batch(max_queue: int) -> None:
    with Generator("demo", max_batch=2, max_queue=max_queue) as generator:
        expected = alone(generator, seed=2)
        for answers in every_way(generator, PROMPTS, seed=2):
            assert texts(answers) == expected


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_batch_waits_while_others_fill_the_queue(tiny_file: Path, asynchronous: bool) -> None:
    with Generator(tiny_file, max_batch=2, max_queue=0) as generator:
        expected = alone(generator, seed=2, max_tokens=4)
        assert idle(generator)
        others = [generator.stream(PROMPT, max_tokens=None, ignore_eos=True) for _ in range(2)]
        with pytest.raises(QueueFullError):
            generator.stream(PROMPT)
        timer = threading.Timer(0.05, lambda: [other.cancel() for other in others])
        timer.start()
        if asynchronous:
            answers = asyncio.run(generator.abatch(PROMPTS, seed=2, max_tokens=4))
        else:
            answers = generator.batch(PROMPTS, seed=2, max_tokens=4)
        assert texts(answers) == expected
        assert {other.result().finish_reason for other in others} == {"cancelled"}


def test_batches_share_the_engine() -> None:
    with Generator("demo", max_batch=3, max_queue=2) as generator:
        expected = alone(generator, seed=4)
        found: list[list[str]] = []
        threads = [
            threading.Thread(target=lambda: found.append(texts(generator.batch(PROMPTS * 3, seed=4))))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [expected * 3] * 4


def test_the_first_failure_ends_the_batch_and_says_which_prompt_it_was(demo: Generator) -> None:
    prompts = [*PROMPTS[:3], TOO_LONG, *PROMPTS[3:]]

    async def aiterate() -> None:
        async for _ in demo.abatch_iter(prompts, **LONG):
            pass

    for call in (
        lambda: demo.batch(prompts, **LONG),
        lambda: list(demo.batch_iter(prompts, ordered=True, **LONG)),
        lambda: list(demo.batch_stream(prompts, **LONG)),
        lambda: asyncio.run(demo.abatch(prompts, **LONG)),
        lambda: asyncio.run(aiterate()),
    ):
        with pytest.raises(ContextOverflowError) as caught:
            call()
        assert caught.value.__notes__ == ["It is the prompt at index 3 of the batch."]
        assert pickle.loads(pickle.dumps(caught.value)).__notes__ == caught.value.__notes__
        assert idle(demo)


def test_exceptions_can_stand_in_the_places_of_answers(demo: Generator) -> None:
    wrong: list[Any] = ["", TOO_LONG, 5, [], [{"role": "user"}], [10**6]]
    prompts = [item for pair in zip(PROMPTS, wrong, strict=False) for item in pair]
    expected = [demo.generate(prompt, seed=11).text for prompt in PROMPTS[: len(wrong)]]
    for answers in every_way(demo, prompts, seed=11, return_exceptions=True):
        assert [str(answer) for answer in answers[0::2]] == expected
        assert [type(error) for error in answers[1::2]] == [
            InvalidParameterError,
            ContextOverflowError,
            *[InvalidParameterError] * 4,
        ]
    pieces = list(demo.batch_stream(prompts, seed=11, return_exceptions=True))
    assert sorted(index for index, piece in pieces if isinstance(piece, PhicandleError)) == [
        1,
        3,
        5,
        7,
        9,
        11,
    ]
    for place, text in enumerate(expected):
        assert "".join(str(piece) for index, piece in pieces if index == 2 * place) == text
    assert idle(demo)


def test_the_source_of_the_prompts_may_fail(demo: Generator) -> None:
    def source() -> Iterator[str]:
        yield from PROMPTS
        raise OSError("the file ended")

    for call in (
        lambda: demo.batch(source(), return_exceptions=True),
        lambda: asyncio.run(demo.abatch(later(source()), return_exceptions=True)),
    ):
        with pytest.raises(OSError, match="the file ended"):
            call()
        assert idle(demo)


def test_leaving_early_ends_every_request(tiny: Generator) -> None:
    for index, _ in tiny.batch_stream([PROMPT] * 20, **LONG):
        if index == 2:
            break
    gc.collect()
    assert idle(tiny)

    chunks = tiny.batch_stream([PROMPT] * 20, **LONG)
    next(chunks)
    assert tiny.stats.active > 0
    chunks.close()
    assert idle(tiny)
    assert list(chunks) == []

    def fail() -> None:
        for _ in tiny.batch_stream([PROMPT] * 20, **LONG):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    gc.collect()
    assert idle(tiny)

    async def leave() -> None:
        async for _ in tiny.abatch_stream(later([PROMPT] * 20), **LONG):
            break

    asyncio.run(leave())
    assert idle(tiny)


def test_nothing_is_asked_before_the_first_answer_is(demo: Generator) -> None:
    prompts = Outstanding()
    finished = demo.stats.finished
    answers = demo.batch_iter(prompts)
    answers.close()
    assert prompts.taken == 0
    assert demo.stats.finished == finished


@pytest.mark.parametrize("source", [list, later], ids=["list", "async"])
def test_cancelling_a_task_ends_every_request(tiny: Generator, source: Any) -> None:
    async def main() -> None:
        task = asyncio.create_task(tiny.abatch(source([PROMPT] * 20), **LONG))
        for _ in range(50):
            await asyncio.sleep(0)
        assert tiny.stats.active + tiny.stats.queued > 0
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert idle(tiny)


def test_a_task_is_cancelled_while_its_source_is_silent(demo: Generator) -> None:
    stopped = []

    async def silent() -> AsyncIterator[str]:
        yield PROMPT
        try:
            await asyncio.sleep(600)
        finally:
            stopped.append(True)

    async def main() -> list[int]:
        found = []
        answers = demo.abatch_iter(silent(), max_tokens=5)
        # The answer comes although the next prompt does not.
        found.append((await answers.__anext__())[0])
        task = asyncio.create_task(answers.__anext__())
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return found

    assert asyncio.run(main()) == [0]
    assert stopped == [True]


def test_the_event_loop_stays_free(tiny: Generator) -> None:
    async def main() -> int:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        ticker = asyncio.create_task(tick())
        answers = await tiny.abatch([PROMPT] * 8, max_tokens=50, ignore_eos=True)
        ticker.cancel()
        assert len(answers) == 8
        return ticks

    # A turn for the other task at least with each token of an answer.
    assert asyncio.run(main()) > 50


@pytest.mark.parametrize("source", [list, later], ids=["list", "async"])
def test_closing_the_generator_ends_a_batch(source: Any) -> None:
    generator = Generator("demo")
    threading.Timer(0.2, generator.close).start()

    def run() -> None:
        if source is list:
            generator.batch(Outstanding(), max_tokens=50)
        else:
            asyncio.run(generator.abatch(later(Outstanding()), max_tokens=50))

    with pytest.raises((GenerationCancelled, ClosedError)):
        run()
    with pytest.raises(ClosedError):
        generator.batch([PROMPT])


CTRL_C = f"""
import _thread, threading
from phicandle import Generator

with Generator("demo") as generator:
    threading.Timer(0.3, _thread.interrupt_main).start()
    try:
        generator.batch((prompt for prompt in iter(lambda: {PROMPT!r}, None)), max_tokens=20)
    except KeyboardInterrupt:
        print("interrupted", generator.stats.active >= 0)
    while generator.stats.active or generator.stats.queued:
        pass
print("idle")
"""


def test_ctrl_c_ends_a_batch() -> None:
    done = subprocess.run([sys.executable, "-c", CTRL_C], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted True\nidle\n", "")


def test_progress_is_told_after_each_prompt(demo: Generator) -> None:
    told: list[tuple[int, int | None]] = []
    demo.batch(PROMPTS, max_tokens=2, progress=lambda done, total: told.append((done, total)))
    assert told == [(done, len(PROMPTS)) for done in range(1, len(PROMPTS) + 1)]
    told.clear()
    for _ in demo.batch_stream(
        iter([*PROMPTS, ""]), n=2, return_exceptions=True, progress=lambda *now: told.append(now)
    ):
        pass
    assert told == [(done, None) for done in range(1, len(PROMPTS) + 2)]

    def fail(done: int, total: int | None) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        demo.batch(PROMPTS, progress=fail)
    assert idle(demo)


def test_a_bar_is_not_drawn_where_there_is_no_terminal() -> None:
    code = f"""
from phicandle import Generator
with Generator("demo") as generator:
    print(len(generator.batch({PROMPTS!r}, max_tokens=2, progress=True)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{len(PROMPTS)}\n", "")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pty")
def test_a_bar_is_drawn_on_a_terminal() -> None:
    import os
    import pty

    code = f"""
from phicandle import Generator
with Generator("demo") as generator:
    generator.batch({PROMPTS!r}, max_tokens=2, progress=True)
    generator.batch(iter({PROMPTS!r}), max_tokens=2, progress=True)
"""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", code], stderr=theirs, env={**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    )
    os.close(theirs)
    drawn = b""
    while True:
        try:
            read = os.read(ours, 4096)
        except OSError:  # Linux's way of saying that the other end is closed.
            break
        if not read:
            break
        drawn += read
    os.close(ours)
    assert child.wait(timeout=60) == 0
    assert f"{len(PROMPTS)}/{len(PROMPTS)} prompts".encode() in drawn
    assert f"answering {len(PROMPTS)} prompts".encode() in drawn


@pytest.mark.parametrize("prompts", [PROMPT, b"ice", {"role": "user"}, 5, None])
def test_a_batch_wants_an_iterable_of_prompts(demo: Generator, prompts: Any) -> None:
    for call in (demo.batch, demo.batch_iter, demo.batch_stream, demo.abatch_iter, demo.abatch_stream):
        with pytest.raises(InvalidParameterError) as caught:
            call(prompts)
        assert caught.value.parameter == "prompts"


@pytest.mark.parametrize(
    ("given", "parameter"),
    [
        ({"progress": 1}, "progress"),
        ({"return_exceptions": 1}, "return_exceptions"),
        ({"max_tokens": "5"}, "max_tokens"),
        ({"temprature": 0.0}, "temprature"),
        ({"n": 0}, "n"),
    ],
)
def test_wrong_arguments_are_found_at_once(demo: Generator, given: dict[str, Any], parameter: str) -> None:
    for call in (demo.batch, demo.batch_iter, demo.batch_stream, demo.abatch_iter, demo.abatch_stream):
        with pytest.raises(InvalidParameterError) as caught:
            call(PROMPTS, **given)
        assert caught.value.parameter == parameter
    for params in ("x", [SamplingParams(), None], 5, {}):
        with pytest.raises(InvalidParameterError) as caught:
            demo.batch(PROMPTS[:2], params)
        assert caught.value.parameter == "params"
    with pytest.raises(InvalidParameterError):
        demo.batch_iter(PROMPTS, ordered=1)


def test_prompts_that_take_long_to_come_do_not_hold_answers_back(demo: Generator) -> None:
    taken = []

    def slow() -> Iterator[str]:
        for prompt in PROMPTS:
            time.sleep(0.03)
            taken.append(prompt)
            yield prompt

    first = next(demo.batch_iter(slow(), max_tokens=1))
    assert first[0] == 0
    assert len(taken) < len(PROMPTS)
