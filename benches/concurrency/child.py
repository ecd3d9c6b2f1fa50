"""The process of one measurement: reads what to measure as JSON, answers with JSON, and ends."""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

# This file is run by its path, by a Python that need not know of this repository.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.append(str(Path(__file__).resolve().parent.parent.parent / "tests"))

from concurrency.measurement import Bench, NotMeasuredError, find


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """What was found, or why nothing was."""
    llama = request["llama"]
    bench = Bench(
        model=request["model"],
        path=Path(request["path"]),
        threads=request["threads"],
        quick=request["quick"],
        llama=Path(llama) if llama else None,
    )
    try:
        found: dict[str, Any] = find(request["measurement"]).measure(bench)
    except NotMeasuredError as error:
        return {"missing": str(error)}
    except Exception as error:  # whatever happens, the other measurements go on
        traceback.print_exc()
        return {"missing": f"{type(error).__name__}: {error}"}
    return {"found": found}


def main() -> int:
    """Answers the one request of standard input."""
    # What an engine prints must not be taken for the answer.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    out.write(json.dumps(answer(json.load(sys.stdin))) + "\n")
    out.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
