"""Models for the tests: a tiny one of random weights, which talks nonsense at any length, and the demo."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from gguf_files import write_tiny

from phicandle import Generator

PROMPT = "Write a haiku about ice hockey"

# A shell that starts these tests in its background has them, and every program that they start, ignore Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def repeats(usual: int, long: int) -> int:
    """How often to try what goes wrong once in a hundred times: `long` with `PHICANDLE_LONG_TESTS=1`."""
    return long if os.environ.get("PHICANDLE_LONG_TESTS") == "1" else usual


@pytest.fixture(scope="session")
def tiny_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Phi-3 file with room for 8192 tokens."""
    path = tmp_path_factory.mktemp("models") / "tiny.gguf"
    write_tiny(path, context=8192)
    return path


@pytest.fixture(scope="session")
def tiny(tiny_file: Path) -> Iterator[Generator]:
    """One generator of random weights for tests that do not break it."""
    with Generator(tiny_file) as generator:
        yield generator


@pytest.fixture(scope="session")
def demo() -> Iterator[Generator]:
    """The demo, for tests that do not break it."""
    with Generator("demo") as generator:
        yield generator


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty hub cache and no network. Returns the cache's folder."""
    for name in ("HF_ENDPOINT", "HF_TOKEN", "HF_HUB_TOKEN", "HF_TOKEN_PATH", "PHICANDLE_MODEL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path / "hub"
