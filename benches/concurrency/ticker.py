"""Whether Python goes on while the engine computes: a tick every 10 ms beside 16 streams, of a task and of a thread."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comparison.points import PHI, SMOL

from .answers import together
from .measurement import GREEDY, Bench, Row, high, median
from .tick import STEP, note, tick

if TYPE_CHECKING:
    from phicandle import Generator

TITLE = "A ticker beside 16 streams"
ABOUT = (
    "A task of an event loop wants to run every 10 ms while the same loop reads 16 streams; and so does a thread "
    "while 16 other threads read one stream each. How late each tick comes is noted; the latest must be late by less "
    "than 5 ms. The engine computes with as many threads as there are CPUs, so what it costs to get one of them back "
    "from the system is part of it. For comparison, another process ticks at the same time: what is late there was not "
    "the GIL or an event loop but the system, or on a virtual machine its host, that gave nobody a CPU. And a thread "
    "ticks for two seconds while nothing is computed."
)
SECONDS = {PHI: 45.0, SMOL: 30.0}

LATE = 0.005
CALLERS, PROMPT = 16, 60


def measure(bench: Bench) -> dict[str, Any]:
    """Both tickers in turns, and one with nobody beside it."""
    rounds = bench.rounds(3, 5)
    settings = {**GREEDY, "max_tokens": 8 if bench.quick else 24 if bench.large else 96}
    found: dict[str, Any] = {"task": [], "thread": [], "process": [], "alone": []}
    with bench.open_forgetful(context_length=4096) as generator:
        prompts = [bench.prose(generator, PROMPT, PROMPT * i) for i in range(CALLERS)]
        generator.generate(prompts[0], max_tokens=2, **GREEDY)
        for number in range(rounds):
            with _another_process(found["process"]):
                found["task"].append(asyncio.run(_beside_tasks(generator, prompts, settings)))
                found["thread"].append(_beside_threads(generator, prompts, settings))
            worst = {name: max(found[name][-1]) * 1e3 for name in ("task", "thread", "process")}
            bench.say(
                f"round {number + 1}/{rounds}: at most {worst['task']:.1f} ms late in a task, "
                f"{worst['thread']:.1f} ms in a thread, {worst['process']:.1f} ms in another process"
            )
        late: list[float] = []
        stop = threading.Event()
        ticker = threading.Thread(target=tick, args=(late, stop))
        ticker.start()
        time.sleep(0.5 if bench.quick else 2.0)
        stop.set()
        ticker.join()
        found["alone"].append(late)
    return found


async def _beside_tasks(
    generator: Generator, prompts: list[list[int]], settings: dict[str, Any]
) -> list[float]:
    """How late each tick of a task was."""
    late: list[float] = []

    async def ticks() -> None:
        due = time.perf_counter() + STEP
        while True:
            await asyncio.sleep(due - time.perf_counter())
            due = note(late, due)

    async def read(prompt: list[int]) -> None:
        async for _ in generator.astream(prompt, **settings):
            pass

    ticker = asyncio.ensure_future(ticks())
    await asyncio.gather(*map(read, prompts))
    ticker.cancel()
    return late


def _beside_threads(generator: Generator, prompts: list[list[int]], settings: dict[str, Any]) -> list[float]:
    """How late each tick of a thread was."""
    late: list[float] = []
    stop = threading.Event()

    def read(prompt: list[int]) -> None:
        for _ in generator.stream(prompt, **settings):
            pass

    ticker = threading.Thread(target=tick, args=(late, stop))
    ticker.start()
    together([lambda prompt=prompt: read(prompt) for prompt in prompts])  # type: ignore[misc]
    stop.set()
    ticker.join()
    return late


@contextmanager
def _another_process(late: list[list[float]]) -> Iterator[None]:
    """Ticks in another process meanwhile, and adds its list to `late`."""
    program = [sys.executable, str(Path(__file__).with_name("tick.py"))]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield
        finally:
            output, _ = process.communicate()
        late.append(json.loads(output))


def rows(found: dict[str, Any]) -> list[Row]:
    """The latest tick of each round, and the 99th of a hundred."""
    table = [
        Row("ticks beside streams", sum(len(late) for name in ("task", "thread") for late in found[name]))
    ]
    for name, of, most in (
        ("task", "of a task", LATE),
        ("thread", "of a thread", LATE),
        ("process", "of another process", None),
    ):
        table += [
            Row(f"{of}: the latest", median(map(max, found[name])), "ms", at_most=most),
            Row(f"{of}: the 99th of 100", median(map(high, found[name])), "ms"),
        ]
    return [*table, Row("of a thread, nothing computed: the latest", max(found["alone"][0]), "ms")]
