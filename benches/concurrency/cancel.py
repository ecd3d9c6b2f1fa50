"""Answers that are stopped at random instants, in every way and every phase: how long the slowest takes to be gone."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from comparison.points import PHI, SMOL

if TYPE_CHECKING:
    from phicandle import AsyncStream, Generator, Stream

    from .measurement import Bench, Row

TITLE = "Stopping an answer"
ABOUT = (
    "Answers are stopped at 200 random instants (with the large model once in each way and phase: 34): while they "
    "wait for others, while their prompt is read, while they write, with a reader that waits for the next piece and "
    "with nobody who reads; by `cancel()`, `close()`, the end of a `with` block, an error in it, garbage collection, "
    "`timeout=`, the cancellation of a task, `aclose()` and `asyncio.wait_for`. Another answer is written beside "
    "each. The time is that from the call to the moment when the engine counts the answer as ended and its memory is "
    "free. What was written stays readable, the neighbour's text and that of the next request are what they are "
    "alone, and afterwards no keys and values are held."
)
SECONDS = {PHI: 180.0, SMOL: 60.0}

#: The slowest stop that a caller should see, in seconds.
MOST = 0.25
STOPS = 200
SLOTS = 4

#: What ends the answer of a thread, and of a task.
HERE = ("cancel", "close", "with", "error", "garbage")
TASKS = ("task", "aclose", "wait_for")
#: Every way in every phase where there is such a thing: an answer that a thread waits for is no garbage.
CASES = (
    *((way, phase) for phase in ("queued", "prompt", "writing", "unread") for way in HERE),
    *((way, "waiting") for way in ("cancel", "close")),
    *((way, phase) for phase in ("queued", "prompt", "waiting") for way in (*TASKS, "timeout")),
)


class Case(NamedTuple):
    """When and how to stop."""

    way: str
    phase: str
    #: Seconds from the call, or from the first piece of text, to the stop.
    delay: float
    seed: int


@dataclass
class Stopped:
    """What came of it."""

    way: str
    phase: str
    #: From the stop to the end.
    seconds: float
    #: What was written by then; `None` where nobody is left to ask.
    text: str | None
    finish_reason: str | None


@dataclass
class Work:
    """What is asked while it is stopped. `slots` is the generator's `max_batch`."""

    generator: Generator
    short: str | list[int]
    long: str | list[int]
    slots: int
    #: `max_tokens` of what is stopped: for as many at once as there are slots, the context has room.
    most: int
    #: The longest time to wait before a stop, in seconds: by the phase.
    spans: dict[str, float]

    def settings(self, seed: int) -> dict[str, Any]:
        """An answer that does not end before it is stopped."""
        return {"seed": seed, "max_tokens": self.most, "ignore_eos": True}

    def cases(self, count: int, seed: int) -> Iterator[Case]:
        """`count` cases at random instants, every way and phase in turn."""
        draw = random.Random(seed)  # noqa: S311 - not for secrets
        for number in range(count):
            way, phase = CASES[number % len(CASES)]
            yield Case(way, phase, draw.uniform(0.0, self.spans[phase]), draw.getrandbits(32))

    def stop(self, case: Case) -> Stopped:
        """Begins an answer and stops it."""
        with contextlib.ExitStack() as others:
            if case.phase == "queued":
                for number in range(self.slots):
                    others.enter_context(self.generator.stream(self.short, **self.settings(number)))
            if case.way == "timeout":
                return self._run_out(case)
            if case.way in TASKS:
                return asyncio.run(self._stop_task(case))
            return self._stop_here(case)

    def _prompt(self, case: Case) -> str | list[int]:
        return self.long if case.phase == "prompt" else self.short

    def _run_out(self, case: Case) -> Stopped:
        limit = max(case.delay, 1e-6)
        started = time.perf_counter()
        answer = self.generator.generate(self._prompt(case), timeout=limit, **self.settings(case.seed))
        seconds = time.perf_counter() - started - limit
        return Stopped(case.way, case.phase, seconds, answer.text, answer.finish_reason)

    def _stop_here(self, case: Case) -> Stopped:
        stream: Stream | None = self.generator.stream(self._prompt(case), **self.settings(case.seed))
        assert stream is not None  # noqa: S101 - for the type checker
        reader = None
        if case.phase == "writing":
            next(stream)
        elif case.phase == "waiting":
            reader = threading.Thread(target=stream.result)
            reader.start()
        time.sleep(case.delay)
        ended = self.generator.stats.finished
        began = time.perf_counter()
        if case.way == "cancel":
            stream.cancel()
        elif case.way == "close":
            stream.close()
        elif case.way == "with":
            with stream:
                pass
        elif case.way == "error":
            with contextlib.suppress(ZeroDivisionError), stream:
                raise ZeroDivisionError
        else:
            cycle: list[Any] = [stream]
            cycle.append(cycle)
            stream = None
            del cycle
            gc.collect()
        if stream is None:
            while self.generator.stats.finished == ended:
                time.sleep(0.0002)
            return Stopped(case.way, case.phase, time.perf_counter() - began, None, None)
        answer = stream.result()
        seconds = time.perf_counter() - began
        if reader is not None:
            reader.join()
        return Stopped(case.way, case.phase, seconds, answer.text, answer.finish_reason)

    async def _stop_task(self, case: Case) -> Stopped:
        stream = self.generator.astream(self._prompt(case), **self.settings(case.seed))
        task = asyncio.ensure_future(self._read(stream, case))
        await asyncio.sleep(case.delay)
        began = time.perf_counter()
        if case.way == "task":
            task.cancel()
        elif case.way == "aclose":
            await stream.aclose()
        else:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(task, 0.0)
        answer = await stream.result()
        seconds = time.perf_counter() - began
        with contextlib.suppress(asyncio.CancelledError):
            await task
        return Stopped(case.way, case.phase, seconds, answer.text, answer.finish_reason)

    async def _read(self, stream: AsyncStream, case: Case) -> None:
        if case.seed % 2:
            await stream.result()
        else:
            async for _ in stream:
                pass


def work_of(
    generator: Generator, short: str | list[int], long: str | list[int], slots: int, most: int
) -> Work:
    """Work whose instants fall where they should: while the prompt is read, and while about 30 tokens are written."""
    settings: dict[str, Any] = {"max_tokens": 32, "ignore_eos": True}
    generator.generate(short, **settings)
    writing = generator.generate(short, **settings).metrics.decode_s
    prompt = generator.generate(long, max_tokens=1).metrics.prefill_s
    spans = dict.fromkeys(("queued", "writing", "waiting", "unread"), writing)
    return Work(generator, short, long, slots, most, spans | {"prompt": 0.9 * prompt})


def measure(bench: Bench) -> dict[str, Any]:
    """The stops, each beside another answer, and what is held after them."""
    count = len(CASES) if bench.quick or bench.large else STOPS
    # A prompt that takes seconds to read, with either model.
    length = 300 if bench.large else 1000
    with bench.open_forgetful(context_length=4096, max_batch=SLOTS) as generator:
        work = work_of(generator, bench.prose(generator, 40), bench.prose(generator, length, 40), SLOTS, 600)
        beside: dict[str, Any] = {"seed": 1, "ignore_eos": True}
        # More than a neighbour writes until the stop.
        alone = generator.generate(work.short, max_tokens=128 if bench.large else 600, **beside).token_ids
        stops, same, others = [], 0, 0
        for number, case in enumerate(work.cases(count, 1), 1):
            with generator.stream(work.short, max_tokens=len(alone), **beside) as neighbour:
                stops.append(work.stop(case))
                neighbour.cancel()
                other = neighbour.result()
            others += other.finish_reason == "cancelled" and other.token_ids == alone[: len(other.token_ids)]
            same += generator.generate(work.short, max_tokens=12, **beside).token_ids == alone[:12]
            if number % 20 == 0:
                slowest = max(stop.seconds for stop in stops)
                bench.say(f"{number}/{count} stops, the slowest {slowest * 1e3:.0f} ms")
        stats = generator.stats
    return {
        "stops": [{name: value for name, value in asdict(stop).items() if name != "text"} for stop in stops],
        "same_next": same,
        "same_beside": others,
        "active": stats.active,
        "kv_bytes": stats.kv_bytes,
    }


def rows(found: dict[str, Any]) -> list[Row]:
    """The slowest of all and of each phase, and what must not have changed."""
    from .measurement import Row

    stops = found["stops"]
    seconds = sorted(stop["seconds"] for stop in stops)
    phases = {phase: [stop["seconds"] for stop in stops if stop["phase"] == phase] for _, phase in CASES}
    return [
        Row("stops", len(stops)),
        Row("the slowest", seconds[-1], "ms", at_most=MOST),
        Row("the median", seconds[len(seconds) // 2], "ms"),
        *(Row(f"the slowest, {phase}", max(times), "ms") for phase, times in phases.items()),
        Row("neighbours with the text that they have alone", found["same_beside"], at_least=len(stops)),
        Row("next requests with the text that they have alone", found["same_next"], at_least=len(stops)),
        Row("requests left active", found["active"], at_most=0.0),
        Row("keys and values left", found["kv_bytes"], "bytes", at_most=0.0),
    ]
