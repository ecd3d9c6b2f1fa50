"""Processes: fork, spawn, and a generator that travels between them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import repeats

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")


def run(program: str, *arguments: object, code: int = 0, cwd: Path | None = None) -> str:
    """Runs a program that must end with `code` and say nothing on standard error; returns what it printed."""
    words = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program, *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, cwd=cwd)
    assert done.returncode == code, done.stderr
    assert done.stderr == ""
    return done.stdout


def run_file(program: str, folder: Path, *arguments: object) -> str:
    """Runs a program from a file, as `multiprocessing` wants it; returns what it printed."""
    path = folder / "program.py"
    path.write_text(program)
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", path, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


FORK = """
import asyncio, gc, os, signal, sys
from phicandle import ForkError, Generator
generator = Generator(sys.argv[1])
tokenizer = generator.tokenizer
endless = {"max_tokens": None, "ignore_eos": True}
stream = generator.stream("ice", **endless)
next(stream)
async def begin():
    return generator.astream("ice", **endless)
astream = asyncio.run(begin())
async def follow():
    async for _ in astream:
        pass
async def first():
    async with generator.astream("ice") as answer:
        await answer.__anext__()
child = os.fork()
if child == 0:
    signal.alarm(20)
    calls = {
        "generate": lambda: generator.generate("ice"),
        "stream": lambda: generator.stream("ice"),
        "agenerate": lambda: asyncio.run(generator.agenerate("ice")),
        "astream": lambda: asyncio.run(first()),
        "score": lambda: generator.score("ice", ["cream"]),
        "ascore": lambda: asyncio.run(generator.ascore("ice", ["cream"])),
        "perplexity": lambda: generator.perplexity("ice hockey"),
        "aperplexity": lambda: asyncio.run(generator.aperplexity("ice hockey")),
        "stats": lambda: generator.stats,
        "tokenizer": lambda: generator.tokenizer,
        "next": lambda: next(stream),
        "result": lambda: stream.result(),
        "result in time": lambda: stream.result(timeout=1),
        "partial": lambda: stream.partial(),
        "text": lambda: stream.text,
        "done": lambda: stream.done,
        "async for": lambda: asyncio.run(follow()),
        "await result": lambda: asyncio.run(astream.result()),
        "async text": lambda: astream.text,
        "Generator": lambda: Generator(sys.argv[1]),
    }
    for name, call in calls.items():
        try:
            call()
        except ForkError as error:
            assert "spawn" in str(error), error
        else:
            print(name, "was not refused")
    # What only takes leave, or asks for nothing that a thread has, is let be.
    repr(generator), repr(stream), repr(astream), generator.info
    assert tokenizer.decode(tokenizer.encode("ice")) == "ice"
    with stream:
        stream.cancel()
    stream.close()
    asyncio.run(astream.aclose())
    with generator:
        pass
    generator.close()
    del generator, stream, astream
    gc.collect()
    sys.exit(len(calls))
_, status = os.waitpid(child, 0)
next(stream)
stream.cancel()
print(os.waitstatus_to_exitcode(status), stream.result().finish_reason)
"""


@needs_fork
def test_a_forked_child_is_told_at_once(tiny_file: Path) -> None:
    assert run(FORK, tiny_file) == "20 cancelled\n"


FORKS = """
import os, signal, sys, threading
from phicandle import ForkError, Generator
generator = Generator(sys.argv[1])
stop = threading.Event()
def ask(number):
    while not stop.is_set():
        generator.generate("ice", seed=number, max_tokens=20)
threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
for thread in threads:
    thread.start()
codes = []
for _ in range(int(sys.argv[2])):
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        try:
            generator.generate("ice")
        except ForkError:
            sys.exit(5)
        sys.exit(6)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
stop.set()
for thread in threads:
    thread.join()
print(codes.count(5))
"""


@needs_fork
def test_no_fork_in_the_middle_of_work_hangs(tiny_file: Path) -> None:
    count = repeats(20, 200)
    assert run(FORKS, tiny_file, count) == f"{count}\n"


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


FORK_POOL = """
import multiprocessing, sys
from phicandle import ForkError, Generator

def answer(generator):
    return generator.generate("ice", seed=1, max_tokens=10).text

def unused(generator):
    return repr(generator)

def load(path):
    return answer(Generator(path))

if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    with context.Pool(2) as early:
        texts = early.map(load, sys.argv[1:] * 2)
        generator = Generator(sys.argv[1])
        print(texts == [answer(generator)] * 2)
    with context.Pool(1) as late:
        print(late.apply(unused, (generator,)))
        try:
            late.map(answer, [generator])
        except ForkError as error:
            print("ForkError", "spawn" in str(error))
"""


@needs_fork
def test_a_pool_of_forked_workers_answers_or_says_why_not(tiny_file: Path, tmp_path: Path) -> None:
    """One forked before the first load works; a task of a later one fails, and is not waited for without end."""
    assert run_file(FORK_POOL, tmp_path, tiny_file).splitlines() == [
        "True",
        "<phicandle.Generator of the parent process>",
        "ForkError True",
    ]


SPAWN = """
import multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
from phicandle import Generator

def answer(generator):
    return generator.generate("ice", seed=1, max_tokens=10).text

def keep(generator):
    global kept
    kept = generator

def use(seed):
    return kept.generate("ice", seed=seed, max_tokens=10).text

if __name__ == "__main__":
    generator = Generator(sys.argv[1])
    context = multiprocessing.get_context(sys.argv[2])
    with context.Pool(2) as pool:
        print(pool.map(answer, [generator, generator]) == [answer(generator)] * 2)
    with ProcessPoolExecutor(2, mp_context=context, initializer=keep, initargs=(generator,)) as pool:
        serial = [generator.generate("ice", seed=seed, max_tokens=10).text for seed in range(4)]
        print(list(pool.map(use, range(4))) == serial)
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_worker_gets_the_generator(tiny_file: Path, tmp_path: Path, method: str) -> None:
    if method == "forkserver" and not hasattr(os, "fork"):
        pytest.skip("needs os.fork")
    assert run_file(SPAWN, tmp_path, tiny_file, method) == "True\nTrue\n"


JOBLIB = """
import sys
from joblib import Parallel, delayed
from phicandle import Generator

def answer(generator, seed):
    return generator.generate("ice", seed=seed, max_tokens=10).text

if __name__ == "__main__":
    generator = Generator(sys.argv[1])
    texts = Parallel(n_jobs=2)(delayed(answer)(generator, seed) for seed in range(4))
    print(texts == [answer(generator, seed) for seed in range(4)])
"""


def test_joblib_workers_get_the_generator(tiny_file: Path, tmp_path: Path) -> None:
    assert run_file(JOBLIB, tmp_path, tiny_file) == "True\n"


ACTOR = """
import sys, cloudpickle
from phicandle import Generator
generator = Generator(sys.argv[1])
class Actor:
    def __init__(self):
        self.generator = generator
    def ask(self, seed):
        return self.generator.generate("ice", seed=seed, max_tokens=10).text
with open(sys.argv[2], "wb") as file:
    cloudpickle.dump(Actor, file)
print(Actor().ask(3).encode())
"""
ACT = """
import pickle, sys
with open(sys.argv[1], "rb") as file:
    print(pickle.load(file)().ask(3).encode())
"""


def test_an_actor_takes_its_generator_to_a_process_in_another_folder(tiny_file: Path, tmp_path: Path) -> None:
    """As Ray sends a class: by cloudpickle, to a process that works elsewhere."""
    asked = run(ACTOR, tiny_file.name, tmp_path / "actor", cwd=tiny_file.parent)
    assert run(ACT, tmp_path / "actor", cwd=tmp_path) == asked


def test_the_command_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "phicandle", "--version"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "phicandle" in done.stdout
