"""llama.cpp through llama-cpp-python's low-level functions; its Python text loop is not measured.

Options of `load`: `repack` is llama.cpp's `use_extra_bufts`, `flash` its flash attention. Keys and values are f16.
"""

from __future__ import annotations

import ctypes
import os
import random
import sys
from importlib.metadata import version
from typing import Any

import llama_cpp as ll
from wire import seconds, serve

# A prompt of this length is computed; deeper contexts are made of copies of it, moved to where they belong.
_BASE = 128
_UBATCH = 512


class Session:
    """A context, and the batch that feeds it."""

    def __init__(self, model: Any, *, positions: int, threads: int, flash: bool, sequences: int = 1) -> None:
        params = ll.llama_context_default_params()
        # One stream of keys and values per sequence when several decode together, as llama.cpp's own batched-bench.
        # For one deep sequence, a second one in the same stream helps to fill it.
        params.n_seq_max = max(sequences, 2)
        params.kv_unified = sequences == 1
        params.n_ctx = sequences * (-(-positions // 256) * 256)
        params.n_batch = params.n_ubatch = _UBATCH
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn_type = (
            ll.LLAMA_FLASH_ATTN_TYPE_ENABLED if flash else ll.LLAMA_FLASH_ATTN_TYPE_DISABLED
        )
        params.type_k = params.type_v = ll.GGML_TYPE_F16
        params.no_perf = True
        self.context = ll.llama_init_from_model(model, params)
        if not self.context:
            raise RuntimeError("llama.cpp made no context.")
        self.memory = ll.llama_get_memory(self.context)
        self.batch = ll.llama_batch_init(_UBATCH, 0, max(sequences, 2))
        self.random = random.Random(1)  # noqa: S311 - tokens, not keys
        self.words = ll.llama_vocab_n_tokens(ll.llama_model_get_vocab(model))

    def run(self, entries: list[tuple[int, int, bool]]) -> None:
        """One pass over (position, sequence, logits wanted); ends when the logits are there."""
        batch = self.batch
        batch.n_tokens = len(entries)
        for i, (position, sequence, wanted) in enumerate(entries):
            batch.token[i] = self.random.randrange(1000, self.words)
            batch.pos[i] = position
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = sequence
            batch.logits[i] = wanted
        if status := ll.llama_decode(self.context, batch):
            raise RuntimeError(f"llama_decode gave {status}.")
        ll.llama_get_logits(self.context)

    def prompt(self, tokens: int, sequence: int = 0) -> None:
        """A prompt from position 0 on."""
        for first in range(0, tokens, _UBATCH):
            last = min(first + _UBATCH, tokens)
            self.run([(i, sequence, i == tokens - 1) for i in range(first, last)])

    def fill(self, depth: int) -> None:
        """Makes sequence 0 `depth` tokens long; how fast the next one is does not depend on what they are."""
        base = min(depth, _BASE)
        self.prompt(base)
        size = ll.llama_state_seq_get_size(self.context, 0)
        state = (ctypes.c_uint8 * size)()
        ll.llama_state_seq_get_data(self.context, state, size, 0)
        for first in range(base, depth, base):
            if not ll.llama_state_seq_set_data(self.context, state, size, 1):
                raise RuntimeError("llama.cpp did not take back its own state.")
            ll.llama_memory_seq_add(self.memory, 1, 0, -1, first)
            ll.llama_memory_seq_cp(self.memory, 1, 0, -1, -1)
            ll.llama_memory_seq_rm(self.memory, 1, -1, -1)
        self.cut(0, depth)
        # Moving the copies is work of the next pass, which must not be one that is timed.
        self.run([(depth, 0, True)])
        self.cut(0, depth)

    def cut(self, sequence: int, length: int) -> None:
        """Forgets what a sequence has from `length` on."""
        if not ll.llama_memory_seq_rm(self.memory, sequence, length, -1):
            raise RuntimeError("llama.cpp did not shorten a sequence.")
        if ll.llama_memory_seq_pos_max(self.memory, sequence) != length - 1:
            raise RuntimeError("A sequence is not as long as it should be.")

    def close(self) -> None:
        """Gives the memory back."""
        ll.llama_batch_free(self.batch)
        ll.llama_free(self.context)


class Engine:
    """Holds the models that were loaded: one for each setting of `repack`."""

    def __init__(self) -> None:
        self.models: dict[tuple[str, bool], Any] = {}
        self.threads = 1
        self.flash = False
        self.model: Any = None
        # Kept, or Python would free what llama.cpp calls.
        self.log = ll.llama_log_callback(self.said)
        self.quiet = not os.environ.get("LLAMA_LOG")
        ll.llama_log_set(self.log, ctypes.c_void_p(0))
        ll.llama_backend_init()

    def said(self, level: int, text: bytes, _: Any) -> None:
        """Takes llama.cpp's log lines."""
        if not self.quiet:
            sys.stderr.write(text.decode(errors="replace"))

    def load(self, model: str, threads: int, repack: bool = True, flash: bool = False) -> dict[str, Any]:
        """Loads a file, unless it is loaded with this setting; `n_threads` and `n_threads_batch` are the same."""
        key = (model, repack)
        took = 0.0
        if key not in self.models:
            params = ll.llama_model_default_params()
            params.use_extra_bufts = repack

            def read() -> None:
                self.models[key] = ll.llama_model_load_from_file(model.encode(), params)

            took = seconds(read)
            if not self.models[key]:
                del self.models[key]
                raise RuntimeError(f"llama.cpp did not load {model}.")
        self.model, self.threads, self.flash = self.models[key], threads, flash
        info = ll.llama_print_system_info().decode()
        return {"load_s": took, "version": version("llama-cpp-python"), "system": info}

    def session(self, positions: int, sequences: int = 1) -> Session:
        """A new context for so many positions each."""
        return Session(
            self.model, positions=positions, threads=self.threads, flash=self.flash, sequences=sequences
        )

    def prefill(self, tokens: int) -> dict[str, Any]:
        """One prompt, after a short one that wakes everything."""
        session = self.session(max(tokens, 32))
        session.prompt(32)
        session.cut(0, 0)
        took = seconds(lambda: session.prompt(tokens))
        session.close()
        return {"seconds": took}

    def decode(self, depth: int, tokens: int) -> dict[str, Any]:
        """Token after token."""
        session = self.session(depth + tokens + 1)
        session.fill(depth)

        def step(i: int) -> None:
            session.run([(depth + i, 0, True)])

        step(0)
        took = [seconds(lambda i=i: step(i)) for i in range(1, tokens + 1)]  # type: ignore[misc]
        session.close()
        return {"seconds": sum(took), "steps": took}

    def batch(self, sequences: int, depth: int, tokens: int) -> dict[str, Any]:
        """A token of every sequence, again and again."""
        session = self.session(depth + tokens + 1, sequences)
        session.prompt(depth)
        for sequence in range(1, sequences):
            ll.llama_memory_seq_cp(session.memory, 0, sequence, -1, -1)

        def step(i: int) -> None:
            session.run([(depth + i, sequence, True) for sequence in range(sequences)])

        step(0)
        took = [seconds(lambda i=i: step(i)) for i in range(1, tokens + 1)]  # type: ignore[misc]
        session.close()
        return {"seconds": sum(took), "steps": took}

    def verify(self, depth: int, guesses: int, repeats: int) -> dict[str, Any]:
        """Several tokens of one sequence in a pass, each beside a pass for one."""
        session = self.session(depth + guesses + 1)
        session.fill(depth)
        guessed = single = 0.0
        # In turns, so that both see the same moods of the machine.
        for _ in range(repeats):
            guessed += seconds(lambda: session.run([(depth + i, 0, True) for i in range(guesses)]))
            session.cut(0, depth)
            single += seconds(lambda: session.run([(depth, 0, True)]))
            session.cut(0, depth)
        session.close()
        return {"seconds": guessed / repeats, "step_s": single / repeats}

    def unload(self) -> dict[str, Any]:
        """Frees the models."""
        for model in self.models.values():
            ll.llama_model_free(model)
        self.models.clear()
        return {}


if __name__ == "__main__":
    engine = Engine()
    names = ("load", "prefill", "decode", "batch", "verify", "unload")
    serve({name: getattr(engine, name) for name in names})
