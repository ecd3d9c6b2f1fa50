"""How `compare.py` talks to a runner: a JSON object a line, requests on standard input, answers on standard output.

A runner is a program that has one engine, in that engine's own environment. It answers `{"op": name, …}` with the
fields of the result, or with `{"error": why}`. It computes only between a request and its answer, so that one engine
at a time has the machine. Only the standard library is used here.

A runner offers some of these operations; sizes are numbers of tokens, results are in seconds and bytes:

- `load(model, threads, …)`: makes ready; the rest are the engine's own options.
- `open(model, threads, …)`: the same, done then and there: `load_s`. By default it is `load`.
- `prefill(tokens)`: `seconds` for one prompt, its last token's logits included.
- `decode(depth, tokens)`: `seconds` for writing `tokens` one by one, after `depth` others.
- `batch(sequences, depth, tokens)`: `seconds` for `tokens` passes, each of which writes a token of every sequence.
- `verify(depth, guesses, repeats)`: `seconds` of a pass over `guesses` tokens of one sequence with all their logits,
  and `step_s` of a pass over one, on average.
- `stream(tokens)`: `python_s`, what reading a chunk costs a thread of Python more than one of Rust.
- `memory()`: `peak`, `resident` and `private` bytes of the runner.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

Operation = Callable[..., "dict[str, Any]"]


def serve(operations: dict[str, Operation]) -> None:
    """Answers requests until standard input ends."""
    # Engines print; their lines must not be taken for answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    operations = {"memory": memory, "open": operations["load"], **operations}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = operations[request.pop("op")](**request)
        except Exception as error:  # whatever an engine raises, the comparison goes on without this figure
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def memory() -> dict[str, Any]:
    """Memory of this process from /proc: most ever resident, resident, and private (not pages of files)."""
    fields = {}
    status = Path("/proc/self/status")
    if not status.exists():
        return {}
    for line in status.read_text().splitlines():
        name, _, value = line.partition(":")
        if value.endswith(" kB"):
            fields[name] = int(value[:-3]) * 1024
    return {"peak": fields["VmHWM"], "resident": fields["VmRSS"], "private": fields["RssAnon"]}


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
