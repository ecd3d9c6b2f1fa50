"""The page `docs/concurrency.md`, from the record."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from .measurement import MODELS, NAMES, NotMeasuredError, Row, find
from .record import Result, results

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "concurrency.md"
#: Above these shares of the CPUs' time, somebody else was using the machine.
BUSY, STEAL = 0.05, 0.01
_HEAD = (
    "# Many at once",
    "",
    "Written by `make concurrency` from `benches/record/concurrency.json`; do not edit by hand.",
    "",
)


def write(record: dict[str, Any] | None) -> str:
    """The page; without a record, one that says so."""
    if record is None:
        return "\n".join([*_HEAD, "No record of such a run is kept here yet."]) + "\n"
    found = list(results(record))
    lines = [*_HEAD, *_paragraph(_about(record, found)), "", *_paragraph(_tally(found)), ""]
    lines += ["![What was reached, as a share of each target](../benches/record/concurrency.png)", ""]
    for name in NAMES:
        lines += _section(name, [result for result in found if result.name == name])
    return "\n".join(lines).rstrip() + "\n"


def _about(record: dict[str, Any], found: list[Result]) -> str:
    facts = record["machine"]
    dates = sorted({result.data["date"] for result in found})
    when = "" if not dates else f" from {dates[0]} to {dates[-1]}" if len(dates) > 1 else f" on {dates[0]}"
    return (
        f"Measured{when} on {facts['cpu']} with {record['threads']} threads and {facts['memory'] / 2**30:.0f} GiB, by "
        f"phicandle {record['phicandle']} and {record['llama']}. The models are one of Phi-3-mini's shape with "
        "random weights in Q4_K_M, whose texts mean nothing and do not repeat, and SmolLM2-135M-Instruct in Q4_1. "
        "What is compared takes turns; figures are medians over the rounds, and ratios are taken within a round. "
        "**Bold** is a target that was missed."
    )


def tally(found: list[Result]) -> tuple[int, int, int]:
    """Targets met, missed, and not measured."""
    rows = [row for result in found for row in result.rows() if row.bound is not None]
    verdicts = [row.met for row in rows]
    return verdicts.count(True), verdicts.count(False), verdicts.count(None)


def _tally(found: list[Result]) -> str:
    met, missed, unknown = tally(found)
    text = f"Of {met + missed + unknown} targets, {met} were met and {missed} missed"
    text += f"; {unknown} were not measured." if unknown else "."
    if missing := absent(found):
        text += f" NOT MEASURED at all: {'; '.join(missing)}."
    return text


def absent(found: list[Result]) -> list[str]:
    """What the record has nothing of."""
    missing = []
    for name in NAMES:
        try:
            module = find(name)
        except NotMeasuredError as error:
            missing.append(f"{name}: {error}")
            continue
        there = {result.model for result in found if result.name == name and result.missing is None}
        missing += [
            f"{module.TITLE}, {model}" for model in MODELS if model in module.SECONDS and model not in there
        ]
    return missing


def _section(name: str, found: list[Result]) -> list[str]:
    try:
        module = find(name)
    except NotMeasuredError:
        return []
    lines = [f"## {module.TITLE}", "", *_paragraph(module.ABOUT), ""]
    lines += _table([result for result in found if result.missing is None])
    notes = [
        f"{result.model}: NOT MEASURED: {result.missing}." for result in found if result.missing is not None
    ]
    seen = {result.model for result in found}
    notes += [
        f"{m}: NOT MEASURED: the record has no run of it."
        for m in MODELS
        if m in module.SECONDS and m not in seen
    ]
    for result in found:
        notes += [
            f"{result.model}: {row.what}: NOT MEASURED{f': {row.reason}' if row.reason else ''}."
            for row in result.rows()
            if row.value is None
        ]
        if result.data["busy"] > BUSY or result.data["steal"] > STEAL:
            notes.append(
                f"{result.model}: NOT A QUIET MACHINE: {result.data['busy']:.0%} busy with other work before, "
                f"{result.data['steal']:.1%} of the time taken by its host."
            )
    if notes:
        lines += [*(f"- {note}" for note in notes), ""]
    return lines


def _table(found: list[Result]) -> list[str]:
    """A line for each figure, a column for each model."""
    if not found:
        return []
    columns = [{row.what: row for row in result.rows()} for result in found]
    order = list(dict.fromkeys(what for column in columns for what in column))
    lines = [
        "| | " + " | ".join(result.model for result in found) + " | target |",
        "|---|" + "---:|" * len(found) + "---:|",
    ]
    for what in order:
        cells = [_cell(column.get(what)) for column in columns]
        targets = dict.fromkeys(column[what].target for column in columns if what in column)
        lines.append(f"| {what} | {' | '.join(cells)} | {', '.join(filter(None, targets)) or '-'} |")
    return [*lines, ""]


def _cell(row: Row | None) -> str:
    if row is None:
        return "-"
    return f"**{row.text}**" if row.met is False else row.text


def _paragraph(text: str) -> list[str]:
    return textwrap.wrap(text, 118, break_long_words=False, break_on_hyphens=False)
