"""A chart of a record: one panel per point, one bar per engine, a line at the machine's limit."""

from __future__ import annotations

from pathlib import Path

from .points import ENGINES, PHICANDLE
from .points import POINTS as ALL
from .record import Record, show

_COLOURS = dict(zip(ENGINES, ("#1b6ca8", "#7a7a7a", "#e2a33d", "#9b5fb0", "#5a9e6f"), strict=True))
_COLUMNS = 4


def draw(record: Record, path: Path) -> None:
    """Writes a PNG."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    points = [point for point in ALL if point.unit == "tok/s" and any(record.cell(point, e) for e in ENGINES)]
    lines = max(1, -(-len(points) // _COLUMNS))
    figure, axes = plt.subplots(lines, _COLUMNS, figsize=(4 * _COLUMNS, 2.6 * lines + 0.6), squeeze=False)
    for axis in axes.flat[len(points) :]:
        axis.set_axis_off()
    for axis, point in zip(axes.flat, points, strict=False):
        bars = [(engine, cell.value) for engine in ENGINES if (cell := record.cell(point, engine))]
        names = [engine for engine, _ in bars][::-1]
        values = [value for _, value in bars][::-1]
        drawn = axis.barh(names, values, color=[_COLOURS[name] for name in names], height=0.7)
        # Bars of one height in every panel, from the top.
        axis.set_ylim(len(bars) - len(ENGINES) - 0.6, len(bars) - 0.4)
        axis.bar_label(drawn, labels=[show(value, point.unit) for value in values], padding=3, fontsize=9)
        reached = record.share(point)
        ours = record.cell(point, PHICANDLE)
        limit = ours.value / reached[0] if reached and ours else 0.0
        if limit:
            axis.axvline(limit, color="#b03030", linewidth=1, linestyle="--")
        axis.set_xlim(0, max(limit, *values) * 1.18)
        axis.set_title(point.title, fontsize=10)
        axis.tick_params(axis="y", labelsize=9)
        axis.set_xticks([])
        for side in ("top", "right", "bottom"):
            axis.spines[side].set_visible(False)
    data = record.data
    figure.suptitle(
        f"Tokens per second, {data['machine']['cpu']}, {data['threads']} threads, {data['date'][:10]}. "
        "Dashed: what the machine's memory or int8 units allow.",
        fontsize=11,
    )
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    plt.close(figure)
