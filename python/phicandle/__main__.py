"""`python -m phicandle`: the command line."""

from __future__ import annotations

import sys

from . import _phicandle
from .recipe import DEMO


def main() -> int:
    """Runs the command line with `sys.argv` and returns the exit code."""
    return _phicandle.run_cli(["phicandle", *sys.argv[1:]], DEMO)


if __name__ == "__main__":
    sys.exit(main())
