"""Show samples of an event set: ``python scripts/show_events.py digits_dvs --count 4 --out events.gif``.

Each row is a sample: its events as points (time to the right, rows upwards), its frames (blue: off, red: on) and its
label. A .gif plays the frames; a .png shows them side by side. Other settings of ``conf/data`` are given as KEY=VALUE.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import matplotlib
import numpy as np
from hydra import compose, initialize_config_dir
from matplotlib import animation
from matplotlib import pyplot as plt
from omegaconf import OmegaConf

from qbsnn.data import EventDataModule
from qbsnn.errors import QBSNNError
from qbsnn.training.building import build_object, check

CONF = Path(__file__).resolve().parent.parent / "conf" / "data"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="an event set of conf/data")
    parser.add_argument("settings", nargs="*", help="KEY=VALUE, such as T=10 or root=DIR")
    parser.add_argument("--part", choices=("train", "val", "test"), default="test")
    parser.add_argument("--count", type=int, default=4, help="samples (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("events.png"), help="a .png or .gif (default: %(default)s)")
    arguments = parser.parse_args()
    try:
        if arguments.out.suffix not in (".png", ".gif"):
            raise QBSNNError(f"--out must end in .png or .gif, got {arguments.out}")
        data = build(arguments.data, arguments.settings)
        data.prepare_data()
        data.setup("test" if arguments.part == "test" else "fit")
        show(data, arguments.part, arguments.count, arguments.out)
    except QBSNNError as error:
        print(error, file=sys.stderr)
        return 1
    print(arguments.out)
    return 0


def build(name: str, settings: list[str]) -> EventDataModule:
    """The datamodule of ``conf/data/<name>.yaml`` with some settings changed."""
    options = sorted(path.stem for path in CONF.glob("[!_]*.yaml"))
    if name not in options:
        raise QBSNNError(f"no such data set: {name}; there are: {', '.join(options)}")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(name, settings)
    base = {"paths": {"data": "data"}, "seed": 0, "T": 8}
    plain = OmegaConf.to_container(OmegaConf.create(base | {"data": cfg}), resolve=True)
    check(plain)
    data = build_object(plain["data"], "data")
    if not isinstance(data, EventDataModule):
        raise QBSNNError(f"{name} is a set of images, not of events")
    return data


def show(data: EventDataModule, part: str, count: int, out: Path) -> None:
    """Draw ``count`` samples of a part, evenly spaced over it."""
    matplotlib.use("Agg")
    split = data._split(part)
    indices = np.linspace(0, len(split) - 1, min(count, len(split))).astype(int)
    steps = 1 if out.suffix == ".gif" else data.T
    figure, axes = plt.subplots(
        len(indices), 1 + steps, squeeze=False, figsize=(3 + 1.6 * steps, 1.7 * len(indices) + 0.5)
    )
    kind = "simulated events" if data.simulated else "events"
    figure.suptitle(f"{data.name}: {kind}, {part} samples")
    pictures = []
    for row, index in zip(axes, indices, strict=True):
        events = data.events(part, int(index))
        frames, label = split[int(index)]
        heights = events["y"] if "y" in events.dtype.names else events["x"]
        colours = np.where(events["p"], "tab:red", "tab:blue")
        row[0].scatter(events["t"] / 1000, heights, s=0.3, c=colours, linewidths=0)
        row[0].set_ylim(data.sensor.height if data.sensor.height > 1 else data.sensor.width, 0)
        row[0].set_title(f"{data.class_names[int(label)]}: {len(events):,} events", fontsize=8)
        row[0].set_xlabel("ms", fontsize=7)
        coloured = [colour(frame.numpy()) for frame in frames]
        for step, axis in enumerate(row[1:]):
            axis.axis("off")
            pictures.append((axis.imshow(coloured[step], aspect="auto", interpolation="nearest"), coloured))
    figure.tight_layout()
    if out.suffix == ".png":
        figure.savefig(out, dpi=110)
    else:

        def draw(step: int) -> list[object]:
            for picture, coloured in pictures:
                picture.set_data(coloured[step])
            return []

        animation.FuncAnimation(figure, draw, data.T).save(out, animation.PillowWriter(fps=4))
    plt.close(figure)


def colour(frame: np.ndarray) -> np.ndarray:
    """A frame ``[C, H, W]`` as RGB ``[H, W, 3]``: white without events, blue off, red on, grey without polarity."""
    share = frame / max(frame.max(), 1)
    off, on = share if len(share) == 2 else (share[0], share[0])
    return np.clip(np.stack([1 - off, 1 - on - off, 1 - on], axis=-1), 0, 1)


if __name__ == "__main__":
    sys.exit(main())
