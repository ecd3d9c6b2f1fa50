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
SECONDS = {PHI: 270.0, SMOL: 40.0}

CHAT, SYSTEM, QUESTION, CALLERS = 3000, 500, 20, 16
CONTEXT = 4096
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
    with (
        bench.open(prefix_cache=True, context_length=16 * 1024) as warm,
        bench.open(prefix_cache=False, context_length=16 * 1024) as cold,
    ):
        for number in range(rounds):
            one = _system(bench, warm, cold, 60 if bench.quick else SYSTEM, number)
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


def _system(bench: Bench, warm: Generator, cold: Generator, length: int, number: int) -> dict[str, Any]:
    """All prompts at once, with and without reuse."""
    # Another beginning in each round: what the rounds before have left does not help.
    system = bench.prose(warm, length, 700 * number)
    questions = [bench.prose(warm, QUESTION, 4000 + QUESTION * i) for i in range(CALLERS)]
    prompts = [system + question for question in questions]

    def all_of(generator: Generator) -> tuple[list[Completion], float]:
        return together(
            [lambda p=p: generator.generate(p, max_tokens=8, **GREEDY) for p in prompts]  # type: ignore[misc]
        )

    answers, seconds = all_of(warm)
    others, cold_seconds = all_of(cold)
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
