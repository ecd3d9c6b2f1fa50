"""openvino-genai through its Python package, and its own clock. It reads GGUF files of some architectures."""

from __future__ import annotations

import random
from importlib.metadata import version
from typing import Any

import numpy as np
import openvino
import openvino_genai
from wire import seconds, serve


class Engine:
    """The loaded model."""

    def __init__(self) -> None:
        self.pipeline: Any = None
        self.loaded = ""
        self.random = random.Random(1)  # noqa: S311 - tokens, not keys

    def load(self, model: str, threads: int) -> dict[str, Any]:
        """Loads a file, unless it is loaded."""
        took = 0.0
        if self.loaded != model:

            def read() -> None:
                self.pipeline = openvino_genai.LLMPipeline(model, "CPU", INFERENCE_NUM_THREADS=threads)

            took = seconds(read)
            self.loaded = model
            self._ask(32, 4)
        return {"load_s": took, "version": version("openvino-genai")}

    def _ask(self, prompt: int, tokens: int) -> Any:
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = tokens
        config.ignore_eos = True
        config.do_sample = False
        # Other tokens each time: it keeps what it has read before.
        ids = np.array([[self.random.randrange(1000, 30000) for _ in range(prompt)]], dtype=np.int64)
        inputs = openvino_genai.TokenizedInputs(openvino.Tensor(ids), openvino.Tensor(np.ones_like(ids)))
        metrics = self.pipeline.generate(inputs, config).perf_metrics
        if metrics.get_num_generated_tokens() != tokens:
            raise RuntimeError(
                f"openvino-genai wrote {metrics.get_num_generated_tokens()} tokens, not {tokens}."
            )
        return metrics

    def prefill(self, tokens: int) -> dict[str, Any]:
        """A prompt, and the token after it."""
        return {"seconds": self._ask(tokens, 1).get_ttft().mean / 1000}

    def decode(self, depth: int, tokens: int) -> dict[str, Any]:
        """Token after token; the first one comes with the prompt."""
        return {"seconds": self._ask(depth, tokens + 1).get_tpot().mean / 1000 * tokens}


if __name__ == "__main__":
    engine = Engine()
    serve({name: getattr(engine, name) for name in ("load", "prefill", "decode")})
