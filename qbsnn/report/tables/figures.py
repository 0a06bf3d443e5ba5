"""Figures of a sweep for a paper: accuracy against T, s_max and energy, the α × β map, rows, Δ over training."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator, ScalarFormatter

from qbsnn.errors import DataError
from qbsnn.report.style import DEPTH, MUTED, label, styled
from qbsnn.report.tables.points import lines, pareto, points
from qbsnn.results.files import write_atomically
from qbsnn.results.sweeps import Plan

# Okabe and Ito's colours, which people with any kind of colour vision tell apart; markers repeat the distinction.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C7A00")
MARKERS = "osD^vP*X"
DPI = 300
NAMED = len(COLOURS)  # points that each have a line in the legend; of more, each row has
PANELS = 6  # of the figure of Δ
ACCURACY = "test accuracy (%)"


def figures(plan: Plan, cells: pd.DataFrame) -> dict[str, Figure]:
    """The sweep's own figure first, then accuracy against energy and Δ over training where there is something to draw.

    Raises:
        DataError: The sweep asks for a figure that there is not, or that its cells cannot give.
    """
    wanted = plan.figure or "rows"
    if wanted not in FIGURES:
        raise DataError(f"sweep {plan.name}: figure must be one of {', '.join(FIGURES)}, got {wanted!r}")
    drawn = {name: FIGURES[name](cells) for name in dict.fromkeys((wanted, "energy", "delta"))}
    if drawn[wanted] is None and len(points(cells)):
        raise DataError(f"sweep {plan.name}: its cells do not give the figure {wanted}; nothing varies there")
    return {name: figure for name, figure in drawn.items() if figure is not None}


@styled
def write(figure: Figure, stem: Path, kinds: tuple[str, ...] = ("png", "pdf"), dpi: int = DPI) -> list[Path]:
    """The figure as ``stem``.png and ``stem``.pdf; the same figure gives the same bytes."""
    written = []
    undated = {"png": {"Software": None}, "pdf": {"CreationDate": None}}
    with mpl.rc_context({"pdf.fonttype": 42}):
        for kind in kinds:
            content = io.BytesIO()
            figure.savefig(content, format=kind, dpi=dpi, metadata=undated[kind])
            written.append(stem.with_name(f"{stem.name}.{kind}"))
            write_atomically(written[-1], content.getvalue())
    return written


@styled
def against(cells: pd.DataFrame, x: str, title: str) -> Figure | None:
    """Accuracy against a setting: a line per neuron, and per what else varies; mean, band ± sd."""
    found = points(cells)
    drawn = lines(found, x)
    places = sorted({place for line in drawn.values() for place in line[x]})
    if len(places) < 2:
        return None
    figure, axes = _sheet(5.6 if len(drawn) > 1 else 4.2, 3.1)
    for index, (name, line) in enumerate(drawn.items()):
        _band(axes, line.set_index(x), COLOURS[index % len(COLOURS)], label(name, 40), MARKERS[index % len(MARKERS)])
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(places))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set(xlabel=title, ylabel=f"{ACCURACY}{_seeds(found)}")
    axes.grid(axis="y")
    if len(drawn) > 1:
        figure.legend(loc="outside right upper")
    return figure


@styled
def alpha_beta(cells: pd.DataFrame) -> Figure | None:
    """The mean accuracy for every width α and tail β of the surrogate."""
    found = points(cells).dropna(subset=["alpha", "beta"])
    if len(found) < 2 or found.duplicated(["alpha", "beta"]).any():
        return None
    means = found.pivot(index="beta", columns="alpha", values="mean")
    low, high = found["mean"].min(), found["mean"].max()
    bottom = low - max(0.15 * (high - low), 1e-6)  # the lowest cell is not as white as paper
    figure, axes = _sheet(1.6 + 0.85 * means.shape[1], 1.3 + 0.55 * means.shape[0])
    image = axes.imshow(means, origin="lower", vmin=bottom, vmax=high)
    for point in found.itertuples():
        place = means.columns.get_loc(point.alpha), means.index.get_loc(point.beta)
        text = f"{point.mean:.2f}" + (f"\n± {point.sd:.2f}" if point.n > 1 else "")
        colour = "white" if point.mean - bottom > 0.6 * (high - bottom) else None
        axes.text(*place, text, ha="center", va="center", fontsize=7.5, color=colour)
    axes.set_xticks(range(means.shape[1]), [f"{alpha:g}" for alpha in means.columns])
    axes.set_yticks(range(means.shape[0]), [f"{beta:g}" for beta in means.index])
    axes.set(xlabel="width α of the surrogate", ylabel="decay β of its tail")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=axes, label=f"{ACCURACY}, mean{_seeds(found)}").outline.set_visible(False)
    return figure


@styled
def energy(cells: pd.DataFrame) -> Figure | None:
    """Accuracy against estimated energy per image, with the front of what nothing else beats."""
    found = points(cells)
    found = found[found["cost"].notna()] if "cost" in found else found[:0]
    if len(found) < 2:
        return None
    figure, axes = _sheet(6.6, 3.4)
    unit, scale = ("mJ", 1e9) if found["cost"].max() >= 1e9 else ("µJ", 1e6)
    costs, spreads = found["cost"] / scale, found["cost_sd"] / scale
    front = pareto(costs, found["mean"])
    wide = costs.min() > 0 and costs.max() > 4 * costs.min()
    end = (1.15 if wide else 1.05) * costs.max()
    axes.plot([*front["cost"], end], [*front["accuracy"], front["accuracy"].iloc[-1]], drawstyle="steps-post",
              color=MUTED, linewidth=1, linestyle=(0, (4, 2)), zorder=1, label="Pareto front")  # fmt: skip
    names = found.index.to_series() if len(found) <= NAMED else found["row"]
    for index, (name, line) in enumerate(found.assign(x=costs, spread=spreads).groupby(names, sort=False)):
        line, colour = line.sort_values("x"), COLOURS[index % len(COLOURS)]
        axes.plot(line["x"], line["mean"], color=colour, linewidth=0.9, alpha=0.6, zorder=1)
        axes.errorbar(line["x"], line["mean"], xerr=line["spread"], yerr=line["sd"], fmt="none", color=colour,
                      capsize=2, elinewidth=0.9)  # fmt: skip
        axes.plot(line["x"], line["mean"], MARKERS[index % len(MARKERS)], color=colour, markersize=5.5,
                  label=label(str(name), 40), markerfacecolor="none" if index >= len(COLOURS) else colour)  # fmt: skip
    if wide:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.set(xlabel=f"energy per image ({unit}), estimate, 45 nm fp32", ylabel=f"{ACCURACY}{_seeds(found)}")
    axes.grid()
    _legend(figure, axes)
    return figure


@styled
def rows(cells: pd.DataFrame) -> Figure | None:
    """The accuracy of every row: mean ± sd, and each seed."""
    found = points(cells)
    if not len(found):
        return None
    figure, axes = _sheet(6.0, 0.75 + 0.3 * len(found))
    for index, point in enumerate(found.itertuples()):
        seeds = 100 * cells.loc[cells["label"] == point.Index, "test/acc"].dropna()
        axes.plot(seeds, [index] * len(seeds), "o", markersize=3.5, color=MUTED, alpha=0.7, zorder=1)
        axes.errorbar(point.mean, index, xerr=point.sd, fmt="D", color=COLOURS[0], capsize=3, markersize=5,
                      elinewidth=1.2)  # fmt: skip
    axes.set_yticks(range(len(found)), [label(name, 44) for name in found.index])
    axes.set_ylim(len(found) - 0.5, -0.5)
    axes.set_xlabel(f"{ACCURACY}: mean ± sd, and each seed{_seeds(found)}")
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
    return figure


@styled
def delta(cells: pd.DataFrame) -> Figure | None:
    """The scale Δ of each layer over training: mean, band ± sd; a panel for the first rows where it moves."""
    groups = ((str(name), _moving(group)) for name, group in cells.groupby("label", sort=False))
    found = [(name, scales) for name, scales in groups if len(scales)][:PANELS]
    if not found:
        return None
    columns = 2 if len(found) == 4 else min(3, len(found))
    height = -(-len(found) // columns)
    figure = Figure(figsize=(1.4 + 2.5 * columns, 0.5 + 2.3 * height))
    axes = figure.subplots(height, columns, squeeze=False).flatten()
    names = list(dict.fromkeys(name for _, scales in found for name in scales["layer"]))
    for place, (title, scales) in zip(axes, found, strict=False):
        for name, layer in scales.groupby("layer", sort=False):
            _band(place, layer.set_index("epoch"), DEPTH(names.index(name) / max(len(names) - 1, 1)), label(name))
        place.set_title(label(title, 34), fontsize=8.5)
        place.set_xlabel("epoch (the first is 0)")
        place.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
        place.grid(axis="y")
    for place in axes[len(found) :]:
        place.set_axis_off()
    for place in axes[0::columns]:
        place.set_ylabel("scale Δ")
    _legend(figure, *axes, order=[label(name) for name in names][:20], title="layer")
    return figure


def _moving(cells: pd.DataFrame) -> pd.DataFrame:
    """``layer``, ``epoch``, ``mean``, ``sd``, ``n`` of Δ over the epochs that all seeds have; empty if none moves."""
    found = pd.DataFrame(
        [
            (name, epoch, value)
            for scales in cells["scales"]
            for name, line in scales.items()
            for epoch, value in zip(line.epoch.tolist(), line.value.tolist(), strict=True)
        ],
        columns=["layer", "epoch", "value"],
    )
    scales = found.groupby(["layer", "epoch"], sort=False)["value"].agg(mean="mean", sd="std", n="count").reset_index()
    moves = any(np.ptp(line.value) > 0 for each in cells["scales"] for line in each.values())
    return scales[scales["n"] == scales.groupby("layer")["n"].transform("max")] if moves else scales[:0]


FIGURES: dict[str, Callable[[pd.DataFrame], Figure | None]] = {
    "timesteps": partial(against, x="T", title="time steps T"),
    "s_max": partial(against, x="s_max", title="largest burst s_max"),
    "alpha_beta": alpha_beta,
    "energy": energy,
    "rows": rows,
    "delta": delta,
}


def _band(axes: Axes, line: pd.DataFrame, colour: object, name: str, marker: str = "") -> None:
    """The means of a line with a band of ± sd, which a single point has as a bar."""
    places, means, spreads = line.index.to_numpy(float), line["mean"].to_numpy(float), line["sd"].to_numpy(float)
    axes.plot(places, means, color=colour, marker=marker or "o" * (len(line) == 1), markersize=5, label=name)
    if len(line) > 1 and (line["n"] > 1).any():
        axes.fill_between(places, means - spreads, means + spreads, color=colour, alpha=0.15, linewidth=0)
    elif len(line) == 1 and np.isfinite(spreads[0]):
        axes.errorbar(places, means, yerr=spreads, color=colour, capsize=3)


def _legend(figure: Figure, *axes: Axes, order: list[str] | None = None, title: str | None = None) -> None:
    """A legend beside the axes with each name once, in ``order`` where one is given."""
    handles = {str(line.get_label()): line for place in axes for line in place.lines}
    names = order or [name for name in handles if not name.startswith("_")]
    figure.legend([handles[name] for name in names if name in handles], [name for name in names if name in handles],
                  loc="outside right upper", fontsize=7.5, title=title)  # fmt: skip


def _seeds(found: pd.DataFrame) -> str:
    """How many seeds the points have, as an addition to a label."""
    few, many = found["n"].min(), found["n"].max()
    return f", n = {few}" if few == many else f", n = {few} to {many}"


def _sheet(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height))
    return figure, figure.subplots()
