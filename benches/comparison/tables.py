"""Tables of a record: for the terminal, and for the README."""

from __future__ import annotations

from pathlib import Path

from .points import ENGINES, PHICANDLE, POINTS, Point
from .record import Record, best, show

BEGIN = "<!-- performance: written by `python3 benches/compare.py --write-readme`; do not edit by hand -->"
END = "<!-- performance: end -->"
#: What stands there before there is a record.
NO_RECORD = (
    "`make bench` compares it with other engines on this machine. No record of such a run is kept here yet."
)


class ReadmeError(Exception):
    """The README and the record disagree, in a sentence."""


def figure(record: Record, point: Point, engine: str) -> str:
    """An engine's figure, or a dash."""
    cell = record.cell(point, engine)
    return show(cell.value, point.unit) if cell else "-"


def measured_engines(record: Record) -> list[str]:
    """The engines that have a figure anywhere, in the usual order."""
    return [engine for engine in ENGINES if any(record.cell(point, engine) for point in POINTS)]


def rows(record: Record, engines: list[str]) -> list[list[str]]:
    """Every point that was measured: what, each engine's figure, the best peer, the share of the limit, targets."""
    table = []
    for point in POINTS:
        figures = [figure(record, point, engine) for engine in engines]
        if set(figures) <= {"-"}:
            continue
        peer = record.best_peer(point, [engine for engine in engines if engine != PHICANDLE])
        share = record.share(point)
        table.append([
            f"{point.title}, {point.unit}" if point.unit == "tok/s" else point.title,
            *figures,
            f"{peer[1]:.2f} x {peer[0]}" if peer else "-",
            f"{share[0]:.0%} of {share[1]}" if share else "-",
            ", ".join(record.verdict(point, target).brief for target in point.targets) or "-",
        ])  # fmt: skip
    return table


def align(table: list[list[str]]) -> str:
    """Columns of equal width, the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for row in table:
        cells = [
            f"{cell:<{width}}" if i == 0 else f"{cell:>{width}}"
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def terminal(record: Record) -> str:
    """The whole table, the targets, and what was not measured and why."""
    data = record.data
    engines = measured_engines(record)
    parts = [headline(record), ""]
    body = rows(record, engines)
    if body:
        parts += [align([["", *engines, "best peer", "limit", "targets"], *body]), ""]
    parts.append("Targets")
    for point in POINTS:
        for target in point.targets:
            parts.append(f"  {point.title}: {record.verdict(point, target).text}")
    met, missed, unknown = tally(record)
    parts += [f"  {met} met, {missed} missed, {unknown} not measured", ""]
    best = []
    for point in POINTS:
        cells = [(engine, record.cell(point, engine)) for engine in engines]
        named = [f"{engine} ({cell.config})" for engine, cell in cells if cell and cell.config]
        if named:
            best.append(f"  {point.title}: {'; '.join(named)}")
    if best:
        parts += ["Best configurations", *best, ""]
    if data["missing"]:
        parts.append("Not measured")
        reasons: dict[tuple[str, str], list[str]] = {}
        for missing in data["missing"]:
            reasons.setdefault((missing["engine"], missing["reason"]), []).append(missing["measure"])
        parts += [f"  {engine}: {', '.join(names)}: {why}" for (engine, why), names in reasons.items()]
    return "\n".join(parts).rstrip()


def tally(record: Record) -> tuple[int, int, int]:
    """Targets met, missed, and not measured."""
    verdicts = [record.verdict(point, target).met for point in POINTS for target in point.targets]
    return verdicts.count(True), verdicts.count(False), verdicts.count(None)


def headline(record: Record) -> str:
    """The machine, the versions, the limits."""
    data = record.data
    machine = data["machine"]
    versions = ", ".join(f"{engine} {facts['version']}" for engine, facts in data["engines"].items())
    lines = [
        f"{data['date']}, {machine['cpu']}, {data['threads']} threads, {machine['memory'] / 2**30:.0f} GiB; {versions}"
    ]
    for threads in sorted({limit["threads"] for limit in data["limits"]}):
        limits = record.limits(threads)
        read, int8 = best(limits, "read_bytes_per_s"), best(limits, "int8_ops_per_s")
        many = "threads" if threads > 1 else "thread"
        rates = f"{read / 1e9:.1f} GB/s read, {int8 / 1e9:,.0f} GOPS int8"
        lines.append(f"limits with {threads} {many}: {rates}")
    if data.get("busy", 0) > 0.05 or data.get("steal", 0) > 0.01:
        lines.append(
            f"NOT A QUIET MACHINE: {data.get('busy', 0):.0%} busy with other work before, "
            f"{data.get('steal', 0):.1%} of the time taken by its host"
        )
    return "\n".join(lines)


# README --------------------------------------------------------------------------------------------------------------


def readme_block(record: Record | None, name: str = "") -> str:
    """What stands between the two marks."""
    if record is None:
        return f"{BEGIN}\n{NO_RECORD}\n{END}"
    engines = measured_engines(record)
    table = [["", *engines, "best peer", "limit", "targets"], *rows(record, engines)]
    lines = ["| " + " | ".join(row) + " |" for row in table]
    lines.insert(1, "|---" + "|---:" * (len(table[0]) - 1) + "|")
    met, missed, unknown = tally(record)
    counts = f"Of {met + missed + unknown} targets {met} were met, {missed} missed"
    counts += f" and {unknown} not measured." if unknown else "."
    notes = [line.replace("\n", "; ") for line in [headline(record)]]
    shortfalls = [
        f"- {point.title}: {verdict.text}"
        for point in POINTS
        for target in point.targets
        if (verdict := record.verdict(point, target)).met is False
    ]
    closing = f"{counts} Every sample is in [benches/record/{name}](benches/record/{name}); `make bench` makes another."
    parts = [BEGIN, *notes, "", *lines, "", closing]
    if shortfalls:
        parts += ["", *shortfalls]
    return "\n".join([*parts, END])


def replaced(readme: str, block: str) -> str:
    """The README with this block between its marks."""
    first, last = readme.find(BEGIN), readme.find(END)
    if readme.count(BEGIN) != 1 or readme.count(END) != 1 or last < first:
        raise ReadmeError(f"README.md must have one line `{BEGIN}` and, after it, one `{END}`.")
    return readme[:first] + block + readme[last + len(END) :]


def write_readme(readme: Path, record: Record | None, name: str = "") -> None:
    """Writes the table of the record into the README."""
    text = readme.read_text(encoding="utf-8")
    readme.write_text(replaced(text, readme_block(record, name)), encoding="utf-8")


def check_readme(readme: Path, record: Record | None, name: str = "") -> None:
    """Raises `ReadmeError` when the README does not say what the record says."""
    text = readme.read_text(encoding="utf-8")
    if replaced(text, readme_block(record, name)) != text:
        source = f"benches/record/{name}" if record else "the lack of a record"
        raise ReadmeError(
            f"README.md's table does not agree with {source}. Run `python3 benches/compare.py --write-readme`."
        )
