"""The figure of what absorption and the integer network cost."""

from __future__ import annotations

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from qbsnn.report import style
from qbsnn.report.style import WIDTH, label
from qbsnn.results.schema import LayerCheck, Result, ran


def accuracies(result: Result) -> list[tuple[str, float]]:
    """The accuracies the result holds, each with the words that say of what and on how many images."""
    found = [("test set, last", result.metrics.last.get("test/acc"))]
    found.append(("test set, best by validation", result.metrics.best.get("test/acc")))
    if absorption := ran(result.absorption):
        images = f"{absorption.images:,} images"
        found.append((f"trained, {images}", absorption.trained_acc))
        found.append((f"absorbed, {images}", absorption.acc))
    if integer := ran(result.integer):
        found.append((f"integer, {integer.images:,} images", integer.acc))
    return [(name, value) for name, value in found if value is not None and math.isfinite(value)]


def deploy(result: Result) -> Figure | None:
    """Per layer the disagreement of integer and absorbed network and the bits needed; then the accuracies.

    Nothing is drawn for a run with neither check.
    """
    integer = ran(result.integer)
    if not ran(result.absorption) and not integer:
        return None
    layers = integer.layers if integer else []
    values = accuracies(result)
    if not layers:
        figure = Figure(figsize=(6.5, 2.5))
        _accuracies(figure.subplots(), values)
        return figure
    figure = Figure(figsize=(WIDTH, max(2.5, 0.205 * len(layers) + 1.0)))
    axes = figure.subplots(1, 3)
    _disagreement(axes[0], layers, [label(layer.name, 24) for layer in layers])
    _bits(axes[1], layers)
    _accuracies(axes[2], values)
    return figure


def _disagreement(axes: Axes, layers: list[LayerCheck], names: list[str]) -> None:
    shares = [100 * layer.disagreement for layer in layers]
    rows = range(len(layers))
    axes.barh(rows, shares, height=0.68, color=style.FIRST)
    top = max([*shares, 0.1])
    for row, share in enumerate(shares):
        axes.text(share + 0.015 * top, row, f"{share:.2f}", va="center", fontsize=7)
    axes.set_xlim(0, 1.16 * top)
    _rows(axes, names)
    axes.set_title("integer ≠ absorbed burst")
    axes.set_xlabel("% of positions")


def _bits(axes: Axes, layers: list[LayerCheck]) -> None:
    rows = list(range(len(layers)))
    accumulator = [layer.accumulator_bits for layer in layers]
    membrane = [layer.membrane_bits for layer in layers]
    axes.hlines(rows, accumulator, membrane, color=style.MUTED, linewidth=1)
    axes.plot(accumulator, rows, "o", color=style.FIRST, markersize=5, label="accumulator")
    axes.plot(membrane, rows, "D", color=style.SECOND, markersize=4.5, label="membrane")
    axes.axvline(32, color=style.BAD, linewidth=1.2)
    axes.set_xlim(0, max(34, *accumulator, *membrane) + 1)
    _rows(axes, [], len(rows))
    axes.set_title("bits needed, of 32 (red)")
    axes.set_xlabel("bits, two's complement")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[8]))
    axes.legend(loc="lower left", fontsize=7.5, handletextpad=0.1, borderpad=0.1)


def _accuracies(axes: Axes, values: list[tuple[str, float]]) -> None:
    percents = [100 * value for _, value in values]
    rows = range(len(values))
    colours = [style.MUTED if name.startswith("test set") else style.FIRST for name, _ in values]
    axes.scatter(percents, rows, s=34, color=colours, zorder=3)
    for row, percent in enumerate(percents):
        axes.annotate(f"{percent:.2f}", (percent, row), xytext=(0, 6), textcoords="offset points", ha="center")
    low, high = min(percents, default=0), max(percents, default=100)
    margin = max(0.35 * (high - low), 1.0)
    axes.set_xlim(max(low - margin, -4), min(high + margin, 104))
    _rows(axes, [name for name, _ in values])
    axes.set_ylim(len(values) - 0.4, -0.7)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_title("accuracy")
    axes.set_xlabel("% (axis does not start at 0)")


def _rows(axes: Axes, names: list[str], count: int = 0) -> None:
    """One row per name from the top, or ``count`` rows without names."""
    axes.set_yticks(range(len(names)), names, fontsize=7.5)
    axes.set_ylim(max(len(names), count) - 0.4, -0.6)
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
