"""Malformed model files: each in a process of its own, each a `PhicandleError` of the class that its row states.

Never a panic, an abort, more than two seconds or more than 256 MiB. Among them stand sound, unusual files, which must
load and generate. `python tests/test_hostile_files.py --write DIR` writes all of them for other readers to try.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hostile_kinds import KINDS, LOADS, Kind
from hostile_splits import SPLITS
from hostile_splits import write as write_split

CHILD = Path(__file__).with_name("hostile_child.py")
#: Processor time of loading, in seconds: on a busy machine the clock on the wall says nothing of the file.
LIMIT_S = 2.0
#: A child that has not ended by then hangs, interpreter start included.
HANG_S = 30.0
LIMIT_BYTES = 256 << 20
BACKENDS = ("native", "candle")
MALFORMED = [kind for kind in KINDS if kind.expected != LOADS and not kind.candle]

failures: dict[tuple[str, str], str] = {}
tried: set[tuple[str, str]] = set()


def run(path: Path, backend: str = "native", *options: str) -> dict[str, Any]:
    """What the child says of a file, or how it died."""
    command = [sys.executable, str(CHILD), str(path), backend, *options]
    try:
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=HANG_S)
        except OSError:
            # The system did not start the process (EFAULT was seen once in thousands of starts): nothing was tried yet.
            done = subprocess.run(command, capture_output=True, text=True, timeout=HANG_S)
    except subprocess.TimeoutExpired:
        return {"died": f"no answer in {HANG_S:.0f} s"}
    if done.returncode != 0:
        return {"died": f"exit code {done.returncode}: {done.stderr[-600:]}"}
    return {"stderr": done.stderr, **json.loads(done.stdout)}


def _try(kind: Kind, backend: str, folder: Path) -> dict[str, Any]:
    path = folder / f"{KINDS.index(kind):03}-{backend}.gguf"
    kind.write(path)
    try:
        return run(path, backend, *(["generate"] if kind.generates else []))
    finally:
        path.unlink()


def fault(expected: str, result: dict[str, Any]) -> str | None:
    """Why a result breaks the promise; None when it keeps it."""
    if "died" in result:
        return result["died"]
    if result["error"] != expected:
        return f"{expected or 'no error'} expected, found {result['error'] or 'no error'}: {result['message'][:600]}"
    if "panicked" in result["stderr"]:
        return f"a panic was caught: {result['stderr'][-600:]}"
    if result["cpu_seconds"] > LIMIT_S:
        return f"{result['cpu_seconds']:.1f} s of processor time"
    if result["grown_bytes"] > LIMIT_BYTES:
        return f"{result['grown_bytes'] >> 20} MiB"
    if expected and len(result["message"]) > 1_300:
        return f"an error text of {len(result['message'])} characters"
    return None


@pytest.fixture(scope="module")
def results(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[tuple[str, str], Future[Any]]]:
    """One future for each kind and backend that was selected; a few children run at a time."""
    folder = tmp_path_factory.mktemp("hostile")
    calls = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    wanted = [(call["kind"], call["backend"]) for call in calls if isinstance(call.get("kind"), Kind)]
    with ThreadPoolExecutor(max_workers=max(2, os.cpu_count() or 2)) as pool:
        yield {(kind.name, backend): pool.submit(_try, kind, backend, folder) for kind, backend in wanted}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("backend", BACKENDS)
def test_kind(kind: Kind, backend: str, results: dict[tuple[str, str], Future[Any]]) -> None:
    reason = fault(kind.expected_of(backend), results[kind.name, backend].result())
    tried.add((kind.name, backend))
    if reason is not None:
        failures[kind.name, backend] = reason
        pytest.fail(reason)


def _paths(folder: Path) -> dict[str, tuple[Path, str]]:
    (folder / "phi-3-mini.gguf").write_bytes(b"GGUF")
    (folder / "loop.gguf").symlink_to("loop.gguf")
    os.mkfifo(folder / "pipe.gguf")
    return {
        "missing": (folder / "phi-3-mint.gguf", "ModelNotFoundError"),
        "in a missing folder": (folder / "none" / "a.gguf", "ModelNotFoundError"),
        "below a file": (folder / "phi-3-mini.gguf" / "a.gguf", "ModelNotFoundError"),
        "folder": (folder, "ModelNotFoundError"),
        "pipe": (folder / "pipe.gguf", "ModelReadError"),
        "device": (Path("/dev/zero"), "ModelReadError"),
        "link to itself": (folder / "loop.gguf", "ModelReadError"),
        "name too long": (folder / ("n" * 300 + ".gguf"), "ModelReadError"),
    }


@pytest.mark.skipif(sys.platform == "win32", reason="pipes and links of POSIX")
@pytest.mark.parametrize(
    "name",
    [
        "missing",
        "in a missing folder",
        "below a file",
        "folder",
        "pipe",
        "device",
        "link to itself",
        "name too long",
    ],
)
def test_path(name: str, tmp_path: Path) -> None:
    path, expected = _paths(tmp_path)[name]
    result = run(path)
    assert fault(expected, result) is None, fault(expected, result)
    if name in ("missing", "folder"):
        assert "phi-3-mini.gguf" in result["message"]


@pytest.mark.parametrize("name", SPLITS)
def test_split(name: str, tmp_path: Path) -> None:
    expected, _ = SPLITS[name]
    path = write_split(name, tmp_path)
    for backend in BACKENDS:
        reason = fault(expected, run(path, backend, "generate"))
        assert reason is None, f"{backend}: {reason}"


def test_count(capsys: pytest.CaptureFixture[str]) -> None:
    """Runs last, and states how much was tried."""
    assert len({kind.name for kind in KINDS}) == len(KINDS), "two rows have one name"
    assert len(MALFORMED) >= 120
    with capsys.disabled():
        for backend in BACKENDS:
            malformed = [kind for kind in MALFORMED if (kind.name, backend) in tried]
            failed = [kind for kind in malformed if (kind.name, backend) in failures]
            print(f"\nhostile files, {backend}: {len(malformed)} kinds, {len(failed)} failures")


def _write_all(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, kind in enumerate(KINDS):
        kind.write(folder / f"{number:03}.gguf")
        rows.append(f"{number:03}.gguf\t{kind.expected or 'loads'}\t{kind.name}\n")
    (folder / "kinds.tsv").write_text("".join(rows))


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] != "--write":
        sys.exit("usage: python tests/test_hostile_files.py --write DIR")
    _write_all(Path(sys.argv[2]))
