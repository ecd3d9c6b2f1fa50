"""How far logits are from exact arithmetic: phicandle's, Candle's and llama.cpp's, on the same files.

``python benches/accuracy.py`` writes small models of random weights of every type, runs the same tokens through each
engine and through the float64 reference of the tests, and prints the normalised mean square errors. A model file as an
argument is measured too. llama.cpp comes from the environment that `benches/compare.py` makes; where that is not, it is
left out. Needs NumPy, and cargo to build `examples/logits.rs`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from gguf_blocks import WEIGHTS  # noqa: E402
from gguf_files import write_tiny  # noqa: E402
from reference import Model, nmse  # noqa: E402

CACHE = Path.home() / ".cache" / "phicandle-bench"
LLAMA = """
import sys
import numpy as np
from llama_cpp import Llama
path, *prompts = sys.argv[1:]
model = Llama(path, n_ctx=512, n_batch=512, n_threads=1, logits_all=True, verbose=False)
for prompt in prompts:
    ids = [int(word) for word in prompt.split(",")]
    model.reset()
    model.eval(ids)
    sys.stdout.buffer.write(np.array(model.scores[: len(ids)], "<f4").tobytes())
"""
Rows = npt.NDArray[np.float32]


def run(command: Sequence[str | Path], width: int) -> Rows | str:
    """The rows that a command writes; its last line of complaint when it fails."""
    done = subprocess.run([str(word) for word in command], capture_output=True, check=False)
    if done.returncode:
        return done.stderr.decode(errors="replace").strip().splitlines()[-1]
    return np.frombuffer(done.stdout, "<f4").reshape(-1, width)


def measure(path: Path, prompts: list[list[int]], logits: Path, llama: Path | None) -> dict[str, float | str]:
    """The errors of each engine on one file."""
    model = Model(path)
    expected = np.concatenate([model.logits(prompt) for prompt in prompts])
    ids = [",".join(map(str, prompt)) for prompt in prompts]
    commands: dict[str, list[str | Path]] = {
        "phicandle": [logits, path, "backend=native", *ids],
        "candle": [logits, path, "backend=candle", *ids],
    }
    if llama is not None:
        commands["llama.cpp"] = [llama, "-c", LLAMA, path, *ids]
    found = {name: run(command, expected.shape[1]) for name, command in commands.items()}
    return {name: rows if isinstance(rows, str) else nmse(rows, expected) for name, rows in found.items()}


def prompts(vocabulary: int, count: int, length: int) -> list[list[int]]:
    """Random ids, always the same."""
    ids: list[list[int]] = np.random.default_rng(1).integers(vocabulary, size=(count, length)).tolist()
    return ids


def main() -> None:
    """Prints a row per file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*", type=Path, help="model files to measure too")
    parser.add_argument(
        "--llama", type=Path, default=CACHE / "llama-cpp" / "bin" / "python", metavar="PYTHON"
    )
    parser.add_argument("--json", type=Path, help="where to write the figures")
    chosen = parser.parse_args()
    subprocess.run(["cargo", "build", "--quiet", "--locked", "--example", "logits"], cwd=ROOT, check=True)
    logits = ROOT / "target" / "debug" / "examples" / "logits"
    llama = chosen.llama if chosen.llama.exists() else None
    figures: dict[str, dict[str, float | str]] = {}

    def row(name: str, path: Path, tokens: list[list[int]]) -> None:
        figures[name] = measure(path, tokens, logits, llama)
        cells = [
            f"{value:10.2e}" if isinstance(value, float) else "         -" for value in figures[name].values()
        ]
        print(f"{name:24}", *cells)

    print(
        f"{'NMSE':24}", *(f"{name:>10}" for name in ("phicandle", "candle", "llama.cpp")[: 3 if llama else 2])
    )
    with tempfile.TemporaryDirectory() as folder:
        for kind in WEIGHTS:
            path = Path(folder) / "model.gguf"
            # Phi-3's heads, as Candle runs no others: all of them as wide as the embeddings together.
            write_tiny(path, dtype=kind, embd=512, ff=1024, heads=8, kv_heads=8, head_dim=64, layers=4)
            row(f"{kind}, 4 layers of 512", path, prompts(390, 6, 40))
    for path in chosen.files:
        row(path.stem, path, prompts(2000, 1, 40))
    if chosen.json:
        chosen.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
