"""Curves of the scaling benchmark."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from qbsnn.report.style import look
from qbsnn.results.files import write_atomically

COLOURS = {
    "QB-LIF block": "#1b7f4b",
    "QB-LIF packed": "#6a3d9a",
    "QB-LIF checkpoint": "#2166ac",
    "SpikingJelly": "#d6700a",
    "ReLU twin": "#667085",
}
LABELS = {"T": "time steps T", "batch": "batch", "width": "width"}


def draw_scaling(curves: dict[str, list[dict[str, Any]]], folder: Path) -> list[Path]:
    """Write ``bench_<axis>.png`` and ``.svg`` for each axis into ``folder``; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for axis, points in curves.items():
        with look(), mpl.rc_context({"svg.hashsalt": "qbsnn"}):
            figure = draw(axis, points)
            for suffix, options in (("png", {"dpi": 150}), ("svg", {"metadata": {"Date": None}})):
                buffer = io.BytesIO()
                figure.savefig(buffer, format=suffix, **options)
                path = folder / f"bench_{axis}.{suffix}"
                write_atomically(path, buffer.getvalue())
                written.append(path)
    return written


def draw(axis: str, points: list[dict[str, Any]]) -> Figure:
    """Time on the left and memory on the right over one axis, both logarithmic, one line a contender."""
    figure = Figure(figsize=(8, 3.2))
    panels = {"seconds": ("step time, s", 1.0), "bytes": ("kept for the backward pass, MiB", 2.0**20)}
    for (key, (label, unit)), ax in zip(panels.items(), figure.subplots(1, 2), strict=True):
        names = list(dict.fromkeys(name for point in points for name in point[key]))
        for name in names:
            pairs = [(point[axis], point[key][name] / unit) for point in points if point[key].get(name, 0) > 0]
            ax.plot(*zip(*pairs, strict=True), marker="o", markersize=3, label=name, color=COLOURS.get(name))
        ax.set(xlabel=LABELS[axis], ylabel=label)
        ax.set_xscale("log", base=2)
        ax.set_yscale("log")
        ticks = [point[axis] for point in points]
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.minorticks_off()
        ax.grid(True)
        if names and key == "seconds":
            ax.legend()
    return figure
