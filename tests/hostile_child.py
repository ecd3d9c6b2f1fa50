"""Loads one file, under a cap on memory, and prints what happened as JSON: the child of `test_hostile_files.py`.

Usage: python hostile_child.py PATH BACKEND [generate]
"""

import json
import resource
import sys
import time
from pathlib import Path

import phicandle

#: Bytes that loading may add to the data that the interpreter has already.
CAP = 1 << 30


def _data_bytes() -> int:
    with Path("/proc/self/status").open() as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmData:"))


def _load(path: str, backend: str, generate: bool) -> tuple[str, str]:
    """The error's class and text; both empty when there was none."""
    try:
        generator = phicandle.Generator(path, backend=backend, progress=False)  # type: ignore[arg-type]
        if generate:
            generator.generate([{"role": "user", "content": "hockey on ice"}], max_tokens=4)
        generator.close()
    except phicandle.PhicandleError as error:
        return type(error).__name__, str(error)
    except BaseException as error:
        return f"not a PhicandleError: {type(error).__name__}", str(error)
    return "", ""


def main() -> None:
    if sys.platform == "linux":
        cap = _data_bytes() + CAP
        resource.setrlimit(resource.RLIMIT_DATA, (cap, cap))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started, spent = time.perf_counter(), time.process_time()
    name, message = _load(sys.argv[1], sys.argv[2], "generate" in sys.argv[3:])
    unit = 1 if sys.platform == "darwin" else 1024
    print(
        json.dumps(
            {
                "error": name,
                "message": message,
                "seconds": time.perf_counter() - started,
                "cpu_seconds": time.process_time() - spent,
                "grown_bytes": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit,
            }
        )
    )


if __name__ == "__main__":
    main()
