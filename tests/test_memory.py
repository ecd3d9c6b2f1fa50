"""Memory: what is closed is freed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# glibc keeps freed memory for its next use, and how much differs from run to run. Told to give it back at once, what
# stays is what is still in use.
GIVE_BACK = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_TRIM_THRESHOLD_": "0",
    "MALLOC_TOP_PAD_": "0",
    "MALLOC_MMAP_THRESHOLD_": "131072",
    "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0",
}
CYCLES = """
import gc, os, sys
from phicandle import Generator
page = os.sysconf("SC_PAGESIZE")
def resident():
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * page
sizes = []
for cycle in range(50):
    with Generator(sys.argv[1]) as generator:
        generator.generate("Write a haiku about ice hockey", seed=cycle, max_tokens=40)
    del generator
    sizes.append(resident())
print(*sizes)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc/self/statm")
@pytest.mark.parametrize("model", ["demo", "tiny"])
def test_50_cycles_end_within_2_percent_of_the_first(model: str, tiny_file: Path) -> None:
    name = "demo" if model == "demo" else str(tiny_file)
    done = subprocess.run(
        [sys.executable, "-c", CYCLES, name],
        capture_output=True,
        text=True,
        timeout=170,
        env=os.environ | GIVE_BACK,
    )
    assert done.returncode == 0, done.stderr
    sizes = [int(size) for size in done.stdout.split()]
    assert len(sizes) == 50
    growth = sizes[-1] / sizes[0] - 1
    print(
        f"{model}: {sizes[0] >> 10} KiB after the first cycle, {sizes[-1] >> 10} KiB after the last: {growth:+.2%}"
    )
    assert growth <= 0.02
