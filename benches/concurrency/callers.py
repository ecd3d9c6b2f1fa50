"""16 callers at once: tokens per second in all, who waits for how long, and whether the texts stay the same."""

from __future__ import annotations

from statistics import mean
from typing import TYPE_CHECKING, Any

from comparison.points import PHI, SMOL

from .answers import together
from .measurement import GREEDY, Bench, Clock, Row, median, rate

if TYPE_CHECKING:
    from comparison.engines import Runner

    from phicandle import Generator

TITLE = "16 callers at once"
ABOUT = (
    "16 threads of one process call one Generator at the same time, each with its own prompt of 60 tokens, and ask "
    "for 64 tokens, greedily. The same prompts are answered one after the other by phicandle, and by llama-cpp-python "
    "(its `Llama.generate`, with its default settings and as many threads), in turns with the runs at once. Tokens "
    "per second are all tokens written over all the time that passed, the reading of the prompts included; keys and "
    "values of earlier runs are not used again. A text is equal when its token ids are."
)
SECONDS = {PHI: 280.0, SMOL: 60.0}

CALLERS, PROMPT, WRITTEN = 16, 60, 64
CONTEXT = 4096


def measure(bench: Bench) -> dict[str, Any]:
    """All in turns: everybody at once, then phicandle and llama.cpp one after the other."""
    written = 8 if bench.quick else WRITTEN
    rounds = bench.rounds(2, 3)
    found: dict[str, Any] = {"callers": CALLERS, "written": written, "rounds": []}
    runner, reason = _llama(bench)
    if runner is None:
        found["llama_missing"] = reason
        bench.say(f"llama.cpp is NOT MEASURED: {reason}")
    try:
        with bench.open_forgetful(context_length=CONTEXT) as generator:
            prompts = [bench.prose(generator, PROMPT, i * PROMPT) for i in range(CALLERS)]
            generator.generate(prompts[0], max_tokens=2, **GREEDY)
            texts: list[set[tuple[int, ...]]] = [set() for _ in prompts]
            alone: list[set[tuple[int, ...]]] = [set() for _ in prompts]
            for number in range(rounds):
                # The large model takes minutes for all of them one by one, so each is answered in one of the rounds.
                some = list(range(number, CALLERS, rounds)) if bench.large else list(range(CALLERS))
                if bench.quick:
                    some = some[:4]
                one = _round(bench, generator, runner, prompts, some, written, texts, alone)
                found["rounds"].append(one)
                bench.say(f"round {number + 1}/{rounds}: {_brief(one)}")
        found["compared"] = sum(bool(one) for one in alone)
        found["equal"] = sum(
            len(one | other) == 1 for one, other in zip(alone, texts, strict=True) if one and other
        )
    finally:
        if runner is not None:
            runner.stop()
    return found


def _llama(bench: Bench) -> tuple[Runner | None, str]:
    """llama-cpp-python with the model loaded; or nothing, and why."""
    # NumPy is behind these, and the page is written without it.
    from comparison.engines import Runner, RunnerError
    from phi3_shape import cache

    if bench.llama is None:
        return None, "llama-cpp-python is not installed (--install does that)"
    cache().mkdir(parents=True, exist_ok=True)
    try:
        runner = Runner(bench.llama, "llama_answers.py", {}, cache() / "runners.log")
        runner.ask("load", model=str(bench.path), threads=bench.threads, context=256)
    except (OSError, RunnerError) as error:
        return None, str(error)
    return runner, ""


def _round(
    bench: Bench,
    generator: Generator,
    runner: Runner | None,
    prompts: list[list[int]],
    some: list[int],
    written: int,
    texts: list[set[tuple[int, ...]]],
    alone: list[set[tuple[int, ...]]],
) -> dict[str, Any]:
    """One round; adds the token ids to the sets."""
    settings = {**GREEDY, "max_tokens": written}
    bench.say(f"{len(prompts)} callers at once")
    answers, seconds = together(
        [lambda prompt=prompt: generator.generate(prompt, **settings) for prompt in prompts]  # type: ignore[misc]
    )
    for text, answer in zip(texts, answers, strict=True):
        text.add(answer.token_ids)
    one: dict[str, Any] = {
        "together": {"seconds": seconds, "tokens": sum(len(answer.token_ids) for answer in answers)},
        "first_token_s": [answer.metrics.ttft_s for answer in answers],
        "alone": [],
        "llama": [],
    }
    bench.say(f"{len(some)} of them one after the other")
    for i in some:
        with Clock() as clock:
            answer = generator.generate(prompts[i], **settings)
        alone[i].add(answer.token_ids)
        one["alone"].append({"seconds": clock.seconds, "tokens": len(answer.token_ids)})
    if runner is not None:
        bench.say(f"{len(some)} of them by llama.cpp")
        for i in some:
            answered = runner.ask("answer", prompt=prompts[i], tokens=written)
            one["llama"].append({"seconds": answered["seconds"], "tokens": len(answered["ids"])})
    return one


def _brief(one: dict[str, Any]) -> str:
    rates = {name: rate(one[name]) for name in ("alone", "llama") if one[name]}
    shown = ", ".join(f"{name} {value:.1f}" for name, value in rates.items())
    return f"at once {rate([one['together']]):.1f} tok/s, {shown}"


def rows(found: dict[str, Any]) -> list[Row]:
    """Rates, ratios of each round, first tokens, equality."""
    rounds = found["rounds"]
    at_once = [rate([one["together"]]) for one in rounds]
    alone = [rate(one["alone"]) for one in rounds]
    llama = [rate(one["llama"]) for one in rounds if one["llama"]]
    waits = [max(one["first_token_s"]) / mean(one["first_token_s"]) for one in rounds]

    def over(others: list[float]) -> float:
        return median(mine / other for mine, other in zip(at_once, others, strict=True))

    reason = found.get("llama_missing", "")
    return [
        Row("all at once", median(at_once), "tok/s"),
        Row("one caller alone", median(alone), "tok/s"),
        Row(
            "llama-cpp-python, one after the other", median(llama) if llama else None, "tok/s", reason=reason
        ),
        Row("at once over one caller alone", over(alone), "x", at_least=3.0),
        Row("at once over llama-cpp-python", over(llama) if llama else None, "x", at_least=3.0, reason=reason),
        Row("first token, mean", median(map(_mean_wait, rounds)), "s"),
        Row("first token, slowest over mean", median(waits), "x", at_most=2.0),
        Row(
            "texts equal to those of one caller alone, share", found["equal"] / found["compared"], "%", at_least=1.0
        ),
    ]  # fmt: skip


def _mean_wait(one: dict[str, Any]) -> float:
    return float(mean(one["first_token_s"]))
