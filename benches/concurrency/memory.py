"""Memory over 10,000 short requests."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from comparison.points import SMOL

from .measurement import Bench, NotMeasuredError, Row

TITLE = "10,000 short requests"
ABOUT = (
    "16 threads ask for 10,000 short answers in all, of 2 tokens each, to prompts of 8 tokens, every twentieth of "
    "100; every tenth call is a stream that is left after its first piece. The context is 2,048 tokens, so that "
    "everything that may be kept of earlier prompts has been filled many times. The memory is what the process holds "
    "for itself (`RssAnon` of Linux); growth is the most of it in the last nine tenths of the requests over what it "
    "was after the first tenth."
)
SECONDS = {SMOL: 110.0}

CALLERS, REQUESTS, CONTEXT = 16, 10_000, 2048
#: Tokens of a prompt.
SHORT, LONG = 8, 100
#: The growth that "flat" allows.
FLAT = 0.02


def measure(bench: Bench) -> dict[str, Any]:
    """Every thread takes its share."""
    requests = 400 if bench.quick else REQUESTS
    every = requests // 20
    samples: list[tuple[int, int]] = []
    done = iter(range(requests))
    lock = threading.Lock()
    failed: list[str] = []
    with bench.open(context_length=CONTEXT) as generator:
        prose = bench.prose(generator, 4000)
        size = len(prose)

        def work() -> None:
            while True:
                with lock:
                    number = next(done, None)
                    if number is None:
                        return
                    if number % every == 0:
                        samples.append((number, _private()))
                        if number % (5 * every) == 0:
                            bench.say(f"{number} of {requests} requests, {samples[-1][1] / 1e6:.1f} MB")
                # Every prompt begins elsewhere in the text; some are long enough to be worth keeping.
                first = number * 7 % (size - LONG)
                prompt = prose[first : first + (LONG if number % 20 == 0 else SHORT)]
                try:
                    if number % 10 == 9:
                        for _ in generator.stream(prompt, max_tokens=8, ignore_eos=True):
                            break
                    else:
                        generator.generate(prompt, max_tokens=2, ignore_eos=True)
                except Exception as error:  # told of in the result
                    failed.append(f"{type(error).__name__}: {error}")

        threads = [threading.Thread(target=work) for _ in range(CALLERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        samples.append((requests, _private()))
    return {"requests": requests, "samples": samples, "failed": failed[:10]}


def _private() -> int:
    """Bytes that the process holds for itself."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    raise NotMeasuredError("this system does not say what a process holds for itself")


def rows(found: dict[str, Any]) -> list[Row]:
    """The growth."""
    tenth = found["requests"] / 10
    first = [held for number, held in found["samples"] if number <= tenth][-1]
    last = max(held for number, held in found["samples"] if number > tenth)
    return [
        Row("memory after the first tenth", first, "MB"),
        Row("most memory afterwards", last, "MB"),
        Row("growth", last / first - 1, "%", at_most=FLAT),
        Row("requests that failed", len(found["failed"]), at_most=0.0),
    ]
