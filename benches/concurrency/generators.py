"""Two Generators in one process: both at once beside one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comparison.points import PHI, SMOL

from .answers import together
from .measurement import GREEDY, Bench, Row, median

if TYPE_CHECKING:
    from phicandle import Completion, Generator

TITLE = "Two Generators in one process"
ABOUT = (
    "Two Generators of the same file, each with four callers: both at once, and one after the other. The ratio says "
    "what it costs that they share the CPUs: 1 x is nothing. What both at once can gain is that one computes where "
    "the other waits."
)
SECONDS = {PHI: 35.0, SMOL: 15.0}

CALLERS, PROMPT, WRITTEN = 4, 30, 32


def measure(bench: Bench) -> dict[str, Any]:
    """Both ways, in turns."""
    written = 8 if bench.quick else WRITTEN // 2 if bench.large else WRITTEN
    rounds = bench.rounds(2, 7)
    found: dict[str, Any] = {"tokens": 2 * CALLERS * written, "rounds": []}
    with bench.open_forgetful(context_length=1024) as one, bench.open_forgetful(context_length=1024) as other:
        prompts = [bench.prose(one, PROMPT, PROMPT * i) for i in range(2 * CALLERS)]
        settings = {**GREEDY, "max_tokens": written}

        def calls(generator: Generator, mine: list[list[int]]) -> list[Any]:
            return [lambda p=p: generator.generate(p, **settings) for p in mine]

        first, second = calls(one, prompts[:CALLERS]), calls(other, prompts[CALLERS:])
        expected = _texts(together(first)[0] + together(second)[0])
        for number in range(rounds):
            answers, at_once = together(first + second)
            after = sum(together(mine)[1] for mine in (first, second))
            equal = _texts(answers) == expected
            found["rounds"].append({"at_once_s": at_once, "one_after_the_other_s": after, "equal": equal})
            bench.say(
                f"round {number + 1}/{rounds}: at once {at_once:.2f} s, one after the other {after:.2f} s"
            )
    return found


def _texts(answers: list[Completion]) -> list[tuple[int, ...]]:
    return [answer.token_ids for answer in answers]


def rows(found: dict[str, Any]) -> list[Row]:
    """Rates and their ratio."""
    rounds, tokens = found["rounds"], found["tokens"]

    return [
        Row("both at once", median(tokens / one["at_once_s"] for one in rounds), "tok/s"),
        Row("one after the other", median(tokens / one["one_after_the_other_s"] for one in rounds), "tok/s"),
        Row("at once over one after the other", median(map(_gain, rounds)), "x"),
        Row("runs with equal texts", sum(one["equal"] for one in rounds) / len(rounds), "%", at_least=1.0),
    ]  # fmt: skip


def _gain(one: dict[str, Any]) -> float:
    return float(one["one_after_the_other_s"] / one["at_once_s"])
