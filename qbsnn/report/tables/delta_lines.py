"""The scale Δ of each layer over training, a panel for every row of a sweep whose Δ is learned."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from qbsnn.report.style import DEPTH, grid, label, styled
from qbsnn.results.run_files import read_curves
from qbsnn.results.sweeps import Group, Sweep

COLUMNS, PANELS, LEGEND = 3, 6, 20
Curves = dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]]


@styled
def delta(sweep: Sweep) -> Figure | None:
    """Mean over seeds with a band of ± sd; the first six rows where some Δ moves."""
    found = [(group.label, curves) for group in sweep.groups if (curves := _moving(group))][:PANELS]
    if not found:
        return None
    columns = 2 if len(found) == 4 else min(COLUMNS, len(found))
    height = -(-len(found) // columns)
    figure = Figure(figsize=(1.4 + 2.5 * columns, 0.5 + 2.3 * height), layout="constrained")
    axes = figure.subplots(height, columns, squeeze=False).flatten()
    names = list(dict.fromkeys(name for _, curves in found for name in curves))
    for place, (title, curves) in zip(axes, found, strict=False):
        _panel(place, title, curves, names)
    for place in axes[len(found) :]:
        place.set_axis_off()
    for place in axes[0::columns]:
        place.set_ylabel("scale Δ")
    handles = {line.get_label(): line for place in axes for line in place.lines}
    shown = [name for name in (label(name) for name in names) if name in handles][:LEGEND]
    figure.legend([handles[name] for name in shown], shown, loc="outside right upper", title="layer", fontsize=7)
    return figure


def _panel(axes: Axes, title: str, curves: Curves, names: list[str]) -> None:
    for name, (epochs, values) in curves.items():
        colour = DEPTH(names.index(name) / max(len(names) - 1, 1))
        mean = values.mean(0)
        axes.plot(epochs, mean, color=colour, label=label(name), marker="o" if len(epochs) == 1 else "")
        if len(values) > 1:
            spread = values.std(0, ddof=1)
            axes.fill_between(epochs, mean - spread, mean + spread, color=colour, alpha=0.15, linewidth=0)
    axes.set_title(label(title, 34), fontsize=8.5)
    axes.set_xlabel("epoch (the first is 0)")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    grid(axes)


def _moving(group: Group) -> Curves:
    """By layer, epochs [n] and Δ [seeds, n] over the epochs that all seeds have; nothing where no Δ ever changes."""
    runs = []
    for cell in group.done:
        if cell.path is not None and (cell.path / "metrics.csv").is_file():
            read = read_curves(cell.path / "metrics.csv")
            runs.append({name.removeprefix("delta/"): line for name, line in read.items() if name.startswith("delta/")})
    if not runs or not any(np.ptp(line.value) > 0 for run in runs for line in run.values()):
        return {}
    curves: Curves = {}
    for name in runs[0]:
        lines = [run[name] for run in runs if name in run]
        epochs = sorted(set.intersection(*(set(line.epoch.tolist()) for line in lines)))
        values = [
            [dict(zip(line.epoch.tolist(), line.value.tolist(), strict=True))[e] for e in epochs] for line in lines
        ]
        curves[name] = (np.array(epochs, dtype=np.int64), np.array(values, dtype=np.float64))
    return curves
