"""Many callers at once, of every kind: each text is the one that it is alone, and nothing is left over."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import PROMPT, repeats
from test_stream import ENDLESS, idle

from phicandle import ContextOverflowError, Generator, InvalidParameterError, QueueFullError, SamplingParams

SEEDS = range(24)
LIMITS: dict[str, Any] = {"max_tokens": 12, "ignore_eos": True}


def mixed_load(demo: Generator, serial: list[str], count: int) -> None:
    """`count` calls of every kind from each of 32 threads; each text must be the serial one."""

    def call(draw: random.Random) -> None:
        seed = draw.choice(SEEDS)
        kind = draw.randrange(8)
        if kind == 0:
            assert "".join(demo.stream(PROMPT, seed=seed, **LIMITS)) == serial[seed]
        elif kind == 1:
            assert demo.generate(PROMPT, seed=seed, **LIMITS).text == serial[seed]
        elif kind == 2:
            assert asyncio.run(demo.agenerate(PROMPT, seed=seed, **LIMITS)).text == serial[seed]
        elif kind == 3:
            stream = demo.stream(PROMPT, seed=seed, **LIMITS)
            next(stream)
            stream.cancel()
            assert serial[seed].startswith(stream.result().text.rstrip("\ufffd"))
        elif kind == 4:
            answer = demo.generate(PROMPT, seed=seed, timeout=draw.uniform(1e-6, 0.02), **LIMITS)
            assert serial[seed].startswith(answer.text.rstrip("\ufffd"))
        elif kind == 5:
            seeds = draw.sample(SEEDS, 2)
            answers = demo.batch([PROMPT] * 2, [SamplingParams(seed=seed, **LIMITS) for seed in seeds])
            assert [answer.text for answer in answers] == [serial[seed] for seed in seeds]
        elif kind == 6:
            with pytest.raises(InvalidParameterError):
                demo.generate(PROMPT, temperature=-1.0)
        else:
            with pytest.raises(ContextOverflowError):
                demo.generate([1] * demo.info.context_length)

    def work(number: int) -> None:
        draw = random.Random(number)
        for _ in range(count):
            call(draw)

    with ThreadPoolExecutor(32) as pool:
        list(pool.map(work, range(32)))
    assert idle(demo)
    assert demo.stats.kv_bytes == 0


def test_mixed_calls_of_32_threads_give_their_serial_texts(demo: Generator) -> None:
    serial = [demo.generate(PROMPT, seed=seed, **LIMITS).text for seed in SEEDS]
    threads = threading.active_count()
    mixed_load(demo, serial, 100)
    assert threading.active_count() == threads


def held() -> tuple[int, int, int]:
    """Open file descriptors, threads of the process (Python's and others), and resident pages."""
    gc.collect()
    resident = int(Path("/proc/self/statm").read_text().split()[1])
    files, threads = (sum(1 for _ in Path("/proc/self", kind).iterdir()) for kind in ("fd", "task"))
    return files, threads, resident


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="SKIPPED: reads /proc/self (Linux)")
def test_mixed_calls_again_and_again_hold_no_more(demo: Generator) -> None:
    serial = [demo.generate(PROMPT, seed=seed, **LIMITS).text for seed in SEEDS]
    long = repeats(0, 1) == 1
    sizes = []
    for _ in range(repeats(3, 20)):
        mixed_load(demo, serial, 100 if long else 10)
        sizes.append(held())
    print(*sizes)
    assert {files for files, _, _ in sizes} == {sizes[0][0]}
    assert {threads for _, threads, _ in sizes} == {sizes[0][1]}
    if long:
        # The first half warms up: the allocator's arenas of 32 threads fill.
        assert sizes[-1][2] <= 1.02 * sizes[10][2]


def test_a_full_queue_says_when_to_come_again(tiny_file: Path) -> None:
    with Generator(tiny_file, max_batch=1, max_queue=2) as generator:
        streams = [generator.stream(PROMPT, **ENDLESS) for _ in range(3)]
        with pytest.raises(QueueFullError) as caught:
            generator.generate(PROMPT)
        assert caught.value.retry_after > 0
        streams[0].close()
        streams[1].close()
        assert idle_but_one(generator)
        # There is room again.
        streams.append(generator.stream(PROMPT, **ENDLESS))
        for stream in streams:
            stream.close()
        assert idle(generator)


def idle_but_one(generator: Generator) -> bool:
    """Waits until one request is left."""
    return any(generator.stats.active + generator.stats.queued == 1 for _ in range(1_000_000))


def test_ten_thousand_short_requests_in_a_row(tiny_file: Path) -> None:
    with Generator(tiny_file) as generator:
        count = 10_000
        first = generator.generate("ice", seed=1, max_tokens=2, ignore_eos=True)
        for _ in range(count):
            answer = generator.generate("ice", seed=1, max_tokens=2, ignore_eos=True)
            assert answer.token_ids == first.token_ids
        assert generator.stats.finished == count + 1
        assert generator.stats.kv_bytes == 0
