"""Figures of what the layers did on test images. Each returns ``None`` where there is nothing to draw."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from qbsnn.report.style import BAD, FIRST, GOOD, MUTED, SECOND, WIDTH, label
from qbsnn.results.run_files import Diagnostics
from qbsnn.results.schema import Disturbance, Result, ran


def bursts(data: Diagnostics) -> Figure | None:
    """How often each burst size occurred, a panel per layer, counts on one common log scale; ``s_max`` stands out."""
    layers = list(data.histograms.items())
    if not layers:
        return None
    columns = min(5, len(layers))
    rows = -(-len(layers) // columns)
    figure = Figure(figsize=(min(WIDTH, 0.6 + 3.1 * columns), 0.3 + 1.5 * rows))
    axes = list(figure.subplots(rows, columns, squeeze=False, sharey=True).flat)
    for unused in axes[len(layers) :]:
        unused.set_axis_off()
    for place, (name, counts) in zip(axes, layers, strict=False):
        _histogram(place, counts)
        place.set_title(label(name, 110 // columns), fontsize=8)
    # A single count is still a visible bar, and above the tallest one there is room for the text.
    axes[0].set_yscale("log")
    axes[0].set_ylim(0.6, 6 * max(10, *(int(counts.max()) for _, counts in layers)))
    axes[0].minorticks_off()
    figure.supxlabel("burst size s")
    figure.supylabel("neuron-steps (log)")
    return figure


def _histogram(axes: Axes, counts: NDArray[np.int64]) -> None:
    s_max, total = len(counts) - 1, int(counts.sum())
    edges = np.arange(len(counts) + 1) - 0.5
    axes.stairs(counts[:-1], edges[:-1], baseline=0.1, fill=True, color=FIRST)
    axes.stairs(counts[-1:], edges[-2:], baseline=0.1, fill=True, color=SECOND)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlim(edges[0], edges[-1])
    axes.grid(axis="y")
    silent = total == counts[0]
    text = "silent" if silent else f"s_max = {s_max}: {100 * counts[-1] / total:.2g} %"
    axes.text(1, 1, text, ha="right", va="top", fontsize=7.5, color=BAD if silent else SECOND, transform=axes.transAxes)


def raster(data: Diagnostics) -> Figure | None:
    """The bursts of one test image: the image, then a panel per layer with time on x and neurons on y."""
    layers = list(data.rasters.items())
    if not layers:
        return None
    columns = min(6, len(layers))
    rows = -(-len(layers) // columns)
    aside = 0.0 if data.image is None else 2.4
    figure = Figure(figsize=(max(min(WIDTH, aside + 1.7 * columns), 4.6), 0.7 + 1.9 * rows))
    grid = figure.add_gridspec(rows, columns + 1, width_ratios=[max(aside, 0.01), *[1.5] * columns])
    axes = [figure.add_subplot(grid[index // columns, 1 + index % columns]) for index in range(len(layers))]
    known = [len(data.histograms[name]) - 1 for name, _ in layers if name in data.histograms]
    top = max([1, *known, *(int(spikes.max()) for _, spikes in layers)])
    for place, (name, spikes) in zip(axes, layers, strict=True):
        steps, neurons = spikes.shape
        extent = (0.5, steps + 0.5, -0.5, neurons - 0.5)
        image = place.imshow(spikes.T, origin="lower", vmin=0, vmax=top, extent=extent)
        place.spines[:].set_visible(True)
        place.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        place.yaxis.set_major_locator(MaxNLocator(2, integer=True))
        place.set_title(_wrapped(name, 80 // columns), fontsize=7.5, fontweight="normal")
    for place in axes[-columns:]:
        place.set_xlabel("time step")
    for place in axes[::columns]:
        place.set_ylabel("neuron")
    figure.colorbar(image, ax=axes, label="burst", ticks=MaxNLocator(8, integer=True), aspect=30)
    if data.image is not None:
        picture = figure.add_subplot(grid[:, 0], anchor="N")
        picture.imshow(_rgb(data.image), cmap="gray", vmin=0, vmax=1, aspect="equal")
        picture.set_axis_off()
    names = (label(data.class_name(index), 20) for index in (data.label, data.prediction))
    figure.suptitle("label: {}   prediction: {}".format(*names), x=0.012, ha="left")
    if data.label is not None and data.prediction is not None:
        mark, colour = ("✓ right", GOOD) if data.label == data.prediction else ("✗ wrong", BAD)
        figure.text(0.988, 0.98, mark, color=colour, fontsize=10, fontweight="bold", ha="right", va="top")
    return figure


def _wrapped(name: str, length: int) -> str:
    """A layer's name on at most two lines of ``length`` characters, broken after a dot where that fits."""
    if len(name) <= length:
        return label(name, length)
    cut = name.rfind(".", 0, length) + 1 or length
    return f"{label(name[:cut], length)}\n{label(name[cut:], length)}"


def _rgb(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """[C, H, W] as grey [H, W] or colour [H, W, 3]; two channels are an event camera's, off before on."""
    channels = image.shape[0]
    if channels == 3:
        return image.transpose(1, 2, 0)
    if channels == 2:
        off, on = image
        return np.clip(np.stack([1 - off, 1 - on - off, 1 - on], axis=-1), 0, 1)
    return np.asarray(image.mean(axis=0))


def confusion(data: Diagnostics) -> Figure | None:
    """True class by predicted class: the share of each row as colour, the counts as text up to 20 classes."""
    if data.confusion is None:
        return None
    counts = data.confusion
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    classes = len(counts)
    size = float(np.clip(0.42 * classes, 2.2, 6.2))
    figure = Figure(figsize=(size + 1.2, size + 1.0))
    axes = figure.subplots()
    axes.imshow(share, vmin=0, vmax=1, aspect="equal")
    axes.spines[:].set_visible(True)
    if classes <= 40:
        names = [label(data.class_name(index), 12) for index in range(classes)]
        axes.set_xticks(range(classes), names, rotation=90, fontsize=7.5)
        axes.set_yticks(range(classes), names, fontsize=7.5)
    for row, column in np.argwhere(counts) if classes <= 20 else []:
        colour = mpl.rcParams["axes.facecolor"] if share[row, column] > 0.5 else None
        axes.text(column, row, f"{counts[row, column]}", ha="center", va="center", fontsize=6.5, color=colour)
    axes.set(xlabel="prediction", ylabel="label")
    return figure


def robustness(result: Result) -> Figure | None:
    """The accuracy with each disturbance as a dot, on a line to the accuracy without."""
    if (block := ran(result.robustness)) is None:
        return None
    found = [(_disturbance(each), each.accuracy) for each in block.disturbances if each.accuracy is not None]
    if not found:
        return None
    rows = range(len(found))
    figure = Figure(figsize=(6.5, 1.0 + 0.3 * len(found)))
    axes = figure.subplots()
    shares = [100 * accuracy for _, accuracy in found]
    axes.axvline(100 * block.accuracy, color=MUTED, linewidth=1)
    axes.hlines(rows, shares, 100 * block.accuracy, color=MUTED, linewidth=1)
    axes.plot(shares, rows, "o", color=FIRST, markersize=5)
    axes.set_yticks(rows, [name for name, _ in found])
    axes.set_ylim(len(found) - 0.5, -0.5)
    axes.set_xlabel("test accuracy (%); the upright line: without disturbance")
    return figure


def _disturbance(each: Disturbance) -> str:
    if each.kind == "noise":
        return f"noise, σ = {each.value:g}"
    return "one step missing" if each.kind == "missing" else f"T {'+' if each.value > 0 else '−'} {abs(each.value):g}"
