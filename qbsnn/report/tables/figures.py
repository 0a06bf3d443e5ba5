"""Figures of a sweep for a paper: accuracy against T, s_max and energy, the α × β map, rows, Δ over training."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator, ScalarFormatter

from qbsnn.errors import DataError
from qbsnn.report.style import HEAT, INK, MUTED, SETTINGS, grid, label, styled
from qbsnn.report.tables.delta_lines import delta
from qbsnn.report.tables.points import Point, lines, pareto, points
from qbsnn.results.files import write_atomically
from qbsnn.results.sweeps import Sweep

# Okabe and Ito's colours, which people with any kind of colour vision tell apart; markers repeat the distinction.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C7A00")
MARKERS = "osD^vP*X"
DPI = 300
NAMED = 12  # points that each have a colour and a line in the legend; of more, each neuron has
ACCURACY = "test accuracy (%)"


def figures(sweep: Sweep) -> dict[str, Figure]:
    """The sweep's own figure first, then accuracy against energy and Δ over training where there is something to draw.

    Raises:
        DataError: the sweep asks for a figure that there is not, or that its cells cannot give.
    """
    wanted = sweep.plan.figure or "rows"
    if wanted not in FIGURES:
        raise DataError(f"sweep {sweep.plan.name}: figure must be one of {', '.join(FIGURES)}, got {wanted!r}")
    drawn = {name: FIGURES[name](sweep) for name in dict.fromkeys((wanted, "energy", "delta"))}
    if drawn[wanted] is None and points(sweep):
        raise DataError(f"sweep {sweep.plan.name}: its cells do not give the figure {wanted}; nothing varies there")
    return {name: figure for name, figure in drawn.items() if figure is not None}


def write(figure: Figure, stem: Path, kinds: tuple[str, ...] = ("png", "pdf")) -> list[Path]:
    """The figure as ``stem``.png (300 dpi) and ``stem``.pdf; the same figure gives the same bytes."""
    written = []
    undated = {"png": {"Software": None}, "pdf": {"CreationDate": None}}
    with mpl.rc_context({**SETTINGS, "pdf.fonttype": 42}):
        for kind in kinds:
            content = io.BytesIO()
            figure.savefig(content, format=kind, dpi=DPI, metadata=undated[kind])
            written.append(stem.with_name(f"{stem.name}.{kind}"))
            write_atomically(written[-1], content.getvalue())
    return written


@styled
def timesteps(sweep: Sweep) -> Figure | None:
    """Accuracy against the time steps."""
    return _against(sweep, "T", "time steps T")


@styled
def s_max(sweep: Sweep) -> Figure | None:
    """Accuracy against the largest burst."""
    return _against(sweep, "s_max", "largest burst s_max")


@styled
def alpha_beta(sweep: Sweep) -> Figure | None:
    """The mean accuracy for every width α and tail β of the surrogate."""
    found = [point for point in points(sweep) if point.alpha is not None and point.beta is not None]
    at = {(float(point.alpha or 0), float(point.beta or 0)): point for point in found}
    if len(found) < 2 or len(at) < len(found):
        return None
    alphas, betas = sorted({alpha for alpha, _ in at}), sorted({beta for _, beta in at})
    means = np.full((len(betas), len(alphas)), np.nan)
    figure, axes = _sheet(1.6 + 0.85 * len(alphas), 1.3 + 0.55 * len(betas))
    for (alpha, beta), point in at.items():
        means[betas.index(beta), alphas.index(alpha)] = point.accuracy.mean
    low, high = float(np.nanmin(means)), float(np.nanmax(means))
    bottom = low - max(0.15 * (high - low), 1e-6)  # the lowest cell is not as white as paper
    image = axes.imshow(means, cmap=HEAT, origin="lower", aspect="auto", vmin=bottom, vmax=high)
    for (alpha, beta), point in at.items():
        dark = point.accuracy.mean - bottom > 0.6 * (high - bottom)
        text = f"{point.accuracy.mean:.2f}" + (f"\n± {point.accuracy.sd:.2f}" if point.accuracy.sd is not None else "")
        axes.text(
            alphas.index(alpha),
            betas.index(beta),
            text,
            ha="center",
            va="center",
            fontsize=7.5,
            color="#ffffff" if dark else INK,
        )
    axes.set_xticks(range(len(alphas)), [f"{alpha:g}" for alpha in alphas])
    axes.set_yticks(range(len(betas)), [f"{beta:g}" for beta in betas])
    axes.set(xlabel="width α of the surrogate", ylabel="decay β of its tail")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=axes, label=f"{ACCURACY}, mean{_seeds(found)}").outline.set_visible(False)
    return figure


@styled
def energy(sweep: Sweep, model: str = "fp32") -> Figure | None:
    """Accuracy against estimated energy per image, with the front of what nothing else beats."""
    found = [point for point in points(sweep) if model in point.energy]
    if len(found) < 2:
        return None
    figure, axes = _sheet(6.6, 3.4)
    unit, scale = ("mJ", 1e9) if max(point.energy[model].mean for point in found) >= 1e9 else ("µJ", 1e6)
    pairs = [(point.energy[model].mean / scale, point.accuracy.mean) for point in found]
    costs, front = [cost for cost, _ in pairs], pareto(pairs)
    wide = min(costs) > 0 and max(costs) > 4 * min(costs)
    places = [*front, ((1.15 if wide else 1.05) * max(costs), front[-1][1])]
    axes.plot(*zip(*places, strict=True), drawstyle="steps-post", color=MUTED, linewidth=1, linestyle=(0, (4, 2)),
              zorder=1, label="Pareto front")  # fmt: skip
    names = [point.label if len(found) <= NAMED else point.neuron for point in found]
    places_of = {name: index for index, name in enumerate(dict.fromkeys(names))}
    for name, point, (cost, mean) in zip(names, found, pairs, strict=True):
        index = places_of[name]
        colour = COLOURS[index % len(COLOURS)]
        xerr, yerr = (point.energy[model].sd or 0) / scale, point.accuracy.sd or 0
        axes.errorbar(cost, mean, xerr=xerr, yerr=yerr, fmt="none", color=colour, capsize=2, elinewidth=0.9)
        axes.plot(cost, mean, MARKERS[index % len(MARKERS)], color=colour, markersize=5.5, label=label(name, 40),
                  markerfacecolor="none" if index >= len(COLOURS) else colour)  # fmt: skip
    if wide:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.set(xlabel=f"energy per image ({unit}), estimate, 45 nm fp32", ylabel=f"{ACCURACY}{_seeds(found)}")
    grid(axes, "both")
    handles = {str(line.get_label()): line for line in axes.lines if not str(line.get_label()).startswith("_")}
    figure.legend(handles=list(handles.values()), loc="outside right upper", fontsize=7.5)
    return figure


@styled
def rows(sweep: Sweep) -> Figure | None:
    """The accuracy of every row: mean ± sd, and each seed."""
    found = points(sweep)
    if not found:
        return None
    figure, axes = _sheet(6.0, 0.75 + 0.3 * len(found))
    for index, point in enumerate(found):
        axes.plot(point.seeds, [index] * len(point.seeds), "o", markersize=3.5, color=MUTED, alpha=0.7, zorder=1)
        axes.errorbar(point.accuracy.mean, index, xerr=point.accuracy.sd or 0, fmt="D", color=COLOURS[0], capsize=3,
                      markersize=5, elinewidth=1.2)  # fmt: skip
    axes.set_yticks(range(len(found)), [label(point.label, 44) for point in found])
    axes.set_ylim(len(found) - 0.5, -0.5)
    axes.set_xlabel(f"{ACCURACY}: mean ± sd, and each seed{_seeds(found)}")
    grid(axes, "x")
    axes.tick_params(axis="y", length=0)
    return figure


FIGURES: dict[str, Callable[[Sweep], Figure | None]] = {
    "timesteps": timesteps, "s_max": s_max, "alpha_beta": alpha_beta, "energy": energy, "rows": rows, "delta": delta,
}  # fmt: skip


def _against(sweep: Sweep, x: str, title: str) -> Figure | None:
    found = points(sweep)
    drawn = lines(found, x)
    places = sorted({getattr(point, x) for line in drawn.values() for point in line})
    if len(places) < 2:
        return None
    figure, axes = _sheet(5.6 if len(drawn) > 1 else 4.2, 3.1)
    for index, (name, line) in enumerate(drawn.items()):
        _line(axes, line, x, name, index)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(places))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set(xlabel=title, ylabel=f"{ACCURACY}{_seeds(found)}")
    grid(axes)
    if len(drawn) > 1:
        figure.legend(loc="outside right upper")
    return figure


def _line(axes: Axes, line: list[Point], x: str, name: str, index: int) -> None:
    places = [getattr(point, x) for point in line]
    means = np.array([point.accuracy.mean for point in line])
    spreads = np.array([point.accuracy.sd or 0.0 for point in line])
    colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
    axes.plot(places, means, color=colour, marker=marker, markersize=5, label=label(name, 40))
    if len(line) > 1:
        axes.fill_between(places, means - spreads, means + spreads, color=colour, alpha=0.15, linewidth=0)
    else:
        axes.errorbar(places, means, yerr=spreads, color=colour, capsize=3)


def _seeds(found: list[Point]) -> str:
    """How many seeds the points have, as an addition to a label."""
    counts = sorted({point.accuracy.n for point in found})
    return f", n = {counts[0]}" if len(counts) == 1 else f", n = {counts[0]} to {counts[-1]}"


def _sheet(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()
