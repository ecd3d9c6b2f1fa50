"""Processes: fork, spawn, and a clean exit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")


def run(program: str, *arguments: object, code: int = 0) -> str:
    """Runs a program that must end with `code` and say nothing on standard error; returns what it printed."""
    words = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program, *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stderr
    assert done.stderr == ""
    return done.stdout


FORK = """
import gc, os, sys
from phicandle import ForkError, Generator
generator = Generator(sys.argv[1])
stream = generator.stream("ice", max_tokens=None, ignore_eos=True)
next(stream)
child = os.fork()
if child == 0:
    calls = [
        lambda: generator.generate("ice"),
        lambda: generator.stats,
        lambda: next(stream),
        lambda: stream.result(),
        lambda: stream.text,
        lambda: Generator(sys.argv[1]),
    ]
    caught = 0
    for call in calls:
        try:
            call()
        except ForkError as error:
            caught += "spawn" in str(error)
    generator.close()
    stream.close()
    del generator, stream
    gc.collect()
    sys.exit(caught)
_, status = os.waitpid(child, 0)
next(stream)
stream.cancel()
print(os.waitstatus_to_exitcode(status), stream.result().finish_reason)
"""


@needs_fork
def test_a_forked_child_is_told_at_once(tiny_file: Path) -> None:
    assert run(FORK, tiny_file) == "6 cancelled\n"


FORK_FIRST = """
import os, sys
import phicandle
phicandle.SamplingParams()
child = os.fork()
if child == 0:
    answer = phicandle.Generator(sys.argv[1]).generate("ice", max_tokens=3, ignore_eos=True)
    sys.exit(len(answer.token_ids))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@needs_fork
def test_a_child_forked_before_loading_may_load(tiny_file: Path) -> None:
    assert run(FORK_FIRST, tiny_file) == "3\n"


SPAWN = """
import multiprocessing, sys
from phicandle import Generator

def answer(generator):
    return generator.generate("ice", seed=1, max_tokens=10).text

if __name__ == "__main__":
    generator = Generator(sys.argv[1])
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        texts = pool.map(answer, [generator, generator])
    print(texts == [answer(generator)] * 2)
"""


def test_a_spawned_worker_gets_the_generator(tiny_file: Path, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(SPAWN)
    done = subprocess.run([sys.executable, program, tiny_file], capture_output=True, text=True, timeout=60)
    assert done.stdout == "True\n", done.stderr


EXITS = {
    "running": "streams = [generator.stream('ice', **endless) for _ in range(3)]; next(streams[0])",
    "thread": (
        "threading.Thread(target=generator.stream('ice', **endless).result, daemon=True).start(); time.sleep(0.05)"
    ),
    "threads": (
        "[threading.Thread(target=lambda: [None for _ in generator.stream('ice', **endless)], daemon=True).start()"
        " for _ in range(4)]; time.sleep(0.05)"
    ),
    "cycle": "stream = generator.stream('ice', **endless); next(stream); loop = [stream, generator]; loop.append(loop)",
    "prefill": "stream = generator.stream('ice hockey ' * 800, **endless)",
    "closed": "generator.close()",
}
EXIT = """
import sys, threading, time
from phicandle import Generator
generator = Generator(sys.argv[1])
endless = {{"max_tokens": None, "ignore_eos": True}}
def quiet(arguments):
    # A daemon thread whose answer is ended by the exit may say so.
    assert arguments.exc_type.__name__ == "GenerationCancelled", arguments
threading.excepthook = quiet
{body}
print("bye")
"""


@pytest.mark.parametrize("body", EXITS)
def test_exit_is_clean(tiny_file: Path, body: str) -> None:
    program = EXIT.format(body=EXITS[body])
    for _ in range(5):
        assert run(program, tiny_file) == "bye\n"


def test_an_exit_code_is_kept(tiny_file: Path) -> None:
    program = EXIT.format(body=EXITS["running"]) + "sys.exit(7)\n"
    assert run(program, tiny_file, code=7) == "bye\n"


ASYNC_EXIT = """
import asyncio, sys
from phicandle import Generator
async def main():
    stream = Generator(sys.argv[1]).astream("ice", max_tokens=None, ignore_eos=True)
    task = asyncio.ensure_future(stream.result())
    await stream.__anext__()
    print("bye")
asyncio.run(main())
"""


def test_exit_with_a_waiting_task_is_clean(tiny_file: Path) -> None:
    assert run(ASYNC_EXIT, tiny_file) == "bye\n"


def test_the_command_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "phicandle", "--version"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "phicandle" in done.stdout
