"""A tick every 10 ms, and how late each one came; as a program, until its standard input ends."""

from __future__ import annotations

import json
import sys
import threading
import time

STEP = 0.01


def tick(late: list[float], stop: threading.Event) -> None:
    """Notes in `late` how many seconds late each tick is, until `stop` is set: one at least."""
    due = time.perf_counter() + STEP
    while True:
        time.sleep(max(0.0, due - time.perf_counter()))
        due = note(late, due)
        if stop.is_set():
            return


def note(late: list[float], due: float) -> float:
    """Notes how late a tick is. Returns when the next one is due: ticks that were missed are not made up for."""
    now = time.perf_counter()
    late.append(max(0.0, now - due))
    return max(due, now) + STEP if now - due > STEP else due + STEP


def main() -> None:
    """Ticks, and writes the list as JSON."""
    late: list[float] = []
    stop = threading.Event()
    ticker = threading.Thread(target=tick, args=(late, stop))
    ticker.start()
    sys.stdin.read()
    stop.set()
    ticker.join()
    json.dump(late, sys.stdout)


if __name__ == "__main__":
    main()
