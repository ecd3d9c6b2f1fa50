"""gunicorn's workers: a generator made in each works, one made in the master before the fork says why it does not."""

from __future__ import annotations

import http.client
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="SKIPPED: gunicorn needs os.fork")

LAZY = """
import functools, os
from phicandle import Generator
@functools.cache
def generator():
    return Generator(os.environ["MODEL"])
def app(environ, start_response):
    text = generator().generate("ice", seed=1, max_tokens=4, ignore_eos=True)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [repr(text.token_ids).encode()]
"""
PRELOADED = """
import os
from phicandle import ForkError, Generator
generator = Generator(os.environ["MODEL"])
def app(environ, start_response):
    try:
        body = generator.generate("ice").text
    except ForkError as error:
        body = str(error)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body.encode()]
"""


def answers(program: str, folder: Path, model: Path, *options: str) -> list[str]:
    """What two workers of an application answer to four requests."""
    (folder / "site_app.py").write_text(program)
    words = [sys.executable, "-m", "gunicorn", "-w", "2", "-b", "127.0.0.1:0", "--timeout", "20", *options]
    master = subprocess.Popen(
        [*words, "site_app:app"],
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=os.environ | {"MODEL": str(model)},
    )
    # A server that says nothing, or hangs, ends here.
    alarm = threading.Timer(30, master.kill)
    alarm.start()
    try:
        assert master.stderr is not None
        port, booted, log = 0, 0, ""
        while booted < 2:
            line = master.stderr.readline()
            assert line, log
            log += line
            if found := re.search(r"127\.0\.0\.1:(\d+)", line):
                port = int(found[1])
            booted += "Booting worker" in line
        texts = []
        for _ in range(4):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            connection.request("GET", "/")
            response = connection.getresponse()
            texts.append(response.read().decode())
            assert response.status == 200, texts
            connection.close()
        master.terminate()
        master.communicate(timeout=20)
        assert master.returncode == 0
        return texts
    finally:
        alarm.cancel()
        master.kill()
        master.communicate()


def test_a_generator_made_in_each_worker_answers(tiny_file: Path, tmp_path: Path) -> None:
    texts = answers(LAZY, tmp_path, tiny_file)
    assert len(set(texts)) == 1
    assert texts[0].count(",") == 3


def test_a_generator_made_before_the_fork_says_so_at_once(tiny_file: Path, tmp_path: Path) -> None:
    for text in answers(PRELOADED, tmp_path, tiny_file, "--preload"):
        assert "fork" in text
        assert "spawn" in text
