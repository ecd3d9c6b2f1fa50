"""Several Generators in one process: their threads, and what they use when nobody asks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

# In a process of its own, so that no other test's threads or time count.
PROGRAM = """
import json, os, resource, threading, time
from pathlib import Path
from phicandle import Generator

def threads():
    return sum(1 for task in Path("/proc/self/task").iterdir()
               if (task / "comm").read_text().startswith("phicandle-"))

# A thread takes its name when it first runs, which on a busy machine may be after the call that started it, and one
# that has been joined may be listed for a moment more.
def settled(count):
    deadline = time.monotonic() + 30
    while threads() != count and time.monotonic() < deadline:
        time.sleep(0.001)
    return threads()

def used():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime

def texts(generator):
    return [generator.generate(f"Write a haiku about {what}", seed=seed, max_tokens=30).text
            for what in ("the moon", "rain") for seed in range(8)]

# As many as the process may use, or more: then nobody has threads of its own beside the first.
width = max(3, len(os.sched_getaffinity(0)))
first = Generator("demo", threads=width)
alone = texts(first)
one = threads()
second, third = Generator("demo", threads=width), Generator("demo", threads=2)
found = {}
running = [threading.Thread(target=lambda g=g, n=n: found.update({n: texts(g)}))
           for n, g in enumerate((first, second, third))]
[thread.start() for thread in running]
[thread.join() for thread in running]
same = all(found[n] == alone for n in range(3))
three = threads()
time.sleep(0.2)
before = used()
time.sleep(1)
idle = used() - before
first.close()
second.close()
narrow = settled(1)
third.close()
print(json.dumps({"threads": [one, three, narrow, settled(0)], "width": width, "same": same, "idle": idle}))
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted in /proc")
def test_generators_share_threads_say_the_same_and_sleep_when_idle() -> None:
    output = subprocess.run(
        [sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True, timeout=300
    ).stdout
    facts = json.loads(output)
    assert facts["same"], "texts differ from those of one Generator alone"
    # Each width includes the thread of the engine that calls.
    assert facts["threads"] == [facts["width"] - 1, facts["width"] - 1, 1, 0]
    # Of the second in which nothing was asked.
    assert facts["idle"] < 0.1
