"""What a measurement is given, and what it makes of its samples."""

from __future__ import annotations

import importlib
import inspect
import statistics
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from comparison.points import PHI, SMOL

if TYPE_CHECKING:
    from typing_extensions import Self

    from phicandle import Generator

ROOT = Path(__file__).resolve().parent.parent.parent
MODELS = (PHI, SMOL)
#: Every measurement, in the order of the page.
NAMES = ("callers", "gaps", "prefix", "speculation", "idle", "generators", "ticker", "cancel", "memory")
#: The likeliest token each time, as many as are asked for.
GREEDY: dict[str, Any] = {"temperature": 0.0, "repeat_penalty": 1.0, "ignore_eos": True}
#: Where prompts come from: this repository's own prose.
PROSE = ("DESIGN.md", "CONTRIBUTING.md", "README.md")


class NotMeasuredError(Exception):
    """Why something cannot be measured here, in a sentence."""


@dataclass(frozen=True)
class Row:
    """A figure, and the target that it must reach, if there is one."""

    what: str
    #: Seconds for "s" and "ms", a share for "%", a factor for "x"; `None` = not measured.
    value: float | None
    unit: str = ""
    at_least: float | None = None
    at_most: float | None = None
    #: Why it was not measured.
    reason: str = ""

    @property
    def bound(self) -> float | None:
        """The target."""
        return self.at_most if self.at_least is None else self.at_least

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; `None` without a target, and where nothing was measured."""
        if self.value is None or self.bound is None:
            return None
        return self.value >= self.bound if self.at_least is not None else self.value <= self.bound

    @property
    def text(self) -> str:
        """The figure, for people."""
        return "not measured" if self.value is None else show(self.value, self.unit)

    @property
    def target(self) -> str:
        """The target, for people."""
        if self.bound is None:
            return ""
        return f"{'<=' if self.at_least is None else '>='} {show(self.bound, self.unit)}"

    @property
    def reached(self) -> float | None:
        """The share of the target that was reached: above 1.0 is better than asked for."""
        if self.value is None or not self.bound:
            return None
        if self.at_least is not None:
            return self.value / self.bound
        return self.bound / self.value if self.value > 0 else float("inf")


def show(value: float, unit: str) -> str:
    """A figure with its unit, for people."""
    if unit == "%":
        return f"{100 * value:.3g} %" if abs(value) < 1 else f"{100 * value:.0f} %"
    if unit == "x":
        return f"{value:.3g} x"
    if unit == "s":
        return f"{value:.2f} s" if value >= 1 else f"{value:.3f} s"
    if unit == "ms":
        return f"{value * 1e3:.3g} ms" if value < 1 else f"{value * 1e3:.0f} ms"
    if unit == "MB":
        return f"{value / 1e6:.1f} MB"
    if unit == "tok/s":
        return f"{value:.0f} tok/s" if value >= 100 else f"{value:.1f} tok/s"
    return f"{value:g} {unit}".strip()


@dataclass
class Bench:
    """What a measurement is given.

    `quick` asks for the least that shows that the measurement works. `llama` is the Python that has llama-cpp-python.
    """

    model: str
    path: Path
    threads: int
    quick: bool = False
    llama: Path | None = None
    _prose: list[int] = field(default_factory=list)

    @property
    def large(self) -> bool:
        """Whether each token takes this model about a tenth of a second, and rounds must be few."""
        return self.model == PHI

    def rounds(self, large: int, small: int) -> int:
        """How often to repeat."""
        return 1 if self.quick else large if self.large else small

    def open(self, **options: Any) -> Generator:
        """A generator of the model.

        Raises:
            NotMeasuredError: This version of phicandle lacks one of the options.
        """
        from phicandle import Generator

        for name in options:
            if name not in inspect.signature(Generator.__init__).parameters:
                raise NotMeasuredError(f"this version of phicandle has no `{name}`")
        return Generator(self.path, **{"threads": self.threads, **options})

    def open_forgetful(self, **options: Any) -> Generator:
        """A generator that computes every prompt anew, so that prompts may be used again."""
        from phicandle import Generator

        # A version without the option remembers nothing anyway.
        if "prefix_cache" in inspect.signature(Generator.__init__).parameters:
            options["prefix_cache"] = False
        return self.open(**options)

    def prose(self, generator: Generator, count: int, start: int = 0) -> list[int]:
        """`count` token ids of this repository's prose, from the one of number `start` on."""
        if not self._prose:
            text = "\n".join((ROOT / name).read_text(encoding="utf-8") for name in PROSE)
            self._prose = generator.tokenizer.encode(text, bos=False)
        found = self._prose[start : start + count]
        if len(found) < count:
            raise NotMeasuredError(f"{' and '.join(PROSE)} have no {start + count} tokens")
        return found

    def say(self, text: str) -> None:
        """A line for the person who waits."""
        print(f"      {self.model}: {text}", file=sys.stderr, flush=True)


def words(generator: Generator, count: int) -> list[int]:
    """Token ids that are a word each, so that each of them is told of as soon as it is written."""
    found = []
    for token in range(1000, generator.info.vocab_size):
        text = generator.tokenizer.decode([token])
        if text.isascii() and text.strip().isalpha():
            found.append(token)
            if len(found) == count:
                return found
    raise NotMeasuredError(f"the vocabulary has no {count} words")


def find(name: str) -> ModuleType:
    """The measurement of this name.

    Raises:
        NotMeasuredError: There is no such module.
    """
    try:
        return importlib.import_module(f"concurrency.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"concurrency.{name}":
            raise
        raise NotMeasuredError(f"there is no benches/concurrency/{name}.py") from None


def median(values: Iterable[float]) -> float:
    """The middle one."""
    return float(statistics.median(values))


def high(values: Iterable[float]) -> float:
    """The 99th of a hundred, from the smallest on."""
    listed = sorted(values)
    return listed[int(0.99 * (len(listed) - 1))]


def rate(samples: Iterable[dict[str, float]]) -> float:
    """Tokens per second of samples that were taken one after the other."""
    listed = list(samples)
    return sum(sample["tokens"] for sample in listed) / sum(sample["seconds"] for sample in listed)


class Clock:
    """How long something takes: `with Clock() as clock: …`, then `clock.seconds`."""

    seconds = 0.0

    def __enter__(self) -> Self:
        self._started = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._started
