"""Show a data set: ``python scripts/show_data.py data=NAME [part=train] [count=4] [out=data.png] [key=value ...]``.

Settings are those of ``train.py``. Pictures: ``count`` of each class, as they are and, beside, as training sees them in
the first two epochs; the mean over all that were looked at. Events: a row per sample with its events as points (time to
the right, rows upwards) and its frames (blue: off, red: on). Below: how many samples each class has, the sizes of the
files' pictures or the rates of events. out: a .png, a .gif that plays the frames of events, or an .html that holds the
picture and the numbers.
"""

from __future__ import annotations

import base64
import copy
import io
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from matplotlib import animation
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from omegaconf import ListConfig, OmegaConf
from pydantic import Field

from qbsnn.cli import launch as cli
from qbsnn.cli.composition import explained
from qbsnn.cli.keys import Overriding
from qbsnn.data import DataModule, EventDataModule
from qbsnn.data.loading import Split
from qbsnn.errors import SettingsError
from qbsnn.sweeps.plan import written
from qbsnn.training.building import build_object, check

CONF = Path(__file__).resolve().parent.parent / "conf"
CLASSES = 8
"""At most so many classes are drawn."""
MOST = 512
"""Of at most so many samples sizes, rates and means are computed."""


class Show(Overriding):
    """The keys of this tool."""

    part: Literal["train", "val", "test"] = Field(default="test", description="which part of the set")
    count: int = Field(default=4, ge=1, le=64, description="how many samples of each class, or recordings")
    out: Path = Field(default=Path("data.png"), description="a .png, a .gif (events), or an .html")


def main(given: Show) -> None:
    """Read the set, draw it, say where."""
    part, out, count = given.part, given.out, given.count
    if out.suffix not in (".png", ".gif", ".html"):
        raise SettingsError(f"out must end in .png, .gif or .html, got {out}")
    data = build(list(given.overrides))
    if out.suffix == ".gif" and not isinstance(data, EventDataModule):
        raise SettingsError(f"out must end in .png or .html for pictures, got {out}")
    data.prepare_data()
    data.setup("test" if part == "test" else "fit")
    out.parent.mkdir(parents=True, exist_ok=True)
    draw(data, part, count, out)
    print(out)


def build(overrides: list[str]) -> DataModule:
    """The data module that ``train.py`` would build with these settings."""
    with explained(CONF, "train", overrides), initialize_config_dir(str(CONF), version_base="1.3"):
        place = os.environ.get("QBSNN_DATA", Path.cwd() / "data")  # Hydra itself does not run, and knows no place
        cfg = compose("train", [f"paths.data={written(str(place))}", *overrides])
    settings = OmegaConf.to_container(cfg.data, resolve=True)
    trust = cfg.trust if isinstance(cfg.trust, ListConfig) else [cfg.trust]
    check(settings, [str(package) for package in trust if package], "data")
    data: DataModule = build_object(settings, "data")
    return data


def draw(data: DataModule, part: str, count: int, out: Path) -> None:
    """Draw a part of a set into a file."""
    labels = data._split(part).labels.cpu().numpy()
    chosen = [np.flatnonzero(labels == label)[:count] for label in np.unique(labels)[:CLASSES]]
    figure = Figure(
        figsize=(13, 1.3 * sum(1 + len(c) * isinstance(data, EventDataModule) for c in chosen) + 4),
        layout="constrained",
    )
    FigureCanvasAgg(figure)
    kind = " (simulated events)" if data.simulated else ""
    figure.suptitle(f"{data.name}{kind}: {len(labels):,} {part} samples, {data.num_classes} classes")
    above, below = figure.subfigures(2, 1, height_ratios=[max(figure.get_figheight() - 3, 1), 3])
    looked = np.unique(np.linspace(0, len(labels) - 1, min(len(labels), MOST)).astype(int))
    moving: list[Any] = []
    if isinstance(data, EventDataModule):
        indices = np.concatenate([c[:count] for c in chosen])
        moving = draw_events(data, part, indices, above, still=out.suffix != ".gif")
        rates = [
            len(e) / max(float(e["t"][-1] - e["t"][0]) / 1e6, 1e-6) for e in (data.events(part, i) for i in looked)
        ]
        statistics(data, labels, ("events per second", np.array(rates)), mean_of(data, part, looked), below)
    else:
        draw_pictures(data, part, chosen, above)
        paths = getattr(data._split(part), "paths", None)
        sides = np.array([short_side(paths[i]) for i in looked] if paths is not None else [data.in_shape[1]])
        statistics(data, labels, ("shorter side in pixels", sides), mean_of(data, part, looked), below)
    save(figure, moving, data, out)


def draw_pictures(data: DataModule, part: str, chosen: list[np.ndarray], figure: Any) -> None:
    """A row per class: its pictures, and those of training once more as it sees them in epochs 0 and 1."""
    split = data._split(part)
    views = [("as they are", 0, plain(split))]
    if part == "train":
        views += [(f"augmented, epoch {epoch}", epoch, without(split, "mix")) for epoch in (0, 1)]
    columns = max(map(len, chosen))
    axes = figure.subplots(len(chosen), len(views) * columns, squeeze=False)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_visible(False)
    for row, indices in zip(axes, chosen, strict=True):
        row[0].set_ylabel(data.class_names[int(split.labels[indices[0]])][:18], rotation=0, ha="right", fontsize=8)
        for block, (_, epoch, view) in enumerate(views):
            for column, index in enumerate(indices):
                show(row[block * columns + column], view[(epoch, int(index))][0].cpu())
    for block, (title, _, _) in enumerate(views):
        axes[0][block * columns].set_title(title, fontsize=8, loc="left")


def without(split: Split, *names: str) -> Split:
    """A part with the same samples that lacks some of what training does to them."""
    other = copy.copy(split)
    for name in names:
        if hasattr(other, name):
            setattr(other, name, None)
    return other


def plain(split: Split) -> Split:
    """A part with the same samples as they are."""
    return without(split, "augment", "augment_events", "augment_frames", "mix", "random_crop")


def draw_events(data: EventDataModule, part: str, indices: np.ndarray, figure: Any, still: bool) -> list[Any]:
    """A row per sample: its events, then its frames, side by side or in one place, to be played."""
    split = data._split(part)
    steps = data.T if still else 1
    axes = figure.subplots(len(indices), 1 + steps, squeeze=False, width_ratios=[2, *([1] * steps)])
    moving = []
    for row, index in zip(axes, indices, strict=True):
        events = data.events(part, int(index))
        frames, label = split[int(index)]
        heights = events["y"] if data.sensor.height > 1 else events["x"]
        colours = np.where(events["p"], "tab:red", "tab:blue")
        row[0].scatter(events["t"] / 1000, heights, s=0.3, c=colours, linewidths=0)
        row[0].set_ylim(data.sensor.height if data.sensor.height > 1 else data.sensor.width, 0)
        row[0].set_title(f"{data.class_names[int(label)]}: {len(events):,} events over ms", fontsize=7)
        row[0].tick_params(labelsize=6)
        coloured = [colour(frame.numpy()) for frame in frames]
        for step, axis in enumerate(row[1:]):
            axis.axis("off")
            moving.append((axis.imshow(coloured[step], aspect="auto", interpolation="nearest"), coloured))
    return moving


def statistics(
    data: DataModule, labels: np.ndarray, measured: tuple[str, np.ndarray], mean: torch.Tensor, figure: Any
) -> None:
    """Samples per class, a histogram of what was measured, the mean over samples."""
    classes, values, picture = figure.subplots(1, 3)
    counts = np.bincount(labels, minlength=data.num_classes)
    classes.bar(np.arange(data.num_classes), counts)
    classes.set_title(f"samples per class, {counts.min():,} to {counts.max():,}", fontsize=8)
    if data.num_classes <= 20:
        classes.set_xticks(np.arange(data.num_classes), [n[:12] for n in data.class_names], rotation=90, fontsize=6)
    values.hist(measured[1], bins=30)
    values.set_title(f"{measured[0]}, {measured[1].min():,.0f} to {measured[1].max():,.0f}", fontsize=8)
    show(picture, mean)
    picture.axis("off")
    picture.set_title("mean", fontsize=8)


def mean_of(data: DataModule, part: str, indices: np.ndarray) -> torch.Tensor:
    """The mean over samples, and over steps where there are any, ``[C, H, W]``."""
    split = plain(data._split(part))
    total = torch.zeros(data.in_shape)
    for index in indices:
        sample = split[int(index)][0].cpu()
        total += sample.mean(0) if sample.ndim == 4 else sample
    return total / len(indices)


def short_side(path: Path) -> int:
    """The shorter side of a picture in a file, in pixels."""
    from PIL import Image

    with Image.open(path) as image:
        return min(image.size)


def show(axis: Any, pixels: torch.Tensor) -> None:
    """A picture ``[1 or 3, H, W]`` in [0, 1], or counts ``[1 or 2, H, W]``."""
    values = pixels.numpy()
    if len(values) == 2 or values.max() > 1:
        axis.imshow(colour(values), interpolation="nearest", aspect="auto")
    elif len(values) == 1:
        axis.imshow(values[0], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    else:
        axis.imshow(values.transpose(1, 2, 0), interpolation="nearest")


def colour(frame: np.ndarray) -> np.ndarray:
    """A frame ``[C, H, W]`` as RGB ``[H, W, 3]``: white without events, blue off, red on, grey without polarity."""
    share = frame / (frame.max() or 1)
    off, on = share if len(share) == 2 else (share[0], share[0])
    return np.clip(np.stack([1 - off, 1 - on - off, 1 - on], axis=-1), 0, 1)


def save(figure: Figure, moving: list[Any], data: DataModule, out: Path) -> None:
    """Write the figure; a .gif plays what moves, an .html holds the picture in itself."""
    if out.suffix == ".gif":
        steps = len(moving[0][1])

        def step(number: int) -> list[object]:
            for picture, coloured in moving:
                picture.set_data(coloured[number])
            return []

        animation.FuncAnimation(figure, step, steps).save(out, animation.PillowWriter(fps=4))
    elif out.suffix == ".png":
        figure.savefig(out, dpi=110)
    else:
        png = io.BytesIO()
        figure.savefig(png, dpi=110, format="png")
        encoded = base64.b64encode(png.getvalue()).decode()
        sizes = ", ".join(f"{count:,} {part}" for part, count in data.split_sizes().items())
        out.write_text(
            f"<!doctype html><html lang=en><meta charset=utf-8><title>{data.name}</title><h1>{data.name}</h1>"
            f"<p>{sizes}</p><img alt='samples and statistics of {data.name}' src='data:image/png;base64,{encoded}'>",
            encoding="utf-8",
        )


if __name__ == "__main__":
    cli.script(main, Show, __doc__)
