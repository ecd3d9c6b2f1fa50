"""Check before a release that the tag, Cargo.toml, Cargo.lock, pyproject.toml and CHANGELOG.md agree.

python3 scripts/check_version.py v0.1.0
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def first(pattern: str, text: str) -> str | None:
    """The first group of the first match, by lines."""
    match = re.search(pattern, text, re.MULTILINE)
    return match[1] if match else None


def problems(tag: str, files: dict[str, str]) -> list[str]:
    """One line for each disagreement. `files`: the texts by name."""
    version = first(r'^version = "([^"]+)"', files["Cargo.toml"].split("[package]")[1])
    if version is None:
        return ["Cargo.toml has no version."]
    found = []
    if tag != f"v{version}":
        found.append(f"The tag is {tag}, but Cargo.toml has {version}: expected v{version}.")
    locked = first(r'^name = "phicandle"\nversion = "([^"]+)"', files["Cargo.lock"])
    if locked != version:
        found.append(f"Cargo.lock has {locked}, but Cargo.toml has {version}: run cargo check.")
    project = files["pyproject.toml"].split("[project]")[1].split("\n[")[0]
    stated = first(r'^version = "([^"]+)"', project)
    if stated is None and '"version"' not in (first(r"^dynamic = \[(.*)\]", project) or ""):
        found.append("pyproject.toml neither takes the version from Cargo.toml (dynamic) nor states one.")
    if stated is not None and stated != version:
        found.append(f"pyproject.toml has {stated}, but Cargo.toml has {version}.")
    if not first(rf"^## \[({re.escape(version)})\] - \d{{4}}-\d\d-\d\d$", files["CHANGELOG.md"]):
        found.append(f"CHANGELOG.md has no dated section for {version}.")
    return found


def main(arguments: list[str]) -> int:
    """Print what is wrong; 1 when something is."""
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    names = ("Cargo.toml", "Cargo.lock", "pyproject.toml", "CHANGELOG.md")
    found = problems(arguments[0], {name: (ROOT / name).read_text(encoding="utf-8") for name in names})
    for line in found:
        print(line)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
