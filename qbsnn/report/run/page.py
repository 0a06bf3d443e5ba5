"""One run directory in, its figures and one self-contained page out."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from qbsnn.errors import DataError
from qbsnn.report.run import energy
from qbsnn.report.run.curves import activity, curves, delta, gradients, health
from qbsnn.report.run.layers import deploy
from qbsnn.report.run.panels import bursts, confusion, raster, robustness
from qbsnn.report.run.verdicts import verdicts
from qbsnn.report.style import render as rendered
from qbsnn.report.templates import templates
from qbsnn.results import formatting as words
from qbsnn.results.files import CURVE_FILE, write_atomically
from qbsnn.results.quantities import listed, texts
from qbsnn.results.reading import read_result
from qbsnn.results.run_files import Diagnostics, Series, read_curves, read_diagnostics
from qbsnn.results.schema import Result, ran


@dataclass
class Run:
    """All that a page is made from. ``notices`` say what is absent or unreadable."""

    directory: Path
    result: Result
    curves: dict[str, Series] = field(default_factory=dict)
    diagnostics: Diagnostics = field(default_factory=Diagnostics)
    notices: list[str] = field(default_factory=list)


@dataclass
class Plot:
    """A figure of the page: its file's name, heading, caption, drawing function and the data it draws.

    ``without`` is said in its place where there is nothing to draw; an empty one means that nobody will miss it.
    """

    name: str
    title: str
    caption: str
    draw: Callable[..., Figure | None]
    data: Any
    without: str
    section: str


def read_run(directory: Path) -> Run:
    """Read a run directory. Only ``result.json`` must be there and sound; anything else leaves a notice.

    Raises:
        DataError: ``result.json`` is absent or not one.
    """
    run = Run(directory, read_result(directory / "result.json"))
    for name, part, read in (
        (CURVE_FILE, "curves", read_curves),
        ("diagnostics.npz", "diagnostics", read_diagnostics),
    ):
        if not (directory / name).is_file():
            run.notices.append(f"{name} is not there, so what is drawn from it is missing.")
            continue
        try:
            setattr(run, part, read(directory / name))
        except DataError as error:
            run.notices.append(f"{name} is left out: {error}")
    return run


def plots(run: Run) -> list[Plot]:
    """The figures of a page in their order; one that has nothing to draw is among them."""
    found = run.result.metrics.best
    best = (int(found["epoch"]), found["val/acc"]) if {"epoch", "val/acc"} <= found.keys() else None
    marked = f" Best by validation: epoch {best[0]} with {words.percent(best[1])}." if best else ""
    layers = words.counted(len(run.diagnostics.histograms), "layer")
    compared = (
        "Per layer, how often the integer network's burst differs from the absorbed network's, and the bits it needs. "
        if ran(run.result.integer)
        else ""
    )
    shown = words.counted(len(run.diagnostics.rasters), "layer")
    return [
        Plot(
            "curves", "Loss and accuracy", f"Loss and accuracy of training and validation over the epochs.{marked}",
            partial(curves, best=best), run.curves,
            "No loss and no accuracy to draw; they come from metrics.csv.", "training",
        ),
        Plot(
            "delta", "Learned scales", "The scale Δ of each layer over training.",
            delta, run.curves, "No Δ to draw: the neuron has none, or metrics.csv does not hold it.", "training",
        ),
        Plot(
            "activity", "Activity", "Mean burst size and share of neuron-steps at s_max, per layer over training.",
            activity, run.curves, "", "training",
        ),
        Plot(
            "health", "Health", "Share of neurons that never fire, entropy of the burst sizes, and how much a spike "
            "pattern changes from step to step (0: not at all), per layer over training.",
            health, run.curves, "", "training",
        ),
        Plot(
            "gradients", "Gradients", "The norm of each layer's gradients before clipping, over training.",
            gradients, run.curves, "", "training",
        ),
        Plot(
            "bursts", "Burst sizes", f"How often each burst size occurred on test images, {layers}, on a log scale. "
            "The largest burst, s_max, is orange.",
            bursts, run.diagnostics, "No burst histograms to draw; they come from diagnostics.npz.", "layers",
        ),
        Plot(
            "raster", "One image through the network", f"A test image and the bursts it causes in {shown}: time "
            "runs to the right, a row is a neuron, colour is the burst size.",
            raster, run.diagnostics, "No raster to draw; it comes from diagnostics.npz.", "layers",
        ),
        Plot(
            "deploy", "Absorbed and integer network", f"{compared}The accuracy of each form of the network.",
            deploy, run.result, "Neither absorption nor the integer network was checked.", "deploy",
        ),
        Plot(
            "confusion", "Confusion", "Test images by true class (row) and predicted class (column).",
            confusion, run.diagnostics, "", "layers",
        ),
        Plot(
            "robustness", "Robustness", "Accuracy of the trained float network on test images that are disturbed, or "
            "with another number of time steps.",
            robustness, run.result, "", "layers",
        ),
    ]  # fmt: skip


def build(run_dir: Path) -> Path:
    """Write ``figures/*.png`` and ``report.html`` into ``run_dir`` and return the page's path.

    The page is made from the files of the directory alone, needs no network and replaces an older one atomically.
    Figures of an earlier build that this one has no data for are removed.

    Raises:
        DataError: ``result.json`` is absent or not one; every other input is optional.
    """
    run = read_run(run_dir)
    figures = run_dir / "figures"
    figures.mkdir(exist_ok=True)
    drawn: list[dict[str, Any]] = []
    for plot in plots(run):
        images = rendered(partial(plot.draw, plot.data))
        path = figures / f"{plot.name}.png"
        if images is None:
            path.unlink(missing_ok=True)
            drawn.append({"plot": plot})
            continue
        write_atomically(path, images.light)
        uris = {"light": _uri(images.light), "dark": _uri(images.dark)}
        drawn.append({"plot": plot, "width": images.width, "height": images.height, **uris})
    page = run_dir / "report.html"
    write_atomically(page, render(run, drawn).encode("utf-8", "backslashreplace"))
    return page


def render(run: Run, drawn: list[dict[str, Any]]) -> str:
    """The page as HTML. ``drawn``: per figure its ``plot`` and, where it was drawn, data URIs and size in pixels."""
    environment = templates()
    environment.filters.update(percent=words.percent, number=words.number, duration=words.duration)
    result = run.result
    block = ran(result.energy)
    groups = (words.chosen(result.config, group) for group in ("model", "neuron", "data"))
    return environment.get_template("page.html.j2").render(
        run=run.directory.resolve().name,
        what=" · ".join(group for group in groups if group),
        result=result,
        headline=headline(result),
        verdicts=verdicts(result),
        notices=run.notices,
        figures=drawn,
        absorption=ran(result.absorption),
        integer=ran(result.integer),
        energy=block,
        energy_panels=energy.panels(block) if block else [],
        energy_facts=energy.facts(block) if block else [],
        energy_relative=energy.relative(block) if block else [],
        energy_others=energy.others(block) if block else [],
        energy_parts=list(energy.PARTS.values()),
        energy_absent=energy.absent(result),
        quantities=_quantities(result),
        metrics=_metrics(result),
        config=list(words.flat(result.config)),
        host=asdict(result.host),
    )


def headline(result: Result) -> list[tuple[str, str, str, str]]:
    """The key figures: name, value, what it stands on, and a tone (empty, ``good`` or ``bad``)."""
    integer = ran(result.integer)
    absorption = ran(result.absorption)
    last, best = result.metrics.last.get("test/acc"), result.metrics.best.get("test/acc")
    absent = "not in result.json"
    cards = [
        ("Test accuracy, last", words.percent(last), "after the last epoch" if last is not None else absent, ""),
        ("Test accuracy, best", words.percent(best), "best by validation" if best is not None else absent, ""),
    ]
    on_absorption, on_integer = verdicts(result)
    for name, block, verdict in (("Integer", integer, on_integer), ("Absorbed", absorption, on_absorption)):
        images = words.counted(block.images, "image") if block else "not checked"
        if name == "Integer":
            cards.append(("Integer accuracy", words.percent(block.acc if block else None), images, ""))
        count = block.spike_mismatches if block else None
        tone = {"passed": "good", "failed": "bad", "skipped": ""}[verdict.state]
        over = f"of {words.number(block.positions)} positions, {images}" if block else images
        cards.append((f"{name} mismatches", words.number(count), over, tone))
    shown = texts(result)
    asked = shown["energy_budget"]
    of_what = "of the dense ReLU network" + (f", {asked} asked for" if asked != words.NONE else "")
    spent = shown["relative_energy"]
    cards.append(("Relative energy", spent, of_what if spent != words.NONE else "not counted", ""))
    timing = result.timing
    fitted = bool(timing.fit_seconds)
    epochs = words.counted(timing.epochs, "epoch") if fitted else absent
    cards.append(("Fit time", words.duration(timing.fit_seconds) if fitted else words.NONE, epochs, ""))
    cards.append(("Parameters", words.number(result.params) if result.params else words.NONE, "", ""))
    return cards


def _quantities(result: Result) -> list[tuple[str, str, str]]:
    """Title, value and meaning of every quantity that the result holds."""
    shown = texts(result)
    return [(one.title, shown[one.key], one.meaning) for one in listed() if shown[one.key] != words.NONE]


def _metrics(result: Result) -> list[tuple[str, str, str]]:
    def shown(name: str, value: float | None) -> str:
        return words.percent(value) if name.rpartition("/")[2] == "acc" else words.number(value)

    last, best = result.metrics.last, result.metrics.best
    return [(name, shown(name, last.get(name)), shown(name, best.get(name))) for name in {**last, **best}]


def _uri(image: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(image).decode('ascii')}"
