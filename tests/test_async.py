"""Async streams: no threads, a free loop, cancellation."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import PROMPT
from test_stream import ENDLESS, LONG_PROMPT, idle

from phicandle import AsyncStream, Chunk, Completion, GenerationCancelled, GenerationTimeout, Generator


class NoReaders(asyncio.SelectorEventLoop):
    """A loop that cannot watch sockets, as Windows' proactor loop."""

    def add_reader(self, *_: Any) -> None:
        raise NotImplementedError

    def remove_reader(self, *_: Any) -> bool:
        raise NotImplementedError


def run(coroutine: Any, loop: type[asyncio.AbstractEventLoop] = asyncio.SelectorEventLoop) -> Any:
    """`asyncio.run` on a given kind of loop."""
    if sys.version_info >= (3, 11):
        with asyncio.Runner(loop_factory=loop) as runner:
            return runner.run(coroutine)
    made = loop()
    try:
        return made.run_until_complete(coroutine)
    finally:
        made.close()


async def collect(stream: AsyncStream) -> str:
    return "".join([chunk async for chunk in stream])


LOOPS = [asyncio.SelectorEventLoop, NoReaders]


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("seed", range(4))
def test_astream_gives_what_stream_gives(
    tiny: Generator, seed: int, loop: type[asyncio.AbstractEventLoop]
) -> None:
    expected = tiny.generate(PROMPT, seed=seed, max_tokens=50)

    async def main() -> Completion:
        stream = tiny.astream(PROMPT, seed=seed, max_tokens=50)
        assert await collect(stream) == expected.text == stream.text
        assert stream.done
        whole = await stream.result()
        assert whole.token_ids == expected.token_ids
        return await tiny.agenerate(PROMPT, seed=seed, max_tokens=50)

    assert run(main(), loop).text == expected.text


@pytest.mark.parametrize("loop", LOOPS)
def test_many_tasks_share_a_generator(tiny: Generator, loop: type[asyncio.AbstractEventLoop]) -> None:
    serial = [tiny.generate(PROMPT, seed=seed, max_tokens=25).text for seed in range(24)]

    async def main() -> list[str]:
        answers = await asyncio.gather(
            *(tiny.agenerate(PROMPT, seed=seed, max_tokens=25) for seed in range(24))
        )
        return [answer.text for answer in answers]

    threads = threading.active_count()
    assert run(main(), loop) == serial
    assert threading.active_count() == threads


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts threads in /proc")
def test_no_thread_per_call(tiny: Generator) -> None:
    def count() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    async def main() -> tuple[int, int]:
        await tiny.agenerate(PROMPT, max_tokens=2)
        before = count()
        streams = [tiny.astream(PROMPT, **ENDLESS) for _ in range(50)]
        # Chat templates are rendered on a thread of their own, which the system lists a moment longer than it runs.
        for _ in range(1000):
            if count() <= before:
                break
            await asyncio.sleep(0.01)
        during, running = count(), tiny.stats.active + tiny.stats.queued
        for stream in streams:
            stream.cancel()
        await asyncio.gather(*(stream.result() for stream in streams))
        return during - before, running

    more, running = run(main())
    assert more <= 0
    assert running == 50


def test_the_loop_runs_on_while_the_model_computes(tiny: Generator) -> None:
    async def main() -> float:
        gaps = []

        async def tick() -> None:
            last = time.perf_counter()
            while True:
                await asyncio.sleep(0.001)
                now = time.perf_counter()
                gaps.append(now - last)
                last = now

        ticker = asyncio.create_task(tick())
        await asyncio.gather(*(tiny.agenerate(LONG_PROMPT, max_tokens=50, ignore_eos=True) for _ in range(4)))
        ticker.cancel()
        assert len(gaps) > 10
        return max(gaps)

    print(f"longest gap between two ticks: {run(main()) * 1e3:.1f} ms")


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("prompt", [PROMPT, LONG_PROMPT], ids=["decode", "prefill"])
def test_cancelling_the_task_cancels_the_answer(
    tiny: Generator, prompt: str, loop: type[asyncio.AbstractEventLoop]
) -> None:
    async def main() -> None:
        task = asyncio.create_task(tiny.agenerate(prompt, **ENDLESS))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main(), loop)
    assert idle(tiny)


@pytest.mark.parametrize("turns", [1, 2, 3, 10])
def test_a_task_cancelled_in_any_turn_of_the_loop_cancels_the_answer(tiny: Generator, turns: int) -> None:
    async def main() -> None:
        stream = tiny.astream(PROMPT, **ENDLESS)
        task = asyncio.ensure_future(stream.result())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await stream.result()).finish_reason == "cancelled"

    run(main())
    assert idle(tiny)


def test_tasks_that_wait_for_one_stream_all_hear_of_its_end(tiny: Generator) -> None:
    async def main() -> None:
        for number in range(300):
            stream = tiny.astream(PROMPT, max_tokens=1 + number % 3, ignore_eos=True, seed=number)
            tasks = [asyncio.ensure_future(stream.result()) for _ in range(3)]
            # Some come while the answer is written or has just ended.
            for _ in range(number % 7):
                await asyncio.sleep(0)
            if number % 2:
                tasks.pop().cancel()
                stream.cancel()
            late = asyncio.ensure_future(stream.result())
            answers = await asyncio.wait_for(asyncio.gather(*tasks, late), 60.0)
            assert len({answer.text for answer in answers}) == 1

    run(main())


def test_wait_for_cancels_the_answer(tiny: Generator) -> None:
    async def main() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(tiny.agenerate(PROMPT, **ENDLESS), 0.05)

    run(main())
    assert idle(tiny)


def test_leaving_the_block_cancels(tiny: Generator) -> None:
    async def main() -> None:
        async with tiny.astream(PROMPT, **ENDLESS) as stream:
            async for _ in stream:
                break
        assert [chunk async for chunk in stream] == []
        assert (await stream.result()).finish_reason == "cancelled"
        await stream.aclose()

    run(main())
    assert idle(tiny)


def test_cancel_from_a_thread(tiny: Generator) -> None:
    async def main() -> Completion:
        stream = tiny.astream(PROMPT, **ENDLESS)
        threading.Timer(0.05, stream.cancel).start()
        return await stream.result()

    assert run(main()).finish_reason == "cancelled"


@pytest.mark.parametrize("loop", LOOPS)
def test_result_that_runs_out_leaves_the_answer_running(
    tiny: Generator, loop: type[asyncio.AbstractEventLoop]
) -> None:
    async def main() -> None:
        stream = tiny.astream(PROMPT, **ENDLESS)
        with pytest.raises(GenerationTimeout):
            await stream.result(timeout=0.05)
        assert not stream.done
        stream.cancel()
        assert (await stream.result()).finish_reason == "cancelled"

    run(main(), loop)


def test_timeout_ends_an_async_answer(tiny: Generator) -> None:
    assert run(tiny.agenerate(PROMPT, timeout=0.05, **ENDLESS)).finish_reason == "timeout"


def test_closing_the_generator_wakes_its_tasks(tiny_file: Path) -> None:
    async def main() -> None:
        generator = Generator(tiny_file)
        tasks = [asyncio.create_task(generator.agenerate(PROMPT, **ENDLESS)) for _ in range(3)]
        await asyncio.sleep(0.05)
        generator.close()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(outcome, GenerationCancelled)

    run(main())


def test_two_tasks_can_wait_for_one_stream(tiny: Generator) -> None:
    async def main() -> None:
        stream = tiny.astream(PROMPT, seed=4, max_tokens=60, ignore_eos=True)
        first, second = await asyncio.gather(stream.result(), stream.result())
        assert first.text == second.text == tiny.generate(PROMPT, seed=4, max_tokens=60, ignore_eos=True).text

    run(main())


class CountingWakes(asyncio.SelectorEventLoop):
    """A loop that counts how often a socket that it watches has something to read."""

    wakes = 0

    def add_reader(self, fd: Any, callback: Any, *args: Any) -> None:
        def counted() -> None:
            self.wakes += 1
            callback(*args)

        super().add_reader(fd, counted)


@pytest.mark.parametrize("n", [1, 3])
def test_a_whole_answer_wakes_its_loop_for_the_end_alone(tiny: Generator, n: int) -> None:
    async def main() -> None:
        whole = await tiny.agenerate(PROMPT, n=n, seed=1, max_tokens=100, ignore_eos=True)
        assert [len(choice.token_ids) for choice in whole.choices] == [100] * n
        loop = asyncio.get_running_loop()
        assert isinstance(loop, CountingWakes)
        # Each answer's end, and a chunk that came before the first look.
        assert loop.wakes <= n + 1

    run(main(), CountingWakes)


def test_who_iterates_hears_of_chunks_although_another_waits_for_the_whole(tiny_file: Path) -> None:
    async def three(stream: AsyncStream) -> int:
        """Takes up to three chunks, then cancels."""
        count = 0
        async for _ in stream:
            count += 1
            if count == 3:
                break
        stream.cancel()
        return count

    async def heard(generator: Generator) -> tuple[int, str]:
        """Chunks, and how the answer ended after them. Nothing is there yet when both begin to wait."""
        first = generator.astream(PROMPT, **ENDLESS)
        stream = generator.astream(PROMPT, **ENDLESS)
        whole = asyncio.ensure_future(stream.result())
        for _ in range(5):
            await asyncio.sleep(0)
        count = asyncio.ensure_future(three(stream))
        for _ in range(5):
            await asyncio.sleep(0)
        first.cancel()
        return await count, (await whole).finish_reason

    with Generator(tiny_file, max_batch=1) as generator:
        # On a machine that is busy with other things an answer may end by itself while its reader waits for a CPU.
        assert any(run(heard(generator)) == (3, "cancelled") for _ in range(5))


@pytest.mark.parametrize("n", [1, 2])
def test_who_iterates_gets_all_although_others_wait_for_the_whole(tiny: Generator, n: int) -> None:
    async def all_of(stream: AsyncStream) -> list[Chunk]:
        return [chunk async for chunk in stream]

    async def main() -> None:
        stream = tiny.astream(PROMPT, seed=3, max_tokens=60, n=n)
        iterated = asyncio.ensure_future(all_of(stream))
        wholes = [asyncio.ensure_future(stream.result()) for _ in range(2)]
        chunks = await iterated
        for whole in wholes:
            texts = ["".join(chunk for chunk in chunks if chunk.index == index) for index in range(n)]
            assert texts == [choice.text for choice in (await whole).choices]

    run(main())


def test_two_loops_in_two_threads(tiny: Generator) -> None:
    expected = tiny.generate(PROMPT, seed=6, max_tokens=40).text
    answers: list[str] = []

    def work() -> None:
        answers.extend(run(tiny.agenerate(PROMPT, seed=6, max_tokens=40)).text for _ in range(5))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [expected] * 10


def test_astream_needs_a_running_loop(tiny: Generator) -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        tiny.astream(PROMPT)
