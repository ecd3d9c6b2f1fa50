"""Answers that are stopped: in every way, in every phase, at random instants, and what must stay as it was."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from concurrency.cancel import CASES, Case, Work, work_of
from conftest import PROMPT, repeats
from gguf_files import write_tiny
from test_stream import ENDLESS, LONG_PROMPT, idle

from phicandle import GenerationCancelled, Generator

SLOTS = 4
NEIGHBOUR = {"seed": 3, "max_tokens": 60, "ignore_eos": True}
NEXT = {"seed": 4, "max_tokens": 8, "ignore_eos": True}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Work]:
    # Of more layers than the other tests' model, so that an answer is seldom complete before it is stopped.
    path = tmp_path_factory.mktemp("models") / "deep.gguf"
    write_tiny(path, context=8192, layers=12)
    with Generator(path, max_batch=SLOTS) as generator:
        yield work_of(generator, PROMPT, LONG_PROMPT[:4000], SLOTS, 1800)


@pytest.fixture(scope="module")
def alone(work: Work) -> tuple[str, str]:
    """What the neighbour and the next request write when nothing is stopped."""
    return work.generator.generate(PROMPT, **NEIGHBOUR).text, work.generator.generate("ice", **NEXT).text


def check(work: Work, case: Case, alone: tuple[str, str]) -> str | None:
    """Stops an answer beside another, checks what must hold, and returns how it ended."""
    generator = work.generator
    neighbour = generator.stream(PROMPT, **NEIGHBOUR)
    stopped = work.stop(case)
    assert neighbour.result().text == alone[0], case
    assert generator.generate("ice", **NEXT).text == alone[1], case
    assert idle(generator), case
    assert generator.stats.kv_bytes == 0, case
    if stopped.text is not None:
        # On a busy machine, the answer may be complete before its stop has its turn.
        expected = {"length", "timeout" if case.way == "timeout" else "cancelled"}
        assert stopped.finish_reason in expected, case
        prompt = work.long if case.phase == "prompt" else work.short
        tokens = min(len(stopped.text) + 20, work.most)
        whole = generator.generate(prompt, seed=case.seed, max_tokens=tokens, ignore_eos=True).text
        # Nothing follows, so bytes that waited for the rest of a character are told of as they are.
        assert whole.startswith(stopped.text.rstrip("\ufffd")), case
        if case.phase == "writing":
            assert stopped.text, case
    return stopped.finish_reason


@pytest.mark.parametrize(("way", "phase"), CASES)
def test_a_stop_keeps_the_text_and_leaves_the_others_alone(
    work: Work, alone: tuple[str, str], way: str, phase: str
) -> None:
    check(work, Case(way, phase, work.spans[phase] / 2, 5), alone)


def test_stops_at_random_instants(work: Work, alone: tuple[str, str]) -> None:
    count = repeats(60, 400)
    reasons = Counter(check(work, case, alone) for case in work.cases(count, 11))
    print(f"{count} stops: {dict(reasons)}")
    assert reasons["length"] < count // 4


def test_a_stopped_answer_in_the_queue_never_starts(tiny_file: Path) -> None:
    with Generator(tiny_file, max_batch=1) as generator:
        running = generator.stream(PROMPT, **ENDLESS)
        next(running)
        waiting = [generator.stream("ice", seed=number, **ENDLESS) for number in range(3)]
        waiting[1].cancel()
        answer = waiting[1].result()
        assert (answer.finish_reason, answer.text, answer.usage.completion_tokens) == ("cancelled", "", 0)
        # The place of one that ends goes to the next that still wants it.
        waiting[0].cancel()
        running.cancel()
        assert next(waiting[2])
        waiting[2].close()
        assert idle(generator)
        assert generator.stats.kv_bytes == 0


def test_what_is_ahead_of_its_reader_can_still_be_read_after_a_stop(tiny: Generator) -> None:
    finished = tiny.stats.finished
    stream = tiny.stream(PROMPT, seed=2, max_tokens=30, ignore_eos=True)
    while tiny.stats.finished == finished:
        pass
    stream.cancel()
    assert stream.result().text == tiny.generate(PROMPT, seed=2, max_tokens=30, ignore_eos=True).text
    assert stream.result().finish_reason == "length"


def test_a_closed_generator_ends_the_tasks_of_a_loop_in_another_thread(tiny_file: Path) -> None:
    generator = Generator(tiny_file, max_batch=4)
    outcomes: list[object] = []

    async def main() -> None:
        answers = (generator.agenerate(PROMPT, **ENDLESS) for _ in range(3))
        outcomes.extend(await asyncio.gather(*answers, return_exceptions=True))

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    while generator.stats.active + generator.stats.queued < 3:
        time.sleep(0.001)
    generator.close()
    thread.join(20)
    assert not thread.is_alive()
    assert [type(outcome) for outcome in outcomes] == [GenerationCancelled] * 3


ASYNC_INTERRUPT = """
import asyncio, os, signal, sys, threading
from phicandle import Generator
generator = Generator(sys.argv[1])
async def main():
    stream = generator.astream(sys.argv[2], max_tokens=None, ignore_eos=True)
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    await stream.result()
try:
    asyncio.run(main())
except KeyboardInterrupt:
    while generator.stats.active:
        pass
    print("again", len(generator.generate("ice", max_tokens=5, ignore_eos=True).token_ids))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent with os.kill")
@pytest.mark.skipif(sys.version_info < (3, 11), reason="older loops do not cancel the task on Ctrl-C")
@pytest.mark.parametrize("prompt", ["ice hockey", LONG_PROMPT], ids=["decode", "prefill"])
def test_ctrl_c_ends_the_answer_of_a_task(tiny_file: Path, prompt: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ASYNC_INTERRUPT, tiny_file, prompt], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "again 5\n", "")


INTERRUPTS = """
import os, random, signal, sys, threading
from phicandle import Generator
generator = Generator(sys.argv[1])
endless = {"max_tokens": None, "ignore_eos": True}
draw = random.Random(1)
def read():
    for _ in generator.stream("ice", **endless):
        pass
calls = [
    lambda: generator.generate("ice", **endless),
    lambda: generator.generate("ice hockey " * 1500, **endless),
    read,
    lambda: generator.score("ice hockey " * 1500, ["cream"] * 20000),
]
caught = 0
for number in range(int(sys.argv[2])):
    timer = threading.Timer(draw.uniform(0.01, 0.06), os.kill, (os.getpid(), signal.SIGINT))
    try:
        timer.start()
        calls[number % len(calls)]()
        timer.join()
    except KeyboardInterrupt:
        caught += 1
    timer.join()
    while generator.stats.active or generator.stats.queued:
        pass
print(caught, len(generator.generate("ice", max_tokens=5, ignore_eos=True).token_ids))
"""


@pytest.mark.skipif(
    not hasattr(os, "kill") or sys.platform == "win32", reason="signals are sent with os.kill"
)
def test_every_ctrl_c_is_heard_and_ends_its_answer(tiny_file: Path) -> None:
    count = repeats(20, 100)
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTS, tiny_file, str(count)], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{count} 5\n", "")


def test_an_answer_that_is_stopped_twice_ends_once(tiny: Generator) -> None:
    finished = tiny.stats.finished
    stream = tiny.stream(PROMPT, **ENDLESS)
    next(stream)
    for stop in (stream.cancel, stream.close, stream.cancel):
        stop()
    assert stream.result() == stream.result()
    assert idle(tiny)
    assert tiny.stats.finished == finished + 1
