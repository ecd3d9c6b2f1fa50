"""`Generator(file, backend="candle")` says what `examples/cookbook.rs` says, for the same file, prompt and seed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

import phicandle
from phicandle import Generator

ROOT = Path(__file__).resolve().parent.parent
DEMO = Path(phicandle.__file__).with_name("demo.gguf")
TUTORIAL = "<|user|>\nWrite a haiku about ice hockey<|end|>\n<|assistant|>"
PROMPTS = [TUTORIAL, "Write a haiku about rain", "Hello there"]


@pytest.fixture(scope="module")
def cookbook() -> Path:
    """The example, built. `cargo test` has built it before, so this is a look-up."""
    cargo = shutil.which("cargo")
    if cargo is None:
        pytest.skip("SKIPPED: there is no cargo to build examples/cookbook.rs with")
    build = [cargo, "build", "--quiet", "--locked", "--example", "cookbook"]
    subprocess.run(build, cwd=ROOT, check=True, timeout=1800)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return target / "debug" / "examples" / ("cookbook.exe" if os.name == "nt" else "cookbook")


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_same_text_as_the_cookbook(cookbook: Path, prompt: str) -> None:
    with Generator(DEMO, backend="candle") as generator:
        for seed in (0, 1, 299792458):
            said = subprocess.run(
                [cookbook, DEMO, prompt, str(seed)], capture_output=True, text=True, check=True, timeout=120
            )
            assert said.stdout == generator.generate(prompt, seed=seed).text + "\n"
