"""mistral.rs through its Python package: one request at a time, its own clock.

Its `Runner` takes texts, so prompts are made of words until they have the length asked for.
"""

from __future__ import annotations

import random
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mistralrs
from wire import seconds, serve

# Words of one token each in the usual vocabularies.
_WORDS = (
    "the",
    "of",
    "and",
    "to",
    "in",
    "is",
    "was",
    "for",
    "on",
    "with",
    "as",
    "by",
    "at",
    "from",
    "it",
    "that",
)


class Engine:
    """The loaded model."""

    def __init__(self) -> None:
        self.runner: Any = None
        self.loaded = ""
        self.random = random.Random(1)  # noqa: S311 - tokens, not keys

    def load(self, model: str, threads: int) -> dict[str, Any]:
        """Loads a file, unless it is loaded; its threads are `RAYON_NUM_THREADS`, set by whoever started this."""
        took = 0.0
        if self.loaded != model:
            took = seconds(lambda: self._load(Path(model)))
            self.loaded = model
            self._ask("the", 4)
        return {"load_s": took, "version": version("mistralrs")}

    def _load(self, path: Path) -> None:
        which = mistralrs.Which.GGUF(quantized_model_id=str(path.parent), quantized_filename=path.name)
        self.runner = mistralrs.Runner(which=which, max_seqs=1, prefix_cache_n=0, no_paged_attn=True)

    def _ask(self, prompt: str, tokens: int) -> Any:
        request = mistralrs.CompletionRequest(
            prompt=prompt, model="default", max_tokens=tokens, temperature=0.0, ignore_eos=True
        )
        usage = self.runner.send_completion_request(request).usage
        if usage.completion_tokens != tokens:
            raise RuntimeError(f"mistral.rs wrote {usage.completion_tokens} tokens, not {tokens}.")
        return usage

    def _prompt(self, tokens: int) -> str:
        """A text of so many tokens, with whatever mistral.rs puts before it."""
        words = [self.random.choice(_WORDS) for _ in range(tokens)]
        while words:
            text = " ".join(words)
            excess = len(self.runner.tokenize_text(text, True, None)) - tokens
            if excess == 0:
                return text
            words = words[:-excess] if excess > 0 else [*words, "the"]
        raise RuntimeError(f"No prompt has {tokens} tokens.")

    def prefill(self, tokens: int) -> dict[str, Any]:
        """A prompt."""
        usage = self._ask(self._prompt(tokens), 1)
        if usage.prompt_tokens != tokens:
            raise RuntimeError(f"mistral.rs read {usage.prompt_tokens} tokens, not {tokens}.")
        return {"seconds": usage.total_prompt_time_sec}

    def decode(self, depth: int, tokens: int) -> dict[str, Any]:
        """Token after token; the first one comes with the prompt."""
        usage = self._ask(self._prompt(depth), tokens + 1)
        return {"seconds": usage.total_completion_time_sec}


if __name__ == "__main__":
    engine = Engine()
    serve({name: getattr(engine, name) for name in ("load", "prefill", "decode")})
