"""The end of the interpreter with work under way: at once, without a word, with the exit code that was asked for."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import repeats

# With these, every way to leave is tried at least 200 times in all.
TIMES = repeats(2, 15)

BEGIN = """
import asyncio, atexit, os, signal, sys, threading, time
from phicandle import Generator
joined = []
atexit.register(lambda: [thread.join(20) for thread in joined])
generator = Generator(sys.argv[1], max_batch=4)
endless = {"max_tokens": None, "ignore_eos": True}
def read():
    for chunk in generator.stream("ice", **endless):
        pass
def daemon(target, *arguments):
    thread = threading.Thread(target=target, args=arguments, daemon=True)
    thread.start()
    return thread
def busy(requests=1):
    while generator.stats.active + generator.stats.queued < requests:
        time.sleep(0.001)
"""

# What the program does before it says goodbye.
BODIES = {
    "streams": "streams = [generator.stream('ice', **endless) for _ in range(3)]; next(streams[0])",
    "queued streams": "streams = [generator.stream('ice', **endless) for _ in range(12)]; next(streams[0])",
    "prompt": "stream = generator.stream('ice hockey ' * 800, **endless)",
    "cycle": "stream = generator.stream('ice', **endless); next(stream); loop = [stream, generator]; loop.append(loop)",
    "closed": "generator.close()",
    "daemon waits for a result": "daemon(lambda: generator.generate('ice', **endless)); busy()",
    "daemons read streams": "[daemon(read) for _ in range(4)]; busy()",
    "daemon asks again and again": (
        "def ask():\n    while True:\n        generator.generate('ice', max_tokens=3)\n"
        "[daemon(ask) for _ in range(4)]; time.sleep(0.02)"
    ),
    "daemon that is joined at exit": "joined.append(daemon(read)); busy()",
    "daemon with an event loop": (
        "async def main():\n    await asyncio.gather(*(generator.agenerate('ice', **endless) for _ in range(3)))\n"
        "daemon(asyncio.run, main()); busy(3)"
    ),
    "daemon whose tasks ask again and again": (
        "async def ask():\n    while True:\n        await generator.agenerate('ice', max_tokens=3)\n"
        "async def batch():\n    while True:\n        await generator.abatch(['ice', 'tea'], max_tokens=3)\n"
        "async def score():\n    while True:\n        await generator.ascore('ice', ['tea'])\n"
        "async def main():\n    await asyncio.gather(ask(), ask(), batch(), score())\n"
        "daemon(asyncio.run, main()); time.sleep(0.05)"
    ),
    "stream of a loop that is gone": (
        "async def main():\n    stream = generator.astream('ice', **endless)\n    await stream.__anext__()\n"
        "    return stream\n"
        "stream = asyncio.run(main())"
    ),
    "tasks that wait": (
        "async def main():\n    stream = generator.astream('ice', **endless)\n"
        "    task = asyncio.ensure_future(stream.result())\n    await stream.__anext__()\n"
        "asyncio.run(main())"
    ),
    "generator in a class": "class Holder:\n    generator = generator\n    stream = generator.stream('ice', **endless)",
    "answer in a callback at exit": (
        "atexit.register(lambda: generator.generate('ice', max_tokens=3))\n"
        "stream = generator.stream('ice', max_tokens=500)"
    ),
}
# What it does in place of a goodbye, and the code that it ends with.
ENDS = {
    "sys.exit in a loop": ("for _ in generator.stream('ice', **endless): sys.exit(7)", 7),
    "sys.exit in a task": (
        "async def main():\n    async for _ in generator.astream('ice', **endless):\n        sys.exit(7)\n"
        "asyncio.run(main())",
        7,
    ),
    "SIGTERM": (
        "stream = generator.stream('ice', **endless)\nos.kill(os.getpid(), signal.SIGTERM)\nstream.result()",
        -signal.SIGTERM,
    ),
    "SIGTERM that is handled": (
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))\n"
        "threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()\n"
        "generator.generate('ice', **endless)",
        3,
    ),
    "os._exit": ("stream = generator.stream('ice', **endless)\nos._exit(4)", 4),
}


def run(tiny_file: Path, body: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BEGIN + body, tiny_file], capture_output=True, text=True, timeout=30
    )


@pytest.mark.parametrize("body", BODIES)
def test_exit_is_clean(tiny_file: Path, body: str) -> None:
    for _ in range(TIMES):
        done = run(tiny_file, BODIES[body] + "\nprint('bye')\n")
        assert (done.returncode, done.stdout, done.stderr) == (0, "bye\n", "")


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent with os.kill")
@pytest.mark.parametrize("end", ENDS)
def test_an_exit_code_is_kept(tiny_file: Path, end: str) -> None:
    body, code = ENDS[end]
    for _ in range(TIMES):
        done = run(tiny_file, body)
        assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


def test_an_error_is_the_only_thing_said(tiny_file: Path) -> None:
    for _ in range(TIMES):
        done = run(
            tiny_file, "[daemon(read) for _ in range(3)]; busy()\nfor _ in [generator.stream('ice')]: 1 / 0"
        )
        assert done.returncode == 1
        assert done.stderr.count("Traceback") == 1
        assert done.stderr.endswith("ZeroDivisionError: division by zero\n")


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent with os.kill")
def test_ctrl_c_is_the_only_thing_said(tiny_file: Path) -> None:
    body = (
        "[daemon(read) for _ in range(3)]; busy()\n"
        "threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "generator.generate('ice', **endless)"
    )
    for _ in range(TIMES):
        done = run(tiny_file, body)
        assert done.returncode == -signal.SIGINT
        assert done.stderr.count("Traceback") == 1
        assert done.stderr.endswith("KeyboardInterrupt\n")


def test_work_that_the_program_waits_for_is_finished(tiny_file: Path) -> None:
    """Python waits for threads that are no daemons, and for executors: their answers are whole."""
    body = """
from concurrent.futures import ThreadPoolExecutor
def answer(number):
    answer = generator.generate("ice", seed=number, max_tokens=40, ignore_eos=True)
    print(f"{len(answer.token_ids)}\\n", end="")  # In one piece: the threads share the line.
threading.Thread(target=answer, args=(1,)).start()
pool = ThreadPoolExecutor(2)
for number in range(4):
    pool.submit(answer, number)
"""
    for _ in range(TIMES):
        done = run(tiny_file, body)
        assert (done.returncode, done.stdout, done.stderr) == (0, "40\n" * 5, "")


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGPIPE")
def test_a_loop_that_is_gone_does_not_end_a_program_that_lets_sigpipe_kill(tiny_file: Path) -> None:
    body = """
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
async def main():
    return generator.astream("ice", max_tokens=200, ignore_eos=True)
stream = asyncio.run(main())
generator._wakers.clear()
stream._waker._socket.close()
while generator.stats.finished == 0:
    time.sleep(0.01)
print("bye")
"""
    done = run(tiny_file, body)
    assert (done.returncode, done.stdout, done.stderr) == (0, "bye\n", "")
