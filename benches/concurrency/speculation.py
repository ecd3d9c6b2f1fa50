"""What guessing ahead gains on texts that repeat their prompts, and what it loses on others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comparison.points import PHI, SMOL

from .measurement import Bench, Row, median, words
from .texts import CODE, EDIT, EXTRACT

if TYPE_CHECKING:
    from phicandle import Generator

TITLE = "Guessing ahead"
ABOUT = (
    "Two Generators, one with `speculation=True` and one with `speculation=False`, write the same answers in turns; "
    "the speed is that of the writing (`decode_tps`). SmolLM2 continues texts that ask for their beginning to be "
    "written again, with changes (edit), in part (extract), or as code with small changes (code). They are those of a "
    "few that the model does repeat: with others it goes astray. The model of random weights never repeats itself, so "
    "with it only a bound can be told: a text that `logit_bias` forces to be one word over and over, where every "
    "guess is right. Two kinds of text can only lose: one that never repeats itself (SmolLM2's, sampled at a "
    "temperature of 1.5, and the random model's own), and one of four words drawn at random (`logit_bias` and a "
    "temperature of 5), in which three words have soon come before in every order and say nothing about the next. The "
    "token ids with and without must be equal in every run."
)
SECONDS = {PHI: 90.0, SMOL: 60.0}

CONTEXT = 1024
_BEST: dict[str, Any] = {"temperature": 0.0, "repeat_penalty": 1.0, "ignore_eos": True}
GAIN, LOSS = 1.8, 0.03
#: Texts that guesses cannot help.
LOSING = ("no repeats", "four words at random")


def measure(bench: Bench) -> dict[str, Any]:
    """Every task with and without, in turns."""
    found: dict[str, Any] = {"tasks": {}}
    with (
        bench.open(speculation=True, context_length=CONTEXT) as guessing,
        bench.open(speculation=False, context_length=CONTEXT) as plain,
    ):
        for name, (prompt, settings, rounds) in _tasks(bench, plain).items():
            pairs = []
            for number in range(1 if bench.quick else rounds):
                # Who goes first changes, so that what the machine does meanwhile touches both alike.
                order = (guessing, plain) if number % 2 == 0 else (plain, guessing)
                pairs.append(_pair(order, guessing, prompt, {**settings, "seed": number}))
            found["tasks"][name] = pairs
            bench.say(f"{name}: {_gain(pairs):.2f} x, {_accepted(pairs):.0%} of the tokens were guessed")
    return found


def _tasks(bench: Bench, generator: Generator) -> dict[str, tuple[list[int], dict[str, Any], int]]:
    """Prompt, settings and rounds of each."""
    written = 16 if bench.quick else 64 if bench.large else 80
    best = {**_BEST, "max_tokens": written}
    prose = bench.prose(generator, 100)
    four = words(generator, 4)
    long = written if bench.large else 4 * written
    at_random = {**best, "max_tokens": long, "temperature": 5.0, "logit_bias": dict.fromkeys(four, 100.0)}
    no_repeats, four_words = LOSING
    if bench.large:
        return {
            "one word over and over": (prose, {**best, "logit_bias": {four[0]: 100.0}}, 2),
            no_repeats: (prose, best, 3),
            four_words: (prose, at_random, 3),
        }
    tasks = {
        name: (generator.tokenizer.encode(text), best, 5)
        for name, text in (("edit", EDIT), ("extract", EXTRACT), ("code", CODE))
    }
    sampled = {**best, "max_tokens": long, "temperature": 1.5}
    return {**tasks, no_repeats: (prose, sampled, 9), four_words: (prose, at_random, 9)}


def _pair(
    order: tuple[Generator, Generator], guessing: Generator, prompt: list[int], settings: dict[str, Any]
) -> dict[str, Any]:
    """One answer by each."""
    answers = {generator is guessing: generator.generate(prompt, **settings) for generator in order}
    return {
        "guessing_tps": answers[True].metrics.decode_tps,
        "plain_tps": answers[False].metrics.decode_tps,
        "accepted": answers[True].metrics.accepted_guesses,
        "tokens": answers[True].usage.completion_tokens,
        "equal": answers[True].token_ids == answers[False].token_ids,
        "text": answers[True].text,
    }


def _gain(pairs: list[dict[str, Any]]) -> float:
    return median(pair["guessing_tps"] / pair["plain_tps"] for pair in pairs)


def _accepted(pairs: list[dict[str, Any]]) -> float:
    return float(sum(pair["accepted"] for pair in pairs) / sum(pair["tokens"] for pair in pairs))


def rows(found: dict[str, Any]) -> list[Row]:
    """Gains, shares of guessed tokens, the loss, equality."""
    table = []
    for name, pairs in found["tasks"].items():
        table.append(Row(f"{name}: plain", median(pair["plain_tps"] for pair in pairs), "tok/s"))
        if name in LOSING:
            table.append(Row(f"{name}: loss", 1 - _gain(pairs), "%", at_most=LOSS))
        else:
            table.append(Row(f"{name}: gain", _gain(pairs), "x", at_least=GAIN))
        table.append(Row(f"{name}: tokens that were guessed", _accepted(pairs), "%"))
    pairs = [pair for listed in found["tasks"].values() for pair in listed]
    equal = sum(pair["equal"] for pair in pairs) / len(pairs)
    return [*table, Row("texts equal to those without guessing", equal, "%", at_least=1.0)]
