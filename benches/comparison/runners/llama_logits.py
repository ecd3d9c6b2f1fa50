"""What llama.cpp computes, for `benches/accuracy.py`: a JSON request on standard input, the answer on standard output.

``rows``: the logits after every token of each prompt, little-endian f32. ``greedy``: for each prompt its answer of the
likeliest tokens, with the two best tokens and logits at each place, as JSON. ``windows``: the sum of the logprobs of
the scored tokens of each window, as JSON.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
from llama_cpp import Llama


def read(model: Any, ids: list[int]) -> Any:
    """The rows after each of `ids`."""
    model.reset()
    model.eval(ids)
    return np.asarray(model.scores[: len(ids)])


def greedy(model: Any, ids: list[int], tokens: int) -> list[list[float]]:
    """The best two tokens and their logits at each place."""
    row = read(model, ids)[-1]
    found = []
    for _ in range(tokens):
        first, second = np.argsort(-row, kind="stable")[:2].tolist()
        found.append([first, float(row[first]), second, float(row[second])])
        model.eval([first])
        row = model.scores[model.n_tokens - 1]
    return found


def score(model: Any, ids: list[int], scored: int) -> float:
    """The sum of the logprobs of `ids` from `scored` on."""
    rows = read(model, ids)[scored - 1 : -1].astype(np.float64)
    most = rows.max(-1, keepdims=True)
    log_sum = np.log(np.exp(rows - most).sum(-1)) + most[:, 0]
    return float((rows[np.arange(len(rows)), ids[scored:]] - log_sum).sum())


def main() -> None:
    """Answers one request."""
    request = json.load(sys.stdin)
    model = Llama(
        request["path"],
        n_ctx=request["context"],
        n_batch=512,
        n_threads=request["threads"],
        n_threads_batch=request["threads"],
        logits_all=True,
        verbose=False,
    )
    if request["what"] == "rows":
        for ids in request["prompts"]:
            sys.stdout.buffer.write(read(model, ids).astype("<f4").tobytes())
    elif request["what"] == "greedy":
        print(json.dumps([greedy(model, ids, request["tokens"]) for ids in request["prompts"]]))
    else:
        ids = request["ids"]
        windows = request["windows"]
        print(json.dumps([score(model, ids[begin:end], scored - begin) for begin, scored, end in windows]))


if __name__ == "__main__":
    main()
