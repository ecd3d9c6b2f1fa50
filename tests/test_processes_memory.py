"""Memory of several processes: `memory="mmap"` shares a file's pages, `memory="repack"` gives each its own weights."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from gguf_files import write_tiny

#: Loads a file in a spawned process, makes a token, says what it holds, and stays until its input ends.
WORKER = """
import gc, sys
from phicandle import Generator
path, memory = sys.argv[1:]
def private():
    gc.collect()
    with open("/proc/self/smaps_rollup") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith(("Private_Clean:", "Private_Dirty:")))
before = private()
generator = Generator(path, backend="native", memory=memory, context_length=64, max_batch=1, threads=1)
generator.generate([65], max_tokens=1, ignore_eos=True)
print(before, generator.info.memory.weights_bytes, flush=True)
sys.stdin.readline()
print(private(), flush=True)
sys.stdin.readline()
"""


def pages(process: int, path: Path) -> dict[str, int]:
    """Bytes of the mappings of one file in a process, by their kind in smaps."""
    sizes = {"Rss": 0, "Pss": 0, "Shared_Clean": 0, "Shared_Dirty": 0, "Private_Clean": 0, "Private_Dirty": 0}
    ours = False
    for line in Path(f"/proc/{process}/smaps").read_text().splitlines():
        words = line.split()
        if not words[0].endswith(":"):
            ours = words[-1] == str(path)
        elif ours and words[0][:-1] in sizes:
            sizes[words[0][:-1]] += int(words[1]) * 1024
    return sizes


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some 60 MB of weights."""
    path = (tmp_path_factory.mktemp("model") / "model.gguf").resolve()
    write_tiny(path, arch="phi2", context=64, embd=512, ff=2048, heads=8, kv_heads=8, layers=5)
    return path


@pytest.mark.skipif(
    not Path("/proc/self/smaps_rollup").exists(), reason="SKIPPED: reads /proc/PID/smaps (Linux)"
)
@pytest.mark.parametrize("memory", ["mmap", "repack"])
def test_two_processes_share_the_weights_of_a_mapped_file_only(memory: str, model: Path) -> None:
    size = model.stat().st_size
    assert size > 40 * 2**20
    words = [sys.executable, "-c", WORKER, str(model), memory]
    workers = [
        subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    try:
        starts = []
        for worker in workers:
            assert worker.stdout is not None
            starts.append([int(word) for word in worker.stdout.readline().split()])
        # Both hold the file now.
        held = [pages(worker.pid, model) for worker in workers]
        for worker, mapped, (before, weights) in zip(workers, held, starts, strict=True):
            assert worker.stdin is not None
            assert worker.stdout is not None
            worker.stdin.write("\n")
            worker.stdin.flush()
            private = (int(worker.stdout.readline()) - before) * 1024
            print(
                f"{memory}: file {size >> 20} MiB, weights {weights >> 20} MiB, private {private >> 20} MiB, {mapped}"
            )
            if memory == "mmap":
                assert mapped["Rss"] > 0.9 * size
                # Each of the two has half of a page that both have, dirty or not: those of a file just written are.
                assert 0.45 * mapped["Rss"] < mapped["Pss"] < 0.55 * mapped["Rss"]
                assert mapped["Shared_Clean"] + mapped["Shared_Dirty"] > 0.9 * size
                assert mapped["Private_Clean"] + mapped["Private_Dirty"] < 0.02 * size
                assert private < 0.25 * size
            else:
                assert private > 0.9 * weights
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
