"""Calls made at the same time, and answers whose tokens are timed one by one."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from typing_extensions import Self

    from phicandle import Completion, Generator

T = TypeVar("T")


def together(calls: Sequence[Callable[[], T]]) -> tuple[list[T], float]:
    """Makes each call in a thread of its own, all at once. Returns their results, and the seconds that all took."""
    barrier = threading.Barrier(len(calls) + 1)
    results: list[Any] = [None] * len(calls)
    errors: list[BaseException] = []

    def run(i: int, call: Callable[[], T]) -> None:
        barrier.wait()
        try:
            results[i] = call()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(calls)]
    for thread in threads:
        thread.start()
    barrier.wait()
    started = time.perf_counter()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - started
    if errors:
        raise errors[0]
    return results, seconds


@dataclass
class Follower:
    """An answer that a thread of its own reads, noting when each piece comes."""

    generator: Generator
    prompt: list[int]
    settings: dict[str, Any]
    #: When a piece came, and of how many tokens it was.
    arrivals: list[tuple[float, int]] = field(default_factory=list)
    #: The answer, once it has ended.
    completion: Completion | None = None

    def __enter__(self) -> Self:
        self._stream = self.generator.stream(self.prompt, **self.settings)
        self._thread = threading.Thread(target=self._read)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.cancel()
        self._thread.join()

    def _read(self) -> None:
        for chunk in self._stream:
            if chunk:
                self.arrivals.append((time.perf_counter(), len(chunk.token_ids)))
        self.completion = self._stream.partial()

    def wait_for(self, pieces: int) -> None:
        """Waits until so many pieces have come, or the answer has ended."""
        while len(self.arrivals) < pieces and self._thread.is_alive():
            time.sleep(0.01)


def gaps(arrivals: Sequence[tuple[float, int]]) -> list[float]:
    """Seconds between each piece and the one before."""
    return [after[0] - before[0] for before, after in itertools.pairwise(arrivals)]
