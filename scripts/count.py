"""Add up what `cargo test` and pytest counted, and close with `N passed, N failed, N skipped`.

    python3 scripts/count.py CARGO_LOG PYTEST_LOG

A missing log, or one without its runner's closing line, is an error: tests that did not run must not look like
tests that passed. A Rust test that lacks its data prints a line beginning `SKIPPED:`; it counts as skipped here.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import NamedTuple

ANSI = re.compile(r"\x1b\[[0-9;]*m")
CARGO = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored;", re.MULTILINE)
PYTEST = re.compile(r"^=* ?((?:\d+ [a-z]+(?:, )?)+) in [\d.]+s.*$", re.MULTILINE)
PYTEST_WORDS = (("passed", "xfailed"), ("failed", "error", "errors", "xpassed"), ("skipped",))
SKIPPED = re.compile(r"^\s*SKIPPED: ")
# What cargo test prints above one test's output, and above one binary's tests.
SECTION = re.compile(r"^(?:---- .* stdout ----|\s*(?:Running|Doc-tests) .*)$")


class Counts(NamedTuple):
    """Tests by how they ended."""

    passed: int
    failed: int
    skipped: int

    def plus(self, other: Counts) -> Counts:
        """Both together."""
        return Counts(self.passed + other.passed, self.failed + other.failed, self.skipped + other.skipped)


class NoCountsError(Exception):
    """A log without its runner's closing line."""


def cargo_counts(text: str) -> Counts:
    """Counts of a log of `cargo test -- --show-output`, all binaries together."""
    text = ANSI.sub("", text)
    found = [Counts(*map(int, match)) for match in CARGO.findall(text)]
    if not found:
        raise NoCountsError("no 'test result:' line")
    total = Counts(0, 0, 0)
    for counts in found:
        total = total.plus(counts)
    lacking = len(sections_skipped(text))
    return Counts(total.passed - lacking, total.failed, total.skipped + lacking)


def pytest_counts(text: str) -> Counts:
    """Counts of a pytest log."""
    lines = PYTEST.findall(ANSI.sub("", text))
    if not lines:
        raise NoCountsError("no closing line of pytest")
    numbers = {word: int(number) for number, word in re.findall(r"(\d+) ([a-z]+)", lines[-1])}
    return Counts(*(sum(numbers.get(word, 0) for word in words) for words in PYTEST_WORDS))


def sections_skipped(text: str) -> list[int]:
    """Line numbers of the headings of tests that said `SKIPPED:`, each once however often it said so."""
    found: set[int] = set()
    section = 0
    for number, line in enumerate(text.splitlines()):
        if SECTION.match(line):
            section = number
        elif SKIPPED.match(line):
            found.add(section)
    return sorted(found)


def skip_lines(text: str) -> list[str]:
    """What Rust tests said when their data was absent, each once."""
    return sorted({line.strip() for line in ANSI.sub("", text).splitlines() if SKIPPED.match(line)})


def total(cargo_log: Path, pytest_log: Path) -> Counts:
    """Both logs together; raises `NoCountsError` or `OSError`, naming the log."""
    result = Counts(0, 0, 0)
    for path, count in ((cargo_log, cargo_counts), (pytest_log, pytest_counts)):
        try:
            result = result.plus(count(path.read_text(encoding="utf-8", errors="replace")))
        except NoCountsError as error:
            raise NoCountsError(f"{path}: {error}") from None
    return result


def main(arguments: list[str]) -> int:
    """Print the line; 1 when a test failed or none ran, 2 when a log is missing."""
    if len(arguments) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        counts = total(Path(arguments[0]), Path(arguments[1]))
    except (NoCountsError, OSError) as error:
        print(f"the tests cannot be counted: {error}", file=sys.stderr)
        return 2
    print(f"{counts.passed} passed, {counts.failed} failed, {counts.skipped} skipped")
    return 1 if counts.failed or not counts.passed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
