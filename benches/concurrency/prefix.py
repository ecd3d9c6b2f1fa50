"""What the reuse of shared prompt beginnings saves: the second turn of a long chat, a shared system prompt, a fork."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comparison.points import PHI, SMOL

from .answers import together
from .measurement import GREEDY, Bench, Row, median

if TYPE_CHECKING:
    from phicandle import Completion, Generator

TITLE = "Prompts that begin alike"
ABOUT = (
    "A chat whose first question is 3,000 tokens long gets an answer of 16 tokens and a short second question; the "
    "first token of the second turn is timed. Cold is the same turn of a chat that differs from its first line on. A "
    "fork is two other second questions to the chat, asked at the same time. Then 16 prompts of one system prompt of "
    "500 tokens and a question of 20 tokens each are asked at once, for 8 tokens, by a Generator that reuses "
    "beginnings and by one with `prefix_cache=False`. The texts of both must be equal."
)
SECONDS = {PHI: 215.0, SMOL: 30.0}

CHAT, SYSTEM, QUESTION, CALLERS = 3000, 500, 20, 16
CONTEXT = 4096
#: Room for all the prompts at once.
WIDE = 10 * 1024
SECOND = "And what is the most important of all that, in one sentence?"
FORKS = ("Which part of it would you leave out?", "Who should read it first, and why?")


def measure(bench: Bench) -> dict[str, Any]:
    """The chats with one generator; the system prompts with two, in turns."""
    found: dict[str, Any] = {"chats": [], "systems": []}
    rounds = bench.rounds(1, 3)
    with bench.open(prefix_cache=True, context_length=CONTEXT) as generator:
        generator.generate(bench.prose(generator, 20), max_tokens=2, **GREEDY)
        for number in range(rounds):
            one = _chat(bench, generator, 300 if bench.quick else CHAT, number)
            found["chats"].append(one)
            bench.say(
                f"chat {number + 1}/{rounds}: turn two begins after {one['warm_s']:.2f} s, cold {one['cold_s']:.2f} s, "
                f"with {one['cached_tokens']} of {one['prompt_tokens']} tokens known"
            )
    for number in range(rounds):
        one = _systems(bench, 60 if bench.quick else SYSTEM, number)
        found["systems"].append(one)
        bench.say(
            f"{CALLERS} prompts of one system prompt {number + 1}/{rounds}: {one['warm_s']:.1f} s, "
            f"cold {one['cold_s']:.1f} s"
        )
    return found


def _chat(bench: Bench, generator: Generator, length: int, number: int) -> dict[str, Any]:
    """Both turns, a cold second one, and two forks."""

    def begin(name: str) -> list[dict[str, str]]:
        # The template and the title are tokens too.
        body = generator.tokenizer.decode(bench.prose(generator, length - 40, 40 * number))
        return [{"role": "user", "content": f"{name} {number}.\n{body}\nWhat is this about?"}]

    def ask(messages: list[dict[str, str]], tokens: int) -> Completion:
        return generator.generate(messages, max_tokens=tokens, **GREEDY)

    def turn(chat: list[dict[str, str]], answer: str, question: str) -> list[dict[str, str]]:
        return [*chat, {"role": "assistant", "content": answer}, {"role": "user", "content": question}]

    chat = begin("Notes, number")
    first = ask(chat, 16)
    second = ask(turn(chat, first.text, SECOND), 16)
    forks, _ = together(
        [lambda q=q: ask(turn(chat, first.text, q), 16) for q in FORKS]  # type: ignore[misc]
    )
    cold = ask(turn(begin("Papers of the year"), first.text, SECOND), 1)
    return {
        "first_s": first.metrics.ttft_s,
        "warm_s": second.metrics.ttft_s,
        "cold_s": cold.metrics.ttft_s,
        "fork_s": max(fork.metrics.ttft_s for fork in forks),
        "prompt_tokens": second.usage.prompt_tokens,
        "cached_tokens": second.usage.cached_tokens,
        "cold_cached_tokens": cold.usage.cached_tokens,
        "fork_cached_tokens": min(fork.usage.cached_tokens for fork in forks),
    }


def _systems(bench: Bench, length: int, number: int) -> dict[str, Any]:
    """All prompts at once, with and without reuse."""

    def answer(prefix_cache: bool) -> tuple[list[Completion], float]:
        # One generator at a time: two with room for 16 prompts would be much memory.
        with bench.open(prefix_cache=prefix_cache, context_length=WIDE) as generator:
            system = bench.prose(generator, length)
            questions = [bench.prose(generator, QUESTION, 4000 + QUESTION * i) for i in range(CALLERS)]
            generator.generate(questions[0], max_tokens=2, **GREEDY)
            return together(
                [
                    lambda question=question: generator.generate(  # type: ignore[misc]
                        system + question, max_tokens=8, **GREEDY
                    )
                    for question in questions
                ]
            )

    # Who goes first changes.
    found = {known: answer(known) for known in ((True, False) if number % 2 == 0 else (False, True))}
    (answers, seconds), (others, cold_seconds) = found[True], found[False]
    return {
        "warm_s": seconds,
        "cold_s": cold_seconds,
        "cached_tokens": [answer.usage.cached_tokens for answer in answers],
        "prompt_tokens": [answer.usage.prompt_tokens for answer in answers],
        "equal": all(a.token_ids == b.token_ids for a, b in zip(answers, others, strict=True)),
    }


def rows(found: dict[str, Any]) -> list[Row]:
    """Times, shares and counts."""
    chats, systems = found["chats"], found["systems"]
    equal = sum(one["equal"] for one in systems) / len(systems)

    def share(one: dict[str, Any]) -> float:
        return float(sum(one["cached_tokens"]) / sum(one["prompt_tokens"]))

    return [
        Row("turn two, first token", median(one["warm_s"] for one in chats), "s"),
        Row("turn two cold, first token", median(one["cold_s"] for one in chats), "s"),
        Row("turn two over cold", median(one["warm_s"] / one["cold_s"] for one in chats), "%", at_most=0.15),
        Row("turn two: tokens of the prompt", median(one["prompt_tokens"] for one in chats)),
        Row("turn two: `cached_tokens`", median(one["cached_tokens"] for one in chats)),
        Row("two forks, the later first token", median(one["fork_s"] for one in chats), "s"),
        Row("fork: `cached_tokens`, the fewer", median(one["fork_cached_tokens"] for one in chats)),
        Row("16 prompts of one system prompt", median(one["warm_s"] for one in systems), "s"),
        Row("the same without reuse", median(one["cold_s"] for one in systems), "s"),
        Row("without reuse over with it", median(one["cold_s"] / one["warm_s"] for one in systems), "x"),
        Row("`cached_tokens` of the 16, share of their tokens", median(map(share, systems)), "%"),
        Row("runs with texts equal to those without reuse", equal, "%", at_least=1.0),
    ]  # fmt: skip
