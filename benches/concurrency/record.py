"""The record of `make concurrency`: one JSON file. A later run of a measurement takes the place of an earlier one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .measurement import NAMES, NotMeasuredError, Row, find

FORMAT = 1
#: Not named by a date: the newest record with such a name is one of speeds.
RECORD = Path(__file__).resolve().parent.parent / "record" / "concurrency.json"


@dataclass(frozen=True)
class Result:
    """A measurement with one model, as the record has it."""

    name: str
    model: str
    data: dict[str, Any]

    @property
    def missing(self) -> str | None:
        """Why there are no figures."""
        reason: str | None = self.data.get("missing")
        return reason

    def rows(self) -> list[Row]:
        """The figures; none where nothing was measured."""
        if self.missing is not None:
            return []
        found: list[Row] = find(self.name).rows(self.data["found"])
        return found


def read(path: Path = RECORD) -> dict[str, Any] | None:
    """The record, if there is one.

    Raises:
        ValueError: It is of another format.
    """
    if not path.exists():
        return None
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if record.get("format") != FORMAT:
        raise ValueError(f"The record has format {record.get('format')!r}; this version reads {FORMAT}.")
    return record


def write(record: dict[str, Any], path: Path = RECORD) -> None:
    """Writes it, under another name until it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    part.replace(path)


def joined(old: dict[str, Any] | None, new: dict[str, Any]) -> dict[str, Any]:
    """The new record, with those results of the old one that it does not have.

    Raises:
        ValueError: The old one was made on another machine.
    """
    if old is None:
        return new
    for name in ("machine", "threads"):
        if old[name] != new[name]:
            raise ValueError(f"The record that is kept has another {name}; make all of it again.")
    taken = {(result["measurement"], result["model"]) for result in new["results"]}
    kept = [r for r in old["results"] if (r["measurement"], r["model"]) not in taken]
    return {**new, "results": kept + new["results"]}


def results(record: dict[str, Any]) -> Iterator[Result]:
    """The results in the order of the page; those of measurements that are no longer there are left out."""
    for name in NAMES:
        try:
            find(name)
        except NotMeasuredError:
            continue
        for data in record["results"]:
            if data["measurement"] == name:
                yield Result(name, data["model"], data)
