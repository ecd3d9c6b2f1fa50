"""A chart of a record: what was reached of each target, and a stream while a long prompt enters beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from comparison.points import PHI, SMOL

from .measurement import find
from .record import Result, results

_COLOURS = {PHI: "#1b6ca8", SMOL: "#e2a33d"}
#: The most that a bar shows: what is better than ten times the target is as good.
_MOST = 10.0


def draw(record: dict[str, Any], path: Path) -> None:
    """Writes a PNG."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    found = list(results(record))
    bars = [
        (result, row.what, row.text, row.reached)
        for result in found
        for row in result.rows()
        if row.reached is not None
    ][::-1]
    streams = [result for result in found if result.name == "gaps" and result.missing is None]
    height = 1.2 + 0.24 * max(len(bars), 8)
    figure = plt.figure(figsize=(15, height))
    grid = figure.add_gridspec(max(1, len(streams)), 2, width_ratios=(3, 2))
    axis = figure.add_subplot(grid[:, 0])
    shares = [min(reached, _MOST) for *_, reached in bars]
    # From the target on: to the right what is better, to the left what falls short.
    axis.barh(
        range(len(bars)),
        [share - 1 for share in shares],
        left=1,
        color=[_COLOURS[result.model] for result, *_ in bars],
        height=0.7,
    )
    for place, ((_, _, text, _), share) in enumerate(zip(bars, shares, strict=True)):
        axis.annotate(
            text, (max(share, 1.0), place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8
        )
    axis.set_yticks(range(len(bars)), [f"{find(r.name).TITLE}: {what}" for r, what, *_ in bars], fontsize=8)
    axis.axvline(1.0, color="#b03030", linewidth=1, linestyle="--")
    axis.set_xscale("log")
    axis.set_xlim(min([0.3, *shares]) * 0.8, _MOST * 1.8)
    axis.set_xticks([0.5, 1, 2, 5, 10], ["half", "target", "2 x", "5 x", "10 x or more"], fontsize=8)
    axis.minorticks_off()
    axis.set_ylim(-0.6, len(bars) - 0.4)
    axis.set_title("What was reached of each target", fontsize=10)
    for name, colour in _COLOURS.items():
        axis.bar(1, 0, color=colour, label=name)
    axis.legend(loc="lower right", fontsize=8)
    for place, result in enumerate(streams):
        _stream(figure.add_subplot(grid[place, 1]), result)
    facts = record["machine"]
    figure.suptitle(f"Many at once, {facts['cpu']}, {record['threads']} threads", fontsize=11)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _stream(axis: Any, result: Result) -> None:
    """Each gap between two tokens of a running stream, over the time at which it ended."""
    one = result.data["found"]["rounds"][0]
    normal = sorted(one["before"])[len(one["before"]) // 2]
    for name, colour in (("before", "#7a7a7a"), ("beside", _COLOURS[result.model])):
        at, times = (0.0 if name == "before" else sum(one["before"])), []
        for gap in one[name]:
            at += gap
            times.append(at)
        axis.plot(
            times,
            [gap / normal for gap in one[name]],
            ".",
            color=colour,
            markersize=3,
            label=f"{name} the prompt",
        )
    axis.axhline(2.0, color="#b03030", linewidth=1, linestyle="--")
    axis.set_ylim(bottom=0)
    axis.set_title(f"Steps of a stream, {result.model}", fontsize=9)
    axis.set_xlabel("seconds", fontsize=8)
    axis.set_ylabel("normal steps", fontsize=8)
    axis.legend(fontsize=8)
