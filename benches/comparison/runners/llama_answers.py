"""Answers of llama-cpp-python's `Llama`, as its users get them, for benches/concurrency."""

from __future__ import annotations

import time
from itertools import islice
from typing import Any

from llama_cpp import Llama
from wire import serve


class Engine:
    """Holds the model."""

    def __init__(self) -> None:
        self.llama: Any = None

    def load(self, model: str, threads: int, context: int) -> dict[str, Any]:
        """Loads a file, with the library's own defaults for all but sizes and threads."""
        self.llama = Llama(model, n_ctx=context, n_threads=threads, n_threads_batch=threads, verbose=False)
        # The first pass wakes everything.
        self.answer([1, 2, 3], 2)
        return {}

    def answer(self, prompt: list[int], tokens: int) -> dict[str, Any]:
        """So many tokens, greedily, past the end of the turn too."""
        # What two prompts have in common would not be computed again.
        self.llama.reset()
        started = time.perf_counter()
        ids = list(islice(self.llama.generate(prompt, temp=0.0, repeat_penalty=1.0), tokens))
        return {"seconds": time.perf_counter() - started, "ids": ids}


if __name__ == "__main__":
    engine = Engine()
    serve({"load": engine.load, "answer": engine.answer})
