"""How exact the logits of phicandle, Candle and llama.cpp are, on the same files: `make accuracy`.

Three comparisons, with their record in `benches/record/accuracy.json` and the page `docs/accuracy.md` made from it:

* small models of random weights in the proportions of each model of the family, in several types of weights, and
  SmolLM2-135M: every engine's logits against the float64 reference of the tests;
* greedy answers of SmolLM2-135M, phicandle's beside llama.cpp's: to prompts that leave the model little choice, and
  to open questions;
* the perplexity of SmolLM2-135M on this repository's own prose, phicandle's beside llama.cpp's.

Needs NumPy, the installed package, cargo to build `examples/logits.rs`, and llama-cpp-python in the environment that
`make bench` makes (`--llama PYTHON` names another). `--write-docs` writes the page from the record, measuring nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "benches")]

from comparison import peers  # noqa: E402
from exactness import page  # noqa: E402
from gguf_files import tiny  # noqa: E402
from phi3_shape import cache  # noqa: E402
from reference import Model, nmse  # noqa: E402
from smollm2 import fetch  # noqa: E402

from phicandle import Generator, _phicandle  # noqa: E402

RECORD = ROOT / "benches" / "record" / "accuracy.json"
PAGE = ROOT / "docs" / "accuracy.md"
RUNNER = ROOT / "benches" / "comparison" / "runners" / "llama_logits.py"
ENGINES = ("phicandle", "candle", "llama.cpp")
#: Positions of every model in the table: more than 200.
PROMPTS, LENGTH = 6, 40
CONTEXT = 64
QUANTS = ("F16", "Q8_0", "Q4_0", "Q4_K", "Q6_K")
WIDE: dict[str, Any] = {"embd": 256, "ff": 512, "heads": 8, "kv_heads": 8, "head_dim": 32, "layers": 4}
GROUPED: dict[str, Any] = {**WIDE, "kv_heads": 2}
#: What is the model's own: heads, groups, the part that turns, bases, stretches, windows, experts, biases.
MODELS: dict[str, dict[str, Any]] = {
    "Phi-2": {**WIDE, "arch": "phi2", "rope_dim": 12},
    "Phi-3-mini-4k": WIDE,
    "Phi-3-mini-4k past its window": {**WIDE, "window": 24},
    "Phi-3-medium-4k": GROUPED,
    "Phi-3.5-mini": {**WIDE, "scaling": "longrope", "context": 2**17},
    "Phi-3.5-MoE": {**GROUPED, "arch": "phimoe", "experts": 16, "ff": 256, "scaling": "longrope", "context": 2**17},
    "Phi-4": {**GROUPED, "rope_base": 250_000.0, "context": 16_384},
    "Phi-4-mini": {**GROUPED, "rope_dim": 24, "tied": True, "scaling": "longrope", "context": 2**17},
    "Phi-4, llamafied": {**GROUPED, "arch": "llama"},
}  # fmt: skip
#: Prompts that leave little choice, and whether each is text for the model as it stands. Of 45 that were tried with
#: phicandle alone, the best token leads everywhere by most in the answers to these: 0.28 at least. None was tried with
#: llama.cpp before.
DECIDED = (
    ("10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120,", True),
    ("1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13,", True),
    ("A, B, C, A, B, C, A, B, C, A, B,", True),
    ("0 1 0 1 0 1 0 1 0 1 0 1 0 1 0 1", True),
    (
        "January, February, March, April, May, June, July, August, September, October, November, December, "
        "January, February,",
        True,
    ),
    ("What are the first twenty prime numbers?", False),
    ("Write the numbers from 100 down to 80.", False),
    ("Write the numbers from 1 to 30, each on a line of its own.", False),
    ("I will not talk in class.\nI will not talk in class.\nI will not talk in class.\n", True),
    ("Count from 1 to 40, separated by commas.", False),
)
QUESTIONS = (
    "What is the capital of France?",
    "Explain in two sentences why the sky is blue.",
    "Write a haiku about ice hockey.",
    "List three uses of a paper clip.",
    "What is the difference between a list and a tuple in Python?",
    "Tell me a short story about a fox and a crow.",
    "How do I boil an egg?",
    "Who wrote Pride and Prejudice?",
    "Translate 'good morning' into Spanish.",
    "Give me advice for a job interview.",
)
WRITTEN = 64
WINDOW, STRIDE = 1024, 512
PROSE = ("DESIGN.md", "CONTRIBUTING.md")

Rows = npt.NDArray[np.float32]


def rows_of(command: list[str | Path], request: object, width: int) -> Rows | str:
    """The rows that a command writes; its last line of complaint when it fails."""
    done = subprocess.run(
        [str(word) for word in command],
        input=json.dumps(request).encode(),
        capture_output=True,
        check=False,
    )
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"status {done.returncode}"
    return np.frombuffer(done.stdout, "<f4").reshape(-1, width)


class Measurer:
    """Both ways to compute, and where the interpreter of the third is."""

    def __init__(self, llama: Path, threads: int) -> None:
        build = ["cargo", "build", "--quiet", "--locked", "--example", "logits"]
        subprocess.run(build, cwd=ROOT, check=True)
        target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
        self.logits = target / "debug" / "examples" / ("logits.exe" if os.name == "nt" else "logits")
        self.llama, self.threads = llama, threads

    def ask(self, path: Path, what: str, context: int, **more: object) -> dict[str, object]:
        """A request for llama.cpp."""
        return {"path": str(path), "what": what, "context": context, "threads": self.threads, **more}

    def answer(self, request: dict[str, object]) -> Any:
        """What llama.cpp says to it."""
        done = subprocess.run(
            [self.llama, RUNNER], input=json.dumps(request).encode(), stdout=subprocess.PIPE, check=True
        )
        return json.loads(done.stdout)

    def table(self, path: Path, prompts: list[list[int]], context: int) -> dict[str, Any]:
        """NMSE and top-1 agreement of each engine on one file, or why it does not run it."""
        model = Model(path, context=context)
        expected = np.concatenate([model.logits(prompt) for prompt in prompts])
        ids = [",".join(map(str, prompt)) for prompt in prompts]
        ours: list[str | Path] = [self.logits, path, f"context={context}", f"threads={self.threads}"]
        width = expected.shape[1]
        # llama.cpp rounds a context up to a multiple of 256, so it is told what it makes of it.
        llama = self.ask(path, "rows", max(context, 256), prompts=prompts)
        found = {
            "phicandle": rows_of([*ours, "backend=native", *ids], None, width),
            "candle": rows_of([*ours, "backend=candle", *ids], None, width),
            "llama.cpp": rows_of([self.llama, RUNNER], llama, width),
        }
        best = expected.argmax(-1)
        figures: dict[str, Any] = {"positions": len(expected)}
        for name, rows in found.items():
            if isinstance(rows, str):
                figures[name] = {"refused": rows}
            else:
                agreed = float((rows.argmax(-1) == best).mean())
                figures[name] = {"nmse": nmse(rows, expected), "top1": agreed}
        return figures

    def greedy(self, path: Path, questions: Sequence[tuple[str, bool]]) -> list[dict[str, Any]]:
        """Both answers to each question, the least lead of the best token in phicandle's, and where they part."""
        with Generator(path, context_length=512) as generator:
            tokenizer = generator.tokenizer
            prompts = [
                tokenizer.encode(text)
                if raw
                else tokenizer.apply_chat_template(
                    [{"role": "user", "content": text}], add_generation_prompt=True, tokenize=True
                )
                for text, raw in questions
            ]
            said = [
                generator.generate(
                    prompt, temperature=0, repeat_penalty=1.0, max_tokens=WRITTEN, ignore_eos=True, logprobs=2
                ).logprobs
                or ()
                for prompt in prompts
            ]
        answers = self.answer(self.ask(path, "greedy", 512, prompts=prompts, tokens=WRITTEN))
        results = []
        for (text, _), ours, theirs in zip(questions, said, answers, strict=True):
            pairs = enumerate(zip(ours, theirs, strict=True))
            apart = next((place for place, (our, their) in pairs if our.token_id != their[0]), None)
            gaps = [token.top[0].logprob - token.top[1].logprob for token in ours]
            result: dict[str, Any] = {"question": text, "equal": apart is None, "least_gap": min(gaps)}
            if apart is not None:
                result |= {
                    "place": apart,
                    "phicandle_gap": gaps[apart],
                    "llama_gap": theirs[apart][1] - theirs[apart][3],
                }
            results.append(result)
        return results

    def perplexity(self, path: Path) -> dict[str, Any]:
        """Both perplexities of the same tokens in the same windows."""
        text = "\n".join((ROOT / name).read_text(encoding="utf-8") for name in PROSE)
        with Generator(path, context_length=WINDOW) as generator:
            ids = generator.tokenizer.encode(text, bos=False)
            found = generator.perplexity(ids, window=WINDOW, stride=STRIDE)
        windows = _phicandle.windows(len(ids), WINDOW, STRIDE)
        sums = self.answer(self.ask(path, "windows", WINDOW, ids=ids, windows=windows))
        theirs = float(np.exp(-sum(sums) / found.scored_tokens))
        return {
            "text": list(PROSE),
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
            "tokens": len(ids),
            "window": WINDOW,
            "stride": STRIDE,
            "phicandle": float(found),
            "llama.cpp": theirs,
        }


def small_models(measurer: Measurer) -> dict[str, Any]:
    """The table's rows of random weights."""
    figures = {}
    ids: list[list[int]] = np.random.default_rng(1).integers(390, size=(PROMPTS, LENGTH)).tolist()
    with tempfile.TemporaryDirectory() as folder:
        for name, shape in MODELS.items():
            for quant in QUANTS:
                path = Path(folder) / "model.gguf"
                tiny(**shape, dtype=quant).write(path)
                figures[f"{name}|{quant}"] = measurer.table(path, ids, CONTEXT)
                print(name, quant, json.dumps(figures[f"{name}|{quant}"]), flush=True)
    return figures


def measure(llama: Path, threads: int) -> dict[str, Any]:
    """Everything."""
    measurer = Measurer(llama, threads)
    table = small_models(measurer)
    path = fetch()
    with Generator(path, context_length=512) as generator:
        prose = generator.tokenizer.encode((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))[:240]
    table["SmolLM2-135M-Instruct|Q4_1"] = measurer.table(path, [prose], 256)
    return {
        "llama.cpp": next(peer.requirement for peer in peers.PEERS if peer.folder == "llama-cpp"),
        "table": table,
        "decided": measurer.greedy(path, DECIDED),
        "greedy": measurer.greedy(path, [(question, False) for question in QUESTIONS]),
        "perplexity": measurer.perplexity(path),
    }


def main() -> int:
    """Measures and writes, or only writes, or checks that the page says what the record says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write-docs", action="store_true", help="write the page from the record")
    parser.add_argument("--check", action="store_true", help="fail when the page is not the record's")
    parser.add_argument("--llama", type=Path, default=None, metavar="PYTHON")
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    if not (chosen.write_docs or chosen.check):
        llama = chosen.llama or cache() / "llama-cpp" / "bin" / "python"
        if not llama.exists():
            sys.exit(f"There is no {llama}. `make bench` makes it, or name a Python with --llama.")
        record = measure(llama, chosen.threads)
        RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    text = page.write(json.loads(RECORD.read_text(encoding="utf-8")), ENGINES)
    if chosen.check:
        if not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
            print(f"{PAGE} is not what {RECORD} says: run benches/accuracy.py --write-docs", file=sys.stderr)
            return 1
        return 0
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
