"""phicandle: passes through `phicandle bench`, loading and streaming through the Python package.

Options of `load`: `backend`, `kv` (`f16`, `q8`), `memory` (`repack`, `mmap`), `limits` (whether to measure those of
the machine too, before and after each pass). A tier is forced by `PHICANDLE_ISA`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any

from wire import seconds, serve

import phicandle
from phicandle import Generator


def report(model: str, threads: int, *words: str) -> dict[str, Any]:
    """What `phicandle bench` says."""
    command = [sys.executable, "-m", "phicandle", "bench", model, "--json", "--repetitions", "1"]
    command += ["--threads", str(threads), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"phicandle bench: {done.stderr.strip()[-400:]}")
    return dict(json.loads(done.stdout))


def all_limits(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The machine's limits in what it says, before and after; none with `--no-limits`."""
    return [*found["limits"]["before"], *found["limits"]["after"]]


class Engine:
    """The settings of the next measurement."""

    def __init__(self) -> None:
        self.model = ""
        self.threads = 1
        self.options: dict[str, str] = {}
        self.limited = False
        self.generator: Generator | None = None

    def load(self, model: str, threads: int, *, limits: bool = False, **options: str) -> dict[str, Any]:
        """Notes what to load: `phicandle bench` loads for itself, before it measures."""
        self.model, self.threads, self.options, self.limited = model, threads, options, limits
        return {"version": phicandle.__version__, "system": str(phicandle.cpu_info())}

    def open(self, model: str, threads: int, **options: Any) -> dict[str, Any]:
        """Loads, and keeps it."""
        self.load(model, threads, **options)
        took = seconds(self._open)
        return {"load_s": took}

    def _open(self) -> None:
        names = {"kv": "kv_dtype"}
        options: dict[str, Any] = {names.get(name, name): value for name, value in self.options.items()}
        self.generator = Generator(self.model, threads=self.threads, progress=False, **options)

    def bench(self, *words: str) -> dict[str, Any]:
        """What `phicandle bench` says of one series, and of the machine's limits if they are wanted."""
        if not self.limited:
            words = (*words, "--no-limits")
        if "backend" in self.options:
            words = (*words, "--backend", self.options["backend"])
        if "kv" in self.options:
            words = (*words, "--kv-dtype", self.options["kv"])
        found = report(self.model, self.threads, *words)
        if found["skipped"]:
            raise RuntimeError(
                "; ".join(f"{skipped['what']}: {skipped['why']}" for skipped in found["skipped"])
            )
        (series,) = found["series"]
        limits = [limit for limit in all_limits(found) if limit["threads"] == self.threads]
        return {**series, "limits": limits}

    def _passes(self, *words: str) -> dict[str, Any]:
        """The time of the one test of a series, with the limits beside it and what the engine adds between passes."""
        series = self.bench(*words)
        (test,) = series["tests"]
        answer = {"seconds": test["time"]["samples_s"][0]}
        if series["between_passes"]:
            answer["between_s"] = series["between_passes"]["mean"]["median_s"]
        return answer | ({"limits": series["limits"]} if self.limited else {})

    def prefill(self, tokens: int) -> dict[str, Any]:
        """A prompt."""
        return self._passes("-p", str(tokens))

    def decode(self, depth: int, tokens: int) -> dict[str, Any]:
        """Token after token; and what the engine adds between two passes."""
        return self._passes("-n", str(tokens), "--depth", str(depth))

    def batch(self, sequences: int, depth: int, tokens: int) -> dict[str, Any]:
        """A token of every sequence, again and again."""
        return self._passes("-n", str(tokens), "--depth", str(depth), "-b", str(sequences))

    def verify(self, depth: int, guesses: int, repeats: int) -> dict[str, Any]:
        """Several tokens of one sequence in a pass, each beside a pass for one: `phicandle bench` makes eight."""
        series = self.bench("-n", "0", "--verify", str(guesses), "--depth", str(depth))
        (test,) = series["tests"]
        return {"seconds": test["time"]["samples_s"][0], "step_s": test["step_time"]["samples_s"][0]}

    def stream(self, tokens: int) -> dict[str, Any]:
        """CPU time of a chunk for the thread that reads it: a thread of Python, and of Rust in `phicandle bench`."""
        rust = self.bench("-n", str(tokens))["between_passes"]["reader"]["median_s"]
        self._open()
        if self.generator is None:
            raise RuntimeError("There is no generator.")
        prompt: str = "Count to a hundred"
        settings: dict[str, Any] = {"max_tokens": tokens, "ignore_eos": True}
        self.generator.generate(prompt, **settings)
        chunks, started = 0, 0.0
        for _ in self.generator.stream(prompt, **settings):
            # From the first chunk on: what comes before it is the call.
            started = started or time.thread_time()
            chunks += 1
        python = (time.thread_time() - started) / max(chunks - 1, 1)
        return {"python_s": python - rust, "python_reader_s": python, "rust_reader_s": rust}

    def limits(self, model: str, threads: int) -> dict[str, Any]:
        """The machine's limits, with 1 thread and with `threads`, as `phicandle bench` measures them."""
        # On one token of a prompt, as something has to be measured.
        return {"limits": all_limits(report(model, threads, "-p", "1"))}

    def unload(self) -> dict[str, Any]:
        """Closes what is open."""
        if self.generator is not None:
            self.generator.close()
            self.generator = None
        return {}


if __name__ == "__main__":
    engine = Engine()
    os.environ["HF_HUB_OFFLINE"] = "1"
    names = ("load", "open", "prefill", "decode", "batch", "verify", "stream", "limits", "unload")
    serve({name: getattr(engine, name) for name in names})
