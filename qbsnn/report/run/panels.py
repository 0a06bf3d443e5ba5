"""Figures of what the layers did on test images. Each returns ``None`` where there is nothing to draw."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from qbsnn.report import style
from qbsnn.report.style import WIDTH, label, sheet, styled, wrapped
from qbsnn.results.run_files import Diagnostics

SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


@styled
def bursts(data: Diagnostics) -> Figure | None:
    """How often each burst size occurred, a panel per layer, counts on one common log scale; ``s_max`` stands out."""
    layers = list(data.histograms.items())
    if not layers:
        return None
    columns = min(5, len(layers))
    cell = min((WIDTH - 0.6) / columns, 3.1)
    figure, axes = sheet(0.6 + cell * columns, 1.55 * -(-len(layers) // columns) + 0.3)
    # Room for the text above the tallest bar; a single count is still a visible bar.
    low, high = np.log10(0.6), np.log10(max(10, *(int(counts.max()) for _, counts in layers))) + 0.6
    for index, (name, counts) in enumerate(layers):
        row, column = divmod(index, columns)
        place = (0.6 + cell * column, 1.34 + 1.55 * row, cell - 0.18, 1.08)
        _decades(axes, place, low, high, named=column == 0)
        _histogram(axes, place, counts, low, high)
        axes.text(place[0], place[1] - 1.14, label(name, int(cell * 13)), fontweight="bold")
    height = figure.get_size_inches()[1]
    axes.text(0.6 + cell * columns / 2, height - 0.08, "burst size s", ha="center")
    axes.text(0.12, height / 2, "neuron-steps (log)", rotation=90, va="center", ha="center")
    return figure


Place = tuple[float, float, float, float]  # left, bottom, width, height in inches of the sheet


def _decades(axes: Axes, place: Place, low: float, high: float, named: bool) -> None:
    x, y, width, height = place
    step = 1 if high < 5 else 2
    exponents = np.arange(0, high, step)
    levels = y - (exponents - low) / (high - low) * height
    axes.add_collection(
        LineCollection(
            [[(x, level), (x + width, level)] for level in levels], colors=style.GRID, linewidths=0.7, zorder=0.5
        )
    )
    for exponent, level in zip(exponents, levels, strict=True):
        if named:
            text = f"10{str(int(exponent)).translate(SUPERSCRIPT)}"
            axes.text(x - 0.06, level, text, ha="right", va="center", fontsize=8)


def _histogram(axes: Axes, place: Place, counts: NDArray[np.int64], low: float, high: float) -> None:
    x, y, width, height = place
    s_max, total, unit = len(counts) - 1, int(counts.sum()), width / len(counts)
    bars = np.where(counts > 0, (np.log10(np.maximum(counts, 1)) - low) / (high - low) * height, 0)
    inset = 0.07 * unit if s_max <= 16 else 0.0
    starts, ends = x + unit * np.arange(len(counts)) + inset, x + unit * np.arange(1, len(counts) + 1) - inset
    corners = [[(a, y), (a, y - bar), (b, y - bar), (b, y)] for a, b, bar in zip(starts, ends, bars, strict=True)]
    colours = [style.FIRST] * s_max + [style.SECOND]
    axes.add_collection(PolyCollection(corners, facecolors=colours, edgecolors="none", antialiaseds=False, zorder=2))
    axes.plot([x, x + width], [y, y], color=style.MUTED, linewidth=0.7)
    step = next((step for step in (1, 2, 5, 10, 20) if s_max / step <= 8), 50)
    for size in range(0, s_max + 1, step):
        axes.text(x + unit * (size + 0.5), y + 0.05, f"{size}", ha="center", va="top", fontsize=8)
    silent = total == counts[0]
    text = "silent" if silent else f"s_max = {s_max}: {100 * counts[-1] / total:.2g} %"
    colour = style.BAD if silent else style.SECOND
    axes.text(x + width, y - height, text, ha="right", va="top", fontsize=7.5, color=colour)


@styled
def raster(data: Diagnostics) -> Figure | None:
    """The bursts of one test image: the image, then a panel per layer with time on x and neurons on y."""
    layers = list(data.rasters.items())
    if not layers:
        return None
    columns = min(7, len(layers))
    left = 2.75 if data.image is not None else 0.55
    cell = min((WIDTH - left - 0.75) / columns, 1.6)
    rows = -(-len(layers) // columns)
    # Wide enough for the title even without an image and with a single layer.
    width, height = max(left + cell * columns + 0.75, 4.6), 2.05 * rows + 0.72
    figure, axes = sheet(width, height)
    known = [len(data.histograms[name]) - 1 for name, _ in layers if name in data.histograms]
    top = max([1, *known, *(int(spikes.max()) for _, spikes in layers)])
    for index, (name, spikes) in enumerate(layers):
        row, column = divmod(index, columns)
        place = (left + cell * column, 2.36 + 2.05 * row, cell - 0.14, 1.55)
        _spikes(axes, place, spikes, top, first=column == 0)
        axes.text(place[0], place[1] - 1.6, wrapped(name, int(cell * 13)), fontsize=7.5, linespacing=1.05)
    axes.text(left + cell * columns / 2, height - 0.1, "time step", ha="center")
    _scale(axes, left + cell * columns + 0.12, 2.36, top)
    if data.image is not None:
        picture = axes.imshow(
            _rgb(data.image),
            cmap="gray",
            vmin=0,
            vmax=1,
            extent=_fit(data.image),
            aspect="auto",
            interpolation="nearest",
        )
        picture.set_gid(style.PHOTO)
    title = (
        f"label: {label(data.class_name(data.label), 20)}   prediction: {label(data.class_name(data.prediction), 20)}"
    )
    axes.text(0.15, 0.24, title, fontsize=10, fontweight="bold", va="center")
    if data.label is not None and data.prediction is not None:
        mark, colour = ("✓ right", style.GOOD) if data.label == data.prediction else ("✗ wrong", style.BAD)
        axes.text(width - 0.15, 0.24, mark, color=colour, fontsize=10, fontweight="bold", ha="right", va="center")
    # imshow widens the limits to what it shows.
    axes.set(xlim=(0, width), ylim=(height, 0))
    return figure


def _spikes(axes: Axes, place: Place, spikes: NDArray[np.uint8], top: int, first: bool) -> None:
    x, y, width, height = place
    steps, neurons = spikes.shape
    axes.imshow(
        spikes.T[::-1],  # neuron 0 at the bottom
        aspect="auto",
        interpolation="nearest",
        cmap=style.HEAT,
        vmin=0,
        vmax=top,
        extent=(x, x + width, y, y - height),
    )
    axes.add_patch(Rectangle((x, y - height), width, height, fill=False, edgecolor=style.MUTED, linewidth=0.7))
    for step in sorted({0, steps - 1}):
        axes.text(x + width * (step + 0.5) / steps, y + 0.05, f"{step + 1}", ha="center", va="top", fontsize=7.5)
    if first:
        for neuron in sorted({0, neurons - 1}):
            level = y - height * (neuron + 0.5) / neurons
            axes.text(x - 0.05, level, f"{neuron}", ha="right", va="center", fontsize=7.5)
        axes.text(x - 0.2, y - height / 2, "neuron", rotation=90, ha="center", va="center")


def _scale(axes: Axes, x: float, y: float, top: int) -> None:
    levels = np.arange(top, -1, -1)[:, None]
    axes.imshow(levels, aspect="auto", cmap=style.HEAT, vmin=0, vmax=top, extent=(x, x + 0.14, y, y - 1.55))
    axes.add_patch(Rectangle((x, y - 1.55), 0.14, 1.55, fill=False, edgecolor=style.MUTED, linewidth=0.7))
    step = next((step for step in (1, 2, 5, 10, 20) if top / step <= 8), 50)
    for size in range(0, top + 1, step):
        axes.text(x + 0.2, y - 1.55 * (size + 0.5) / (top + 1), f"{size}", va="center", fontsize=7.5)
    axes.text(x, y - 1.6, "burst", fontsize=7.5)


def _fit(image: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """The largest place for the image on the sheet that keeps its shape."""
    height, width = image.shape[1:]
    scale = 1.95 / max(height, width)
    return (0.15, 0.15 + scale * width, 0.81 + scale * height, 0.81)


def _rgb(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """[C, H, W] as grey [H, W] or colour [H, W, 3]; two channels are an event camera's, off before on."""
    channels = image.shape[0]
    if channels == 3:
        return image.transpose(1, 2, 0)
    if channels == 2:
        off, on = image
        return np.clip(np.stack([1 - off, 1 - on - off, 1 - on], axis=-1), 0, 1)
    return np.asarray(image.mean(axis=0))


@styled
def confusion(data: Diagnostics) -> Figure | None:
    """True class by predicted class: the share of each row as colour, the counts as text up to 20 classes."""
    if data.confusion is None:
        return None
    counts = data.confusion
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    classes = len(counts)
    size = float(np.clip(0.42 * classes, 2.2, 6.2))
    names = [label(data.class_name(index), 12) for index in range(classes)] if classes <= 40 else []
    height = size + 0.5 + 0.075 * max((len(name) for name in names), default=0)
    figure, axes = sheet(size + 1.7, height)
    left, top, unit = 1.25, 0.15, size / classes
    axes.imshow(share, aspect="auto", cmap=style.HEAT, vmin=0, vmax=1, extent=(left, left + size, top + size, top))
    axes.set(xlim=(0, size + 1.7), ylim=(height, 0))
    axes.add_patch(Rectangle((left, top), size, size, fill=False, edgecolor=style.MUTED, linewidth=0.7))
    for index, name in enumerate(names):
        middle = (index + 0.5) * unit
        axes.text(left - 0.06, top + middle, name, ha="right", va="center", fontsize=7.5)
        axes.text(left + middle, top + size + 0.06, name, ha="center", va="top", fontsize=7.5, rotation=90)
    for row, column in np.argwhere(counts) if classes <= 20 else []:
        x, y, colour = left + (column + 0.5) * unit, top + (row + 0.5) * unit, style.INK
        if share[row, column] > 0.5:
            colour = "#ffffff"
        axes.text(x, y, f"{counts[row, column]}", ha="center", va="center", fontsize=6.5, color=colour)
    axes.text(left + size / 2, height - 0.1, "prediction", ha="center")
    axes.text(0.12, top + size / 2, "label", rotation=90, ha="center", va="center")
    return figure
