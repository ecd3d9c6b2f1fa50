"""Check what a wheel or an sdist holds: what must be there is, and nothing else.

python3 scripts/check_wheel.py FILE...
"""

from __future__ import annotations

import re
import sys
import tarfile
import zipfile
from pathlib import Path

WHEEL_NEEDS = (
    r"phicandle/__init__\.py",
    r"phicandle/__main__\.py",
    r"phicandle/_phicandle\.pyi",
    r"phicandle/_phicandle(\.abi3)?\.(so|pyd)",
    r"phicandle/demo\.gguf",
    r"phicandle/py\.typed",
    r"phicandle-[^/]+\.dist-info/licenses/LICENSE-MIT",
    r"phicandle-[^/]+\.dist-info/licenses/LICENSE-APACHE",
    r"phicandle-[^/]+\.dist-info/entry_points\.txt",
)
WHEEL_MAY = (r"phicandle/(?!.*__pycache__)([a-z_]+/)*[a-z_]+\.pyi?", r"phicandle-[^/]+\.dist-info/.*")
SDIST_NEEDS = (
    r"Cargo\.toml",
    r"Cargo\.lock",
    r"\.cargo/config\.toml",
    r"LICENSE-MIT",
    r"LICENSE-APACHE",
    r"README\.md",
    r"pyproject\.toml",
    r"src/lib\.rs",
    r"python/phicandle/__init__\.py",
    r"python/phicandle/demo\.gguf",
    r"python/phicandle/py\.typed",
)
SDIST_MAY = (
    r"[A-Z][A-Za-z.-]*(\.orig)?",
    r"PKG-INFO",
    r"(src|examples|benches)/.*",
    r"python/phicandle/[^/]+\.(py|pyi)",
)
# The demo model has at most 4 MB, and so has nothing but the extension module more.
LARGEST_DATA = 4_000_000


def names_and_sizes(path: Path) -> dict[str, int]:
    """The files of an archive; an sdist's without its top folder."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            return {entry.filename: entry.file_size for entry in wheel.infolist() if not entry.is_dir()}
    with tarfile.open(path) as sdist:
        return {entry.name.partition("/")[2]: entry.size for entry in sdist if entry.isfile()}


def problems(path: Path) -> list[str]:
    """One line for each thing that is wrong."""
    wheel = path.suffix == ".whl"
    if not wheel and not path.name.endswith(".tar.gz"):
        return [f"{path.name} is neither a wheel nor an sdist."]
    needs, may = (WHEEL_NEEDS, WHEEL_MAY) if wheel else (SDIST_NEEDS, SDIST_MAY)
    files = names_and_sizes(path)
    found = [f"{path.name} lacks {need}" for need in needs if not any(re.fullmatch(need, f) for f in files)]
    for name, size in files.items():
        if not any(re.fullmatch(pattern, name) for pattern in needs + may):
            found.append(f"{path.name} should not hold {name}")
        if size > LARGEST_DATA and not name.endswith((".so", ".pyd")):
            found.append(f"{path.name}: {name} has {size} bytes, more than {LARGEST_DATA}")
    if wheel and "-cp310-abi3-" not in path.name:
        found.append(f"{path.name} is not tagged cp310-abi3")
    return found


def main(arguments: list[str]) -> int:
    """Print what is wrong; 1 when something is."""
    found = [line for name in arguments for line in problems(Path(name))]
    for line in found:
        print(line)
    if not arguments:
        print(__doc__, file=sys.stderr)
    return 1 if found or not arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
