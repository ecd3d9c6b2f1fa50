"""What an idle engine costs: CPU time of the process while nobody asks for anything."""

from __future__ import annotations

import time
from typing import Any

from comparison.points import PHI, SMOL

from .answers import together
from .measurement import GREEDY, Bench, Row

TITLE = "An idle engine"
ABOUT = (
    "CPU time of the whole process, as the system counts it, over 5 seconds of sleep: after loading, and half a "
    "second after four answers at once have ended. A process of Python that sleeps uses none."
)
SECONDS = {PHI: 20.0, SMOL: 15.0}

SLEEP = 5.0
#: A thousandth of one CPU: what the system's clock and the sleep itself may cost.
MOST = 0.001


def measure(bench: Bench) -> dict[str, Any]:
    """Before and after use."""
    seconds = 1.0 if bench.quick else SLEEP

    def idle() -> float:
        before = time.process_time()
        time.sleep(seconds)
        return time.process_time() - before

    with bench.open(context_length=1024) as generator:
        time.sleep(0.5)
        loaded = idle()
        prompts = [bench.prose(generator, 40, 40 * i) for i in range(4)]
        together(
            [lambda p=p: generator.generate(p, max_tokens=16, **GREEDY) for p in prompts]  # type: ignore[misc]
        )
        time.sleep(0.5)
        used = idle()
    return {"seconds": seconds, "loaded_s": loaded, "used_s": used}


def rows(found: dict[str, Any]) -> list[Row]:
    """Shares of one CPU."""
    return [
        Row(f"of one CPU, {when}", found[name] / found["seconds"], "%", at_most=MOST)
        for name, when in (("loaded_s", "after loading"), ("used_s", "after use"))
    ]
