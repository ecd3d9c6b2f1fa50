"""Importing the package is quick and quiet."""

from __future__ import annotations

import subprocess
import sys

import pytest

LIMIT_MS = 30
LOOK = """
import os, signal, sys, threading
before = dict(os.environ)
handlers = [signal.getsignal(number) for number in signal.valid_signals()]
opened = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
import phicandle
assert dict(os.environ) == before
assert [signal.getsignal(number) for number in signal.valid_signals()] == handlers
assert threading.active_count() == 1
if opened is not None:
    assert len(os.listdir("/proc/self/task")) == 1
    assert set(os.listdir("/proc/self/fd")) == opened
for heavy in ("asyncio", "logging", "socket", "json", "inspect", "dataclasses", "numpy"):
    assert heavy not in sys.modules or heavy in %r, heavy
"""


def test_import_takes_less_than_30_ms() -> None:
    times = []
    for _ in range(8):
        words = [sys.executable, "-X", "importtime", "-c", "import phicandle"]
        lines = subprocess.run(
            words, capture_output=True, text=True, timeout=60, check=True
        ).stderr.splitlines()
        row = next(line for line in lines if line.endswith("| phicandle"))
        times.append(int(row.split("|")[1]) / 1000)
    print(f"import phicandle: best of {len(times)}: {min(times):.1f} ms")
    assert min(times) < LIMIT_MS


def test_import_is_quiet() -> None:
    # What an interpreter imports by itself (site, and what is installed beside the package) is not ours.
    own = subprocess.run(
        [sys.executable, "-c", "import sys; print(set(sys.modules))"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    done = subprocess.run(
        [sys.executable, "-c", LOOK % own.stdout], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_public_name_is_there() -> None:
    import phicandle

    for name in phicandle.__all__:
        assert getattr(phicandle, name) is not None
    assert len(set(phicandle.__all__)) == len(phicandle.__all__)
    with pytest.raises(AttributeError):
        phicandle.nothing  # noqa: B018 - the look-up is the test
    namespace: dict[str, object] = {}
    exec("from phicandle import *", namespace)
    assert set(phicandle.__all__) <= set(namespace)


def test_the_version_is_the_packages() -> None:
    from importlib.metadata import PackageNotFoundError, version

    import phicandle

    try:
        assert version("phicandle") == phicandle.__version__
    except PackageNotFoundError:
        pytest.skip("phicandle is not installed as a package")
