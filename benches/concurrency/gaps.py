"""A running stream while a long prompt enters: the gaps between its tokens, and how long the prompt takes."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from comparison.points import PHI, SMOL

from .answers import Follower, gaps
from .measurement import Bench, Row, high, median, words

if TYPE_CHECKING:
    from phicandle import Generator

TITLE = "A stream while a long prompt enters"
ABOUT = (
    "One stream writes words at random (temperature 1, the choice limited by `logit_bias` to 500 tokens that are a "
    "word each, so that every token is told of at once), with nobody beside it. Then a prompt of 2,000 tokens enters, "
    "with one token to write. A step is the time between two pieces of the stream, as its Python thread takes them; "
    "the normal step is the median before. Of the steps beside the prompt, the largest must stay under two normal "
    "steps. Nothing is guessed: a right guess would bring two pieces at once. The stream grows meanwhile, and its own "
    "step with it, as the median of 40 steps after the prompt shows. The same prompt is then read with nobody beside "
    "it."
)
SECONDS = {PHI: 80.0, SMOL: 25.0}

PROMPT, CHOICE = 2000, 500
#: Steps of the stream once the prompt has been read.
AFTER = 40
CONTEXT = 4096


def measure(bench: Bench) -> dict[str, Any]:
    """The prompt beside the stream and alone, in turns."""
    prompt_tokens = 300 if bench.quick else PROMPT
    steps = 10 if bench.quick else 30 if bench.large else 200
    found: dict[str, Any] = {"prompt_tokens": prompt_tokens, "rounds": []}
    rounds = bench.rounds(1, 5)
    # A guess that is right brings several tokens in one step, and the pieces of a stream would no longer be its steps.
    with bench.open_forgetful(context_length=CONTEXT, speculation=False) as generator:
        bias = dict.fromkeys(words(generator, CHOICE), 100.0)
        for number in range(rounds):
            prompt = bench.prose(generator, prompt_tokens, number)
            one = _beside(generator, prompt, steps, bias, number)
            alone = generator.generate(prompt, max_tokens=1, temperature=0.0)
            one["alone_s"] = alone.metrics.ttft_s
            found["rounds"].append(one)
            normal = median(one["before"])
            bench.say(
                f"round {number + 1}/{rounds}: normal step {normal * 1e3:.1f} ms, largest of {len(one['beside'])} "
                f"beside the prompt {max(one['beside']) / normal:.2f} x; the prompt took {one['beside_s']:.1f} s, "
                f"alone {one['alone_s']:.1f} s"
            )
    return found


def _beside(
    generator: Generator, prompt: list[int], steps: int, bias: dict[int, float], seed: int
) -> dict[str, Any]:
    """A stream's gaps before the prompt enters and until it has been read."""
    settings = {
        "temperature": 1.0,
        "repeat_penalty": 1.0,
        "seed": seed,
        "logit_bias": bias,
        "ignore_eos": True,
    }
    # The stream must outlast the prompt, and both must fit.
    most = CONTEXT - len(prompt) - 100
    with Follower(generator, prompt[:32], {**settings, "max_tokens": most}) as stream:
        # The first steps wake everything.
        stream.wait_for(steps + 5)
        entered = len(stream.arrivals)
        answer = generator.generate(prompt, max_tokens=1, temperature=0.0)
        read = len(stream.arrivals)
        # The step that is on its way when the prompt has been read may have had a part of it.
        stream.wait_for(read + 1 + AFTER)
    times = stream.arrivals
    return {
        "before": gaps(times[5:entered]),
        "beside": gaps(times[entered - 1 : read + 1]),
        "after": gaps(times[read + 1 :]),
        "beside_s": answer.metrics.ttft_s,
        "single": all(tokens == 1 for _, tokens in itertools.islice(times, read)),
    }


def rows(found: dict[str, Any]) -> list[Row]:
    """The steps, and the time of the prompt."""
    rounds = found["rounds"]
    normal = [median(one["before"]) for one in rounds]

    def over(phase: str, pick: Callable[[list[float]], float]) -> float:
        return median(pick(one[phase]) / step for one, step in zip(rounds, normal, strict=True))

    return [
        Row("normal step", median(normal), "ms"),
        Row("steps beside the prompt", median(len(one["beside"]) for one in rounds)),
        Row("largest step beside the prompt, over the normal one", over("beside", max), "x", at_most=2.0),
        Row("the 99th of 100 beside it", over("beside", high), "x"),
        Row("the median beside it", over("beside", median), "x"),
        Row("largest step before, over the normal one", over("before", max), "x"),
        Row("the median after it, over the normal one", over("after", median), "x"),
        Row("the prompt's first token beside the stream", median(one["beside_s"] for one in rounds), "s"),
        Row("the prompt's first token alone", median(one["alone_s"] for one in rounds), "s"),
        Row("beside over alone", median(one["beside_s"] / one["alone_s"] for one in rounds), "x"),
    ]
