"""Threads that share one generator: the same answers as one after another, and a fair turn for each."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from conftest import PROMPT
from test_stream import ENDLESS, idle

from phicandle import Completion, Generator

SEEDS = range(40)


def test_answers_equal_serial_ones(tiny: Generator) -> None:
    def answer(seed: int) -> Completion:
        return tiny.generate(f"{PROMPT} {seed}", seed=seed, max_tokens=20)

    serial = [answer(seed) for seed in SEEDS]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(answer, SEEDS))
    assert [one.token_ids for one in together] == [one.token_ids for one in serial]
    assert [one.text for one in together] == [one.text for one in serial]


def test_streams_in_threads_equal_serial_answers(tiny: Generator) -> None:
    def answer(seed: int) -> str:
        return "".join(tiny.stream(PROMPT, seed=seed, max_tokens=20))

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(answer, SEEDS)) == [
            tiny.generate(PROMPT, seed=seed, max_tokens=20).text for seed in SEEDS
        ]


def test_no_thread_starves(tiny_file: Path) -> None:
    """Six threads ask again and again, two are answered at a time, until each has its answers: nobody waits for ever.

    How evenly they take turns is up to the system too, which may leave a thread that has its answer without a CPU.
    """
    answers = dict.fromkeys(range(6), 0)
    with Generator(tiny_file, max_batch=2) as generator:

        def ask(number: int) -> None:
            while not everybody.is_set():
                generator.generate(PROMPT, seed=number, max_tokens=5)
                answers[number] += 1
                if min(answers.values()) >= 10:
                    everybody.set()

        everybody = threading.Event()
        threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        answered = everybody.wait(timeout=120)
        everybody.set()
        for thread in threads:
            thread.join()
    assert answered, answers


def test_a_thread_computes_on_while_another_waits(tiny: Generator) -> None:
    """The GIL is free while the model computes: pure Python gets on."""
    steps = 0
    with tiny.stream(PROMPT, **ENDLESS) as stream:
        waiter = threading.Thread(target=lambda: stream.result())
        waiter.start()
        while steps < 200_000:
            steps += 1
        assert waiter.is_alive()
    waiter.join()
    assert idle(tiny)


def test_streams_of_many_threads_can_be_dropped_anywhere(tiny: Generator) -> None:
    def ask(number: int) -> None:
        for index, _ in enumerate(tiny.stream(PROMPT, seed=number, **ENDLESS)):
            if index >= number % 5:
                break

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(40)))
    assert idle(tiny)


def test_a_generator_can_be_closed_while_threads_use_it(tiny_file: object) -> None:
    generator = Generator(tiny_file)  # type: ignore[arg-type]
    outcomes: list[str] = []

    def ask() -> None:
        try:
            while True:
                generator.generate(PROMPT, max_tokens=10)
        except Exception as error:
            outcomes.append(type(error).__name__)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    generator.generate(PROMPT, max_tokens=10)
    generator.close()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 6
    assert set(outcomes) <= {"ClosedError", "GenerationCancelled"}
