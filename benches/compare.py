"""Compares phicandle with other engines, in one run on one machine: `make bench`.

The engines take turns (A, B, A, B) so that what changes with time touches all alike. One computes at a time, each with
the same number of threads, in the configuration that suits it best at each point. Two models: a file of Phi-3-mini's
shape with random weights, which this writes itself, and SmolLM2-135M-Instruct. The table comes to the terminal, every
sample into a JSON record with a chart beside it.

    python3 benches/compare.py --install      the whole comparison, about a quarter of an hour; more on a first run
    python3 benches/compare.py --quick        a few points, once
    python3 benches/compare.py --check        whether README.md says what the newest record says
"""

from __future__ import annotations

import argparse
import os
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
# The tests fetch SmolLM2 too, and keep it in the same place.
sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))

from comparison import machine, peers, points, record, tables
from comparison.points import MEASURES, POINTS, Measure

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"


def arguments(words: list[str] | None) -> argparse.Namespace:
    """The command line."""
    names = [measure.name for measure in MEASURES]
    parser = argparse.ArgumentParser(
        description="Compare phicandle with other engines on this machine.",
        epilog=f"Points: {', '.join(names)}. Engines: {', '.join(points.ENGINES)}.",
    )
    what = parser.add_argument_group("what to measure")
    what.add_argument("--quick", action="store_true", help="a few points, one round: three minutes")
    what.add_argument("--full", action="store_true", help="slow engines at long contexts too")
    what.add_argument("--points", metavar="NAME,…", help="these points only")
    what.add_argument(
        "--engines", metavar="NAME,…", help="these engines only; the beginning of a name will do"
    )
    what.add_argument("--repetitions", type=int, metavar="N", help="rounds (default: 3)")
    what.add_argument("--threads", type=int, metavar="N", help="for every engine (default: all CPUs)")
    what.add_argument(
        "--layers", type=int, metavar="N", help="a Phi-3 file of fewer layers, to try this program"
    )
    how = parser.add_argument_group("engines")
    how.add_argument("--install", action="store_true", help="install the engines that are not there")
    how.add_argument("--jobs", type=int, default=machine.threads(), metavar="N", help="compilers at a time")
    how.add_argument(
        "--phicandle", type=Path, metavar="PYTHON", help="a Python that has phicandle (default: this one)"
    )
    out = parser.add_argument_group("results")
    out.add_argument("--record", type=Path, metavar="FOLDER", help="where the record and the chart go")
    out.add_argument(
        "--show", type=Path, metavar="JSON", help="print a record's table and draw its chart again"
    )
    out.add_argument(
        "--write-readme", action="store_true", help="write the newest record's table into README.md"
    )
    out.add_argument(
        "--check", action="store_true", help="fail when README.md and the newest record disagree"
    )
    chosen = parser.parse_args(words)
    if chosen.repetitions is not None and chosen.repetitions < 1:
        parser.error("--repetitions must be 1 or more.")
    chosen.engines = pick(parser, "engine", chosen.engines, points.ENGINES)
    by_point = {point.name: point.measure for point in POINTS} | {name: name for name in names}
    wanted = pick(parser, "point", chosen.points, tuple(by_point))
    chosen.measures = [measure for measure in MEASURES if measure.name in {by_point[name] for name in wanted}]
    if chosen.quick and not chosen.points:
        chosen.measures = [measure for measure in MEASURES if measure.name in points.QUICK]
    some = len(chosen.engines) < len(points.ENGINES)
    chosen.partial = bool(chosen.quick or chosen.points or chosen.layers or some)
    return chosen


def pick(
    parser: argparse.ArgumentParser, what: str, given: str | None, known: tuple[str, ...]
) -> tuple[str, ...]:
    """The named ones, in the usual order; all when none is named."""
    if given is None:
        return known
    found = set()
    for word in given.split(","):
        fits = [name for name in known if name == word] or [name for name in known if name.startswith(word)]
        if not fits or not word:
            parser.error(f"There is no {what} {word!r}; there are {', '.join(known)}.")
        found |= set(fits)
    return tuple(name for name in known if name in found)


def limits(run: Any, model: Path) -> list[dict[str, Any]]:
    """The machine's limits, as `phicandle bench` measures them; none when that does not work."""
    from comparison.engines import RunnerError, say

    try:
        runner = run.start(points.PHICANDLE)
        try:
            found: list[dict[str, Any]] = runner.ask("limits", model=str(model), threads=run.threads)[
                "limits"
            ]
        finally:
            runner.stop()
    except RunnerError as error:
        say(f"The machine's limits were NOT MEASURED: {error}")
        return []
    return found


def measure(chosen: argparse.Namespace) -> record.Record:
    """The whole comparison."""
    # Not needed for looking at a record: NumPy is behind one of them.
    from comparison import models
    from comparison.engines import Comparison, say
    from phi3_shape import cache

    where = cache()
    started = datetime.now(timezone.utc)
    run = Comparison(
        cache=where,
        phicandle=(chosen.phicandle or Path(sys.executable)).absolute(),
        threads=chosen.threads or machine.threads(),
        rounds=chosen.repetitions or (1 if chosen.quick else 3),
        engines=chosen.engines,
        full=chosen.full,
        absent=peers.prepare(where, chosen.engines, may_install=chosen.install, jobs=chosen.jobs),
    )
    wanted: list[Measure] = chosen.measures
    files = models.find({measure.model for measure in wanted}, chosen.layers)
    busy = machine.busy()
    if busy > 0.05:
        say(f"WARNING: this machine is {busy:.0%} busy with other work. The figures will be of little use.")
    clock = machine.Clock()
    found_limits = []
    for name, path in files.items():
        models.warm(path)
        found_limits += limits(run, path) if points.PHICANDLE in chosen.engines else []
        run.run([measure for measure in wanted if measure.model == name], path)
    sizes = models.phi_sizes(chosen.layers)
    return record.Record({
        "format": record.FORMAT,
        "date": started.strftime("%Y-%m-%d %H:%M UTC"),
        "minutes": round((datetime.now(timezone.utc) - started).total_seconds() / 60, 1),
        "machine": machine.facts(),
        "threads": run.threads,
        "rounds": run.rounds,
        "busy": busy,
        "steal": clock.steal(),
        "engines": run.versions,
        "models": {name: models.facts(path) for name, path in files.items()},
        "limits": found_limits,
        "work": {m.name: points.work(m, sizes) for m in wanted if m.model == points.PHI},
        "samples": run.samples,
        "missing": run.missing,
    })  # fmt: skip


def keep(found: record.Record, folder: Path) -> Path:
    """Writes the record, and the chart beside it."""
    data = found.data
    path = folder / f"{data['date'][:10]}-{machine.slug(data['machine']['cpu'])}.json"
    found.write(path)
    chart(found, path.with_suffix(".png"))
    return path


def chart(found: record.Record, path: Path) -> None:
    """The chart, or a line that says why there is none."""
    from comparison.chart import draw

    try:
        draw(found, path)
    except ImportError:
        print("No chart: matplotlib is not installed. `make bench` has it.", file=sys.stderr)


def main(words: list[str] | None = None) -> int:
    """Does what the command line says."""
    chosen = arguments(words)
    if chosen.check or chosen.write_readme:
        newest = record.newest()
        found = record.Record.read(newest) if newest else None
        name = newest.name if newest else ""
        try:
            (tables.check_readme if chosen.check else tables.write_readme)(README, found, name)
        except tables.ReadmeError as error:
            print(error, file=sys.stderr)
            return 1
        return 0
    if chosen.show:
        shown = record.Record.read(chosen.show)
        print(tables.terminal(shown))
        chart(shown, chosen.show.with_suffix(".png"))
        return 0
    try:
        measured = measure(chosen)
    except KeyboardInterrupt:
        print("Stopped; nothing was kept.", file=sys.stderr)
        return 130
    print(tables.terminal(measured))
    # Part of a comparison is no record of the whole.
    from phi3_shape import cache

    folder = chosen.record or (cache() / "record" if chosen.partial else record.FOLDER)
    path = keep(measured, folder)
    print(f"\nEvery sample is in {os.path.relpath(path)}", file=sys.stderr)
    if folder == record.FOLDER:
        print("`python3 benches/compare.py --write-readme` writes its table into README.md.", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
