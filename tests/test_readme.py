"""The README does what it says: its Python snippets run, its commands and files exist."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import phicandle

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"


class Block(NamedTuple):
    """A fenced block of the README."""

    language: str
    line: int
    code: str


def blocks() -> Iterator[Block]:
    """Every fenced block. ```` ```python no_run ```` is only compiled: it needs the hub, or a GPU."""
    language, first, lines = "", 0, []
    for number, line in enumerate(README.read_text(encoding="utf-8").splitlines(), 1):
        if not line.startswith("```"):
            lines.append(line)
        elif language:
            yield Block(language, first, "\n".join(lines))
            language = ""
        else:
            language, first, lines = line[3:].strip() or "text", number + 1, []


PYTHON = [block for block in blocks() if block.language.split()[0] == "python"]
SHELL = [block for block in blocks() if block.language in {"console", "sh", "bash"}]


def commands() -> Iterator[list[str]]:
    """The commands of the shell blocks, as words; `$ ` before one is a prompt."""
    for block in SHELL:
        for line in block.code.replace("\\\n", " ").splitlines():
            if words := shlex.split(line.removeprefix("$ "), comments=True):
                yield words


class DemoGenerator:
    """`Generator` whose every model is the demo: a snippet may name one that is gigabytes away."""

    def __new__(cls, model: str | None = None, **options: Any) -> Any:
        for name in ("filename", "revision", "tokenizer", "token"):
            options.pop(name, None)
        return _Generator("demo", **options)

    @staticmethod
    def estimate(model: str | None = None, **options: Any) -> Any:
        """The plan of the demo."""
        return _Generator.estimate("demo", **options)


_Generator = phicandle.Generator


@pytest.fixture(scope="module")
def namespace() -> dict[str, Any]:
    """One for all snippets, in order: a reader goes on where the last one ended."""
    return {"__name__": "readme"}


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: f"line{block.line}")
def test_python_snippet_runs(
    block: Block, namespace: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # The empty lines make a traceback point into the README.
    tree = ast.parse("\n" * (block.line - 1) + block.code, str(README))
    code = compile(tree, str(README), "exec")
    if "no_run" in block.language:
        return
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(phicandle, "Generator", DemoGenerator)
    exec(code, namespace)


def test_there_is_a_snippet_and_most_run() -> None:
    run = [block for block in PYTHON if "no_run" not in block.language]
    assert len(run) > len(PYTHON) / 2


def test_commands_exist() -> None:
    subcommands = set()
    for words in commands():
        if words[:3] == [words[0], "-m", "phicandle"]:
            words = words[2:]
        if words[0] == "phicandle" and len(words) > 1 and not words[1].startswith("-"):
            subcommands.add(words[1])
    assert subcommands, "the README shows no phicandle command"
    for name in sorted(subcommands):
        answer = subprocess.run(
            [sys.executable, "-m", "phicandle", name, "--help"], capture_output=True, text=True, timeout=60
        )
        assert answer.returncode == 0, f"phicandle {name} --help: {answer.stderr}"


def test_make_targets_exist() -> None:
    targets = set(
        re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    )
    named = {word for words in commands() if words[0] == "make" for word in words[1:] if "=" not in word}
    assert {"demo", "test"} <= named, "the README shows the two commands of a newcomer"
    assert named <= targets


def test_linked_files_exist() -> None:
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", README.read_text(encoding="utf-8"))
    missing = [link for link in links if not (ROOT / link).exists()]
    assert not missing
