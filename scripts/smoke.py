"""A first test of an installed wheel, with nothing but Python: import it, and let the built-in model write.

    python3 scripts/smoke.py

Ends with status 1 when that fails.
"""

from __future__ import annotations

import subprocess
import sys


def main() -> int:
    """Do what the first page of the README says."""
    from phicandle import Generator

    with Generator("demo") as generator:
        text = "".join(generator.stream("Write a haiku about ice hockey", seed=1))
    print(text)
    command = [sys.executable, "-m", "phicandle", "--version"]
    version = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    print(version)
    return 0 if text.strip() and "phicandle" in version else 1


if __name__ == "__main__":
    sys.exit(main())
