"""Figures over the epochs of training. Each function returns ``None`` where there is nothing to draw."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from qbsnn.report.style import DEPTH, FIRST, MUTED, SECOND, WIDTH, label
from qbsnn.results.run_files import Series

LEGEND_ROWS = 20


def curves(data: Mapping[str, Series], best: tuple[int, float] | None = None) -> Figure | None:
    """Loss and accuracy of training and validation, and the learning rate where it was logged.

    best: the epoch whose weights are the best by validation, and its validation accuracy, to be marked.
    """
    panels = [
        (name, found)
        for name in ("loss", "acc")
        if (found := {split: data[f"{split}/{name}"] for split in ("train", "val") if f"{split}/{name}" in data})
    ]
    if not panels:
        return None
    rate = data.get("lr")
    widths = [1.0] * len(panels) + ([0.62] if rate else [])
    figure = Figure(figsize=(WIDTH, 3.1))
    axes = figure.subplots(1, len(widths), squeeze=False, width_ratios=widths)[0]
    for place, (name, found) in zip(axes, panels, strict=False):
        for split, series in found.items():
            colour = FIRST if split == "train" else SECOND
            _line(place, series, colour, "training" if split == "train" else "validation")
        place.set_title("loss" if name == "loss" else "accuracy")
        if name == "acc":
            place.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
        if best:
            place.axvline(best[0], color=MUTED, linewidth=0.9, linestyle=(0, (3, 3)), zorder=1)
        if best and name == "acc":
            text = f"best by validation: epoch {best[0]}, {100 * best[1]:.2f} %"
            place.plot(*best, "o", markersize=7, markerfacecolor="none", color=SECOND, label=text)
        place.legend(loc="upper right" if name == "loss" else "lower right")
        _epochs(place)
    if rate:
        _line(axes[-1], rate, MUTED, "lr")
        axes[-1].set_title("learning rate")
        _epochs(axes[-1])
    return figure


def delta(data: Mapping[str, Series]) -> Figure | None:
    """The scale Δ of each layer over training."""
    return _per_layer(data, {"delta/": "scale Δ per layer"})


def activity(data: Mapping[str, Series]) -> Figure | None:
    """Mean burst size and saturation of each layer over training."""
    return _per_layer(data, {"burst/": "mean burst per neuron and step", "saturation/": "share at s_max"})


def health(data: Mapping[str, Series]) -> Figure | None:
    """Dead neurons, effective bits and temporal variation of each layer over training."""
    return _per_layer(
        data,
        {"dead/": "neurons that never fire", "bits/": "entropy of a burst in bits", "variation/": "change per step"},
    )


def gradients(data: Mapping[str, Series]) -> Figure | None:
    """The norm of each layer's gradients over training, before clipping, on a log scale."""
    return _per_layer(data, {"grad/": "gradient norm per layer"})


def _per_layer(data: Mapping[str, Series], titles: Mapping[str, str]) -> Figure | None:
    found = {prefix: {n[len(prefix) :]: s for n, s in data.items() if n.startswith(prefix)} for prefix in titles}
    found = {prefix: layers for prefix, layers in found.items() if layers}
    if not found:
        return None
    names = list(dict.fromkeys(name for layers in found.values() for name in layers))
    colours = {name: DEPTH(index / max(len(names) - 1, 1)) for index, name in enumerate(names)}
    figure = Figure(figsize=(WIDTH, max(3.1, 0.165 * min(len(names), LEGEND_ROWS) + 0.8)))
    axes = figure.subplots(1, len(found), squeeze=False)[0]
    lines = {}
    for place, (prefix, layers) in zip(axes, found.items(), strict=True):
        for name, series in layers.items():
            lines[name] = _line(place, series, colours[name], label(name))
        place.set_title(titles[prefix])
        if prefix == "grad/" and all(series.value.min() > 0 for series in layers.values()):
            place.set_yscale("log")
        if prefix in ("saturation/", "dead/"):
            place.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
            place.set_ylim(bottom=0)
        _epochs(place)
    figure.legend(
        [lines[name] for name in names],
        [label(name) for name in names],
        loc="outside right upper",
        ncols=-(-len(names) // LEGEND_ROWS),
        fontsize=7.5,
        title="layer, input first",
        title_fontsize=7.5,
        handlelength=1.4,
        labelspacing=0.35,
        columnspacing=1.0,
    )
    return figure


def _line(axes: Axes, series: Series, colour: Any, name: str) -> Line2D:
    # A line through few points hides where they are, and a single point has no line at all.
    marker = "o" if len(series.epoch) <= 12 else ""
    return axes.plot(series.epoch, series.value, color=colour, label=name, marker=marker, markersize=3)[0]


def _epochs(axes: Axes) -> None:
    axes.set_xlabel("epoch (the first is 0)")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    axes.grid(axis="y")
