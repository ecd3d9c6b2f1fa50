"""What a comparison found: one JSON file, and the questions that tables and charts ask of it."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .points import BY_NAME, PHICANDLE, POINTS, Point, Target

FORMAT = 1
#: Where records are kept.
FOLDER = Path(__file__).resolve().parent.parent / "record"


@dataclass(frozen=True)
class Cell:
    """An engine's figure at a point: the median over the rounds of its best configuration."""

    value: float
    best: float
    count: int
    config: str


@dataclass(frozen=True)
class Verdict:
    """How a target was met."""

    text: str
    #: `None` when something that it needs was not measured.
    met: bool | None
    #: What was reached, in the target's own terms: a factor, a share or the figure.
    reached: float | None
    #: For a column of a table.
    brief: str = "not measured"


def best(limits: list[dict[str, Any]], name: str) -> float:
    """The most that was measured of `read_bytes_per_s` or `int8_ops_per_s`."""
    return float(max(max(limit[name]["samples"]) for limit in limits))


def nearest(work: dict[str, Any], limits: list[dict[str, Any]], passes: float) -> tuple[float, str]:
    """The larger share of two limits, each the best that was measured, at so many times the work a second."""
    return max(
        (passes * work["bytes"] / best(limits, "read_bytes_per_s"), "read bandwidth"),
        (passes * work["ops"] / best(limits, "int8_ops_per_s"), "int8 peak"),
    )


def config_name(config: dict[str, Any]) -> str:
    """A configuration in words."""
    return ", ".join(f"{name} {value}" for name, value in sorted(config.items()))


class Record:
    """A record, read."""

    def __init__(self, data: dict[str, Any]) -> None:
        if data.get("format") != FORMAT:
            raise ValueError(f"The record has format {data.get('format')!r}; this version reads {FORMAT}.")
        self.data = data

    @classmethod
    def read(cls, path: Path) -> Record:
        """From its file."""
        return cls(json.loads(path.read_text(encoding="utf-8")))

    def write(self, path: Path) -> None:
        """Into its file, under another name until it is whole."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(self.data, indent=1) + "\n", encoding="utf-8")
        part.replace(path)

    # Figures ---------------------------------------------------------------------------------------------------------

    def _by_config(self, point: Point, engine: str) -> dict[str, list[float]]:
        found: dict[str, list[float]] = {}
        for sample in self.data["samples"]:
            if (sample["measure"], sample["engine"]) == (point.measure, engine) and point.field in sample:
                found.setdefault(config_name(sample["config"]), []).append(sample[point.field])
        return found

    def cell(self, point: Point, engine: str) -> Cell | None:
        """The engine's figure, or nothing when it was not measured."""
        pick = min if point.lower_is_better else max
        cells = [
            Cell(statistics.median(values), pick(values), len(values), config)
            for config, values in self._by_config(point, engine).items()
        ]
        return pick(cells, key=lambda cell: cell.value) if cells else None

    def reason(self, point: Point, engine: str) -> str | None:
        """Why the engine was not measured at this point; nothing when it was not meant to be."""
        for missing in self.data["missing"]:
            if (missing["measure"], missing["engine"]) == (point.measure, engine):
                return str(missing["reason"])
        return None

    def ratio(self, point: Point, engine: str) -> float | None:
        """How many times as good as the engine phicandle is."""
        ours, theirs = self.cell(point, PHICANDLE), self.cell(point, engine)
        if ours is None or theirs is None:
            return None
        return theirs.value / ours.value if point.lower_is_better else ours.value / theirs.value

    def best_peer(self, point: Point, engines: Iterable[str]) -> tuple[str, float] | None:
        """The engine that comes nearest to phicandle, and phicandle's figure over its own."""
        ratios = [(engine, ratio) for engine in engines if (ratio := self.ratio(point, engine)) is not None]
        return min(ratios, key=lambda pair: pair[1]) if ratios else None

    # Limits ----------------------------------------------------------------------------------------------------------

    def limits(self, threads: int) -> list[dict[str, Any]]:
        """What the machine did with so many threads, before the comparison."""
        return [limit for limit in self.data["limits"] if limit["threads"] == threads]

    def share(self, point: Point, engine: str = PHICANDLE) -> tuple[float, str] | None:
        """The share of the machine's limit that an engine reached, and which limit that is.

        Of the limits of just before and after each sample where those were measured, as a machine may be faster or
        slower at other times: the median over the samples. Else of the best that was measured at all.
        """
        work, cell = self.data["work"].get(point.measure), self.cell(point, engine)
        if point.field != "rate":
            return None
        measure = BY_NAME[point.measure]
        if not work or cell is None:
            return None
        beside = [
            nearest(work, sample["limits"], sample["rate"] / measure.tokens())
            for sample in self.data["samples"]
            if (sample["measure"], sample["engine"]) == (point.measure, engine) and "limits" in sample
        ]
        if beside:
            _, name = statistics.median_low(beside)
            return statistics.median(share for share, _ in beside), name
        limits = self.limits(1 if measure.one_thread else self.data["threads"])
        return nearest(work, limits, cell.value / measure.tokens()) if limits else None

    # Targets ---------------------------------------------------------------------------------------------------------

    def verdict(self, point: Point, target: Target) -> Verdict:
        """Whether phicandle reached it, and how far it went."""
        what, reached = self._reached(point, target)
        if target.kind in {"most", "file"}:
            text = (
                f"<= {show(target.factor, point.unit)}"
                if target.kind == "most"
                else f"<= {target.factor:g} x file"
            )
            shown = (
                show(reached, point.unit) if target.kind == "most" and reached else f"{reached or 0:.2f} x"
            )
            met = None if reached is None else reached <= target.factor
        elif target.kind == "share":
            text = f">= {target.factor:.0%} of {what}"
            shown = f"{reached or 0:.0%}"
            met = None if reached is None else reached >= target.factor
        else:
            text = f">= {target.factor:g} x {what}"
            shown = f"{reached or 0:.2f} x"
            met = None if reached is None else reached >= target.factor
        if reached is None or met is None:
            return Verdict(f"{text}: not measured", None, None)
        if met:
            return Verdict(f"{text}: {shown}, met", True, reached, "met")
        short = abs(reached / target.factor - 1)
        return Verdict(f"{text}: {shown}, MISSED by {short:.0%}", False, reached, f"missed by {short:.0%}")

    def _reached(self, point: Point, target: Target) -> tuple[str, float | None]:
        ours = self.cell(point, PHICANDLE)
        if target.kind == "share":
            share = self.share(point)
            return (share[1], share[0]) if share else ("the limit", None)
        if target.kind == "most":
            return "", ours.value if ours else None
        if target.kind == "file":
            size = self.data["models"].get(BY_NAME[point.measure].model, {}).get("file_bytes")
            return "file", ours.value / size if ours and size else None
        at = next(
            p for p in POINTS if p.name == (target.of if target.kind == "own" else target.at or point.name)
        )
        other = self.cell(at, PHICANDLE if target.kind == "own" else target.of)
        what = f"its own {at.title}" if target.kind == "own" else target.of
        return what, ours.value / other.value if ours and other else None


def show(value: float, unit: str) -> str:
    """A figure with its unit, for people."""
    if unit == "tok/s":
        return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
    if unit == "GB":
        return f"{value / 1e9:.2f} GB"
    if unit == "us":
        return f"{value * 1e6:.1f} us"
    if unit == "s":
        return f"{value:.2f} s" if value >= 0.1 else f"{value * 1e3:.0f} ms"
    return f"{value:.2f} {unit}"


def newest(folder: Path = FOLDER) -> Path | None:
    """The newest record there, by the day in its name and the time in it; other kinds have other names."""
    return max(
        folder.glob("[0-9]*.json"),
        default=None,
        key=lambda path: (path.name[:10], Record.read(path).data["date"], path.name),
    )
