"""Check each dependency's licence and origin against deny.toml, offline, from `cargo metadata`.

    python3 scripts/check_licences.py [--all-platforms]

Without the option: what this platform builds (that is downloaded anyway). With it: every platform and feature.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
REGISTRY = "registry+https://github.com/rust-lang/crates.io-index"


def allowed_licences(deny: str) -> tuple[set[str], dict[str, set[str]]]:
    """The `allow` list of deny.toml's `[licenses]`, and what single crates may have besides."""
    section = deny.split("[licenses]")[1].split("\n[")[0]
    general = re.search(r"^allow = \[(.*?)\]", section, re.MULTILINE | re.DOTALL)
    if general is None:
        raise SystemExit("deny.toml: [licenses] has no `allow` list.")
    singles = re.findall(r"\{ allow = \[([^\]]*)\], crate = \"([^\"]+)\" \}", section)
    names = {crate: set(re.findall(r'"([^"]+)"', text)) for text, crate in singles}
    return set(re.findall(r'"([^"]+)"', general[1])), names


def permits(expression: str, allowed: set[str]) -> bool:
    """Whether an SPDX expression can be met from `allowed`. `/` is the older spelling of OR; AND binds more tightly."""
    words: list[str] = re.findall(r"\(|\)|[^\s()]+", expression.replace("/", " OR "))
    position = 0

    def peek() -> str:
        return words[position] if position < len(words) else ""

    def take() -> str:
        nonlocal position
        position += 1
        return words[position - 1]

    def either() -> bool:
        result = both()
        while peek() == "OR":
            take()
            result = both() or result
        return result

    def both() -> bool:
        result = one()
        while peek() == "AND":
            take()
            result = one() and result
        return result

    def one() -> bool:
        name = take()
        if name == "(":
            result = either()
            take()
            return result
        if peek() == "WITH":
            take()
            name = f"{name} WITH {take()}"
        return name in allowed

    return either() and position == len(words)


def problems(packages: list[dict[str, Any]], deny: str) -> list[str]:
    """One line for each package that may not be used."""
    allowed, singles = allowed_licences(deny)
    found = []
    for package in packages:
        label = f"{package['name']} {package['version']}"
        if package["source"] not in (None, REGISTRY):
            found.append(f"{label} comes from {package['source']}, not from crates.io.")
        expression = package["license"]
        if not expression:
            found.append(f"{label} names no licence.")
        elif not permits(expression, allowed | singles.get(package["name"], set())):
            found.append(f"{label} is under {expression}, which deny.toml does not allow.")
    return found


def main(arguments: list[str]) -> int:
    """Print what is wrong; 1 when something is."""
    command = ["cargo", "metadata", "--locked", "--format-version", "1"]
    if arguments == ["--all-platforms"]:
        command += ["--all-features"]
    else:
        version = subprocess.run(["rustc", "-vV"], check=True, capture_output=True, text=True).stdout
        host = re.search(r"^host: (.*)$", version, re.MULTILINE)
        if host is None:
            raise SystemExit("rustc -vV names no host.")
        command += ["--features", "python", "--filter-platform", host[1]]
    output = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
    packages = json.loads(output)["packages"]
    found = problems(packages, (ROOT / "deny.toml").read_text(encoding="utf-8"))
    for line in found:
        print(line)
    print(f"{len(packages)} packages, {len(found)} problems")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
