"""How phicandle serves many at once, in one run on one machine: `make concurrency`.

Each measurement runs in a process of its own, with a file of Phi-3-mini's shape and random weights, which this writes
itself, and with SmolLM2-135M-Instruct. Figures and targets come to the terminal while they are found, every sample into
`benches/record/concurrency.json`, with a chart beside it and the page `docs/concurrency.md`.

    python3 benches/concurrency                          everything
    python3 benches/concurrency --quick                  whether all of it works; nothing is kept
    python3 benches/concurrency --only cancel --keep     one measurement again, in place of what the record has of it
    python3 benches/concurrency --write-docs             page and chart from the record, measuring nothing
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
# The tests fetch SmolLM2 too, and keep it in the same place.
sys.path.append(str(Path(__file__).resolve().parent.parent.parent / "tests"))

from comparison import machine, peers

from concurrency import page, record
from concurrency.measurement import MODELS, NAMES

LLAMA = next(peer for peer in peers.PEERS if peer.folder == "llama-cpp")


def arguments(words: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Measure how phicandle serves many at once.",
        epilog=f"Measurements: {', '.join(NAMES)}. Models: {', '.join(MODELS)}.",
    )
    parser.add_argument("--only", metavar="NAME,…", help="these measurements only")
    parser.add_argument("--model", metavar="NAME", help="one model only; the beginning of its name will do")
    parser.add_argument("--quick", action="store_true", help="as little as shows that it works")
    parser.add_argument(
        "--keep", action="store_true", help="put the results of --only or --model into the record"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="for every engine (default: all CPUs)")
    parser.add_argument(
        "--phicandle", type=Path, metavar="PYTHON", help="one that has phicandle (default: this)"
    )
    parser.add_argument("--llama", type=Path, metavar="PYTHON", help="one that has llama-cpp-python")
    parser.add_argument("--install", action="store_true", help="install llama-cpp-python if it is not there")
    parser.add_argument(
        "--jobs", type=int, default=machine.threads(), metavar="N", help="compilers at a time"
    )
    parser.add_argument(
        "--record", type=Path, metavar="JSON", help="where the record goes, the chart beside it"
    )
    parser.add_argument(
        "--write-docs", action="store_true", help="write the page and the chart from the record"
    )
    parser.add_argument("--check", action="store_true", help="fail when the page is not what the record says")
    chosen = parser.parse_args(words)
    chosen.names = chosen.only.split(",") if chosen.only else list(NAMES)
    for name in chosen.names:
        if name not in NAMES:
            parser.error(f"There is no measurement {name!r}; there are {', '.join(NAMES)}.")
    chosen.models = [model for model in MODELS if model.lower().startswith((chosen.model or "").lower())]
    if not chosen.models:
        parser.error(f"There is no model {chosen.model!r}; there are {', '.join(MODELS)}.")
    if chosen.quick and chosen.keep:
        parser.error("--quick measures too little to be kept.")
    chosen.partial = bool(chosen.quick or chosen.only or chosen.model)
    return chosen


def measure(chosen: argparse.Namespace) -> dict[str, Any]:
    """A record of what the command line asks for."""
    # Not needed for looking at a record: NumPy is behind these.
    from phi3_shape import cache

    from concurrency import plan

    python = (chosen.phicandle or Path(sys.executable)).absolute()
    llama = chosen.llama or LLAMA.python(cache())
    if chosen.install and not (chosen.llama or LLAMA.is_installed(cache())):
        reason = peers.install(LLAMA, cache(), chosen.jobs)
        if reason is not None:
            plan.say(f"NOT MEASURED: {LLAMA.requirement}: {reason}")
    threads = chosen.threads or machine.threads()
    busy = machine.busy()
    if busy > page.BUSY:
        plan.say(
            f"WARNING: this machine is {busy:.0%} busy with other work. The figures will be of little use."
        )
    todo, missing = plan.plans(chosen.names, chosen.models)
    for name, reason in missing.items():
        plan.say(f"NOT MEASURED: {name}: {reason}.")
    run = plan.Run(python, llama if llama.exists() else None, threads, chosen.quick)
    version = subprocess.run(
        [str(python), "-c", "import phicandle; print(phicandle.__version__)"],
        capture_output=True,
        text=True,
        check=True,
        env=peers.environment(),
    ).stdout.strip()
    begin = {
        "format": record.FORMAT,
        "machine": machine.facts(),
        "threads": threads,
        "phicandle": version,
        "llama": LLAMA.requirement,
    }
    return {**begin, "results": run.results(todo)}


def chart(found: dict[str, Any], path: Path) -> None:
    """The chart, or a line that says why there is none."""
    from concurrency.chart import draw

    try:
        draw(found, path)
    except ImportError:
        print("No chart: matplotlib is not installed. `make concurrency` has it.", file=sys.stderr)


def check(found: dict[str, Any] | None) -> int:
    """Whether the page says what the record says."""
    if page.PAGE.exists() and page.PAGE.read_text(encoding="utf-8") == page.write(found):
        return 0
    print(
        f"{page.PAGE} is not what {record.RECORD} says: run benches/concurrency --write-docs", file=sys.stderr
    )
    return 1


def main(words: list[str] | None = None) -> int:
    """Does what the command line says."""
    chosen = arguments(words)
    if chosen.check:
        return check(record.read())
    if chosen.write_docs:
        found = record.read()
        if found is not None:
            chart(found, record.RECORD.with_suffix(".png"))
        page.PAGE.write_text(page.write(found), encoding="utf-8")
        return 0
    try:
        found = measure(chosen)
    except KeyboardInterrupt:
        print("Stopped; nothing was kept.", file=sys.stderr)
        return 130
    from phi3_shape import cache

    listed = list(record.results(found))
    met, missed, unknown = page.tally(listed)
    print(f"{met} targets met, {missed} missed, {unknown} not measured")
    if not chosen.partial:
        print("".join(f"NOT MEASURED: {what}\n" for what in page.absent(listed)), end="")

    # Part of the measurements is no record of the whole.
    kept = not chosen.partial or chosen.keep
    path = chosen.record or (record.RECORD if kept else cache() / "record" / record.RECORD.name)
    if chosen.keep:
        found = record.joined(record.read(path), found)
    record.write(found, path)
    chart(found, path.with_suffix(".png"))
    print(f"Every sample is in {path}", file=sys.stderr)
    if path == record.RECORD:
        page.PAGE.write_text(page.write(found), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
