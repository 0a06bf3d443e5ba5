"""Speed of loading pictures beside torchvision; of framing events beside Tonic; cached and cold epochs, cache size.

All on samples made here, so nothing is downloaded: random pictures of CIFAR-10's size, digits simulated as recordings,
and random events with the numbers of DVS128 Gesture and N-MNIST, written in their true layouts. Contenders take turns;
medians are shown.
``python -m benchmarks.data [only=pictures,events] [rounds=5] [small=true]``
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from tonic.transforms import ToFrame
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from benchmarks.harness import BenchmarkKeys, Goal, Result, device, where
from benchmarks.rounds import interleaved, timed
from qbsnn.cli import launch as cli
from qbsnn.data import NMNIST, DVS128Gesture, EventDataModule, SimulatedDigitsDVS
from qbsnn.data.events.events import EVENT, Events, Sensor
from qbsnn.data.events.frames import Framing
from qbsnn.data.images.augment import Augment
from qbsnn.data.images.resident import ImageSplit
from qbsnn.data.loading import train_loader
from qbsnn.models import vgg
from qbsnn.neurons import QBLIF

T = 10
SIDE, BATCH = 32, 512
POLICY = Goal("CIFAR-10 with crop, flip and AutoAugment, images/s", "≥ 3000")


class DataKeys(BenchmarkKeys):
    """The keys of this benchmark."""

    only: list[Literal["pictures", "events"]] = Field(
        default=["pictures", "events"], description="what is loaded: pictures, events"
    )


def main(args: DataKeys) -> None:
    result = Result("data", {"T": T, "batch": BATCH, "rounds": args.rounds, "only": args.only}, args.small)
    with result.written(args.out) as more:
        if "events" in args.only:
            more |= events(result, args)
        if "pictures" in args.only:
            pictures(result, 1024 if args.small else 10 * BATCH, args.rounds)


class Plain(Dataset):
    """What a user of torchvision writes: pictures one by one through transforms."""

    def __init__(self, pixels: torch.Tensor, policy: bool) -> None:
        self.images = [Image.fromarray(picture.permute(1, 2, 0).numpy()) for picture in pixels]
        chosen = [v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)] if policy else []
        scaled = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
        self.transform = v2.Compose([v2.RandomCrop(SIDE, 4), v2.RandomHorizontalFlip(), *chosen, *scaled])

    def __len__(self) -> int:
        """How many."""
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        """A picture and its class."""
        return self.transform(self.images[index]), 0


def pictures(result: Result, count: int, rounds: int) -> None:
    """Images per second of an epoch, resident in the CPU's memory, on the card where there is one, and plain."""
    pixels = torch.randint(256, (count, 3, SIDE, SIDE), dtype=torch.uint8)
    for title, policy in (("crop, flip", None), ("crop, flip, AutoAugment", "cifar10")):
        calls: dict[str, Callable[[], object]] = {}
        for place in dict.fromkeys((torch.device("cpu"), device() if policy is None else torch.device("cpu"))):
            split = ImageSplit(
                pixels, torch.zeros(count, dtype=torch.int64), 255, Augment(crop=4, flip=True, policy=policy)
            )
            split.to(place)
            split.resident = True
            calls[f"ours, on {place.type}"] = lambda split=split: sum(1 for _ in train_loader(split, BATCH, 0, 0))
        plain = Plain(pixels, policy is not None)
        for workers in (0, 2):
            loader = DataLoader(plain, BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0)
            calls[f"torchvision, {workers} workers"] = lambda loader=loader: sum(1 for _ in loader)
        table, base = f"Pictures of {SIDE}x{SIDE}, {title}", "torchvision, 2 workers"
        with timed(result, calls, rounds) as times:
            for name in sorted(times, key=lambda name: name != base):
                goal = POLICY if policy is not None and name == "ours, on cpu" else None
                rates = [count / seconds for seconds in times[name]]
                if goal is not None:
                    result.add(table, name, rates, "images/s", goal=goal)
                elif rates:
                    unit = statistics.median(count / seconds for seconds in times[base]) if times[base] else None
                    ratio = None if unit is None else statistics.median(rates) / unit
                    result.add(table, name, rates, "images/s", ratio=ratio)


def events(result: Result, args: DataKeys) -> dict[str, Any]:
    """The tables of recordings; returns what was measured beside them."""
    scale = 10 if args.small else 1
    print(f"{where()}; T = {T}, medians of {args.rounds} rounds")
    framing = [
        framed("gesture-like, 300,000 events", Sensor(128, 128, 2), 300_000 // scale, args.rounds),
        framed("N-MNIST-like, 4,000 events", Sensor(34, 34, 2), 4_000, args.rounds),
    ]
    with tempfile.TemporaryDirectory() as folder:
        sets = [
            gestures(Path(folder), 300_000 // scale, 2 if args.small else 6),
            digits(Path(folder), 20 if args.small else 200),
            SimulatedDigitsDVS(root=folder, T=T, limit_train=128 if args.small else None),
        ]
        epochs = [epoch(data, args.rounds) for data in sets]
    for found in framing:
        rates: dict[str, float] = found["samples_per_second"]
        for contender, rate in rates.items():
            result.add(f"Framing, {found['name']}", contender, [rate], "samples/s", to="tonic")
    for found in epochs:
        table = f"{found['name']}{' (simulated)' if found['simulated'] else ''}"
        result.add(table, "cold epoch", [found["cold"]], "samples/s", to="cold epoch")
        result.add(table, "cached epoch", [found["cached"]], "samples/s", to="cold epoch")
        result.add(table, "cache ÷ float32 frames", [found["cache_share"]], "")
        result.add(table, "waiting ÷ a training step of vgg5", [found["wait_seconds"] / found["step_seconds"]], "")
    return {"framing": framing, "epochs": epochs}


def framed(name: str, sensor: Sensor, count: int, rounds: int) -> dict[str, Any]:
    """Samples per second of both, on the same events, whose frames must be equal."""
    samples = [blob(sensor, count, seed) for seed in range(4)]
    ours, keeping = Framing(sensor, T, keep_tail=False), Framing(sensor, T)
    theirs = ToFrame(sensor_size=tuple(sensor), n_time_bins=T)
    assert all(np.array_equal(ours(events)[0], theirs(events)) for events in samples)
    dropped = sum(ours(events)[1].tail for events in samples)
    repeats = max(1, 200_000 // count)
    contenders: dict[str, Callable[[Events], object]] = {"tonic": theirs, "ours": ours, "ours, tail kept": keeping}

    def several(call: Callable[[Events], object]) -> None:
        for events in samples * repeats:
            call(events)

    times = interleaved({name: partial(several, call) for name, call in contenders.items()}, rounds)
    rates = {name: repeats * len(samples) / statistics.median(values) for name, values in times.items()}
    ratio = rates["ours, tail kept"] / rates["tonic"]
    print(
        f"framing, {name}: " + ", ".join(f"{c} {r:,.0f}/s" for c, r in rates.items()) + f"; {ratio:.1f} times Tonic's"
    )
    print(f"  frames equal Tonic's; it drops {dropped} of {len(samples) * count:,} events, which are kept by default")
    return {"name": name, "samples_per_second": rates, "ratio": ratio, "tonic_drops": dropped}


def epoch(data: EventDataModule, rounds: int) -> dict[str, Any]:
    """Seconds of a cold epoch (read, frame, write the cache), of cached ones, and of the network's own steps."""
    start = time.perf_counter()
    data.setup("fit")
    consume(data)
    cold = time.perf_counter() - start
    cached = statistics.median(consume(data) for _ in range(rounds))
    count = len(data._split("train"))
    both = {"cold": (cold, count + len(data._split("val"))), "cached": (cached, count)}
    rates = {name: samples / seconds for name, (seconds, samples) in both.items()}
    size = sum(found["size"] for found in data.describe()["cache"].values())
    dense = both["cold"][1] * int(np.prod((T, *data.in_shape))) * 4
    step, wait = training(data)
    kind = " (simulated)" if data.simulated else " (random events, true layout)"
    print(
        f"{data.name}{kind}: cold {rates['cold']:,.0f}/s, cached {rates['cached']:,.0f}/s, "
        f"{rates['cached'] / rates['cold']:.0f} times; cache 1/{dense / size:.1f} of float32\n"
        f"  a step of vgg5 takes {1e3 * step:.0f} ms and waits {1e3 * wait:.1f} ms for its batch ({wait / step:.1%})"
    )
    ratio = rates["cached"] / rates["cold"]
    facts = {"cold": rates["cold"], "cached": rates["cached"], "ratio": ratio, "cache_share": size / dense}
    return {"name": data.name, "simulated": data.simulated, **facts, "step_seconds": step, "wait_seconds": wait}


def consume(data: EventDataModule) -> float:
    """Seconds to go through the training part once."""
    start = time.perf_counter()
    for _ in data.train_dataloader():
        pass
    return time.perf_counter() - start


def training(data: EventDataModule, steps: int = 5) -> tuple[float, float]:
    """Median seconds of a training step of a small network, and of waiting for its batch, in one process."""
    network = vgg(
        QBLIF, data.in_shape, data.num_classes, data.mean, data.std, "vgg5", T=T, width=0.25, encoding="events"
    )
    taken, waited = [], []
    start = time.perf_counter()
    for number, (frames, labels) in enumerate(data.train_dataloader()):
        fetched = time.perf_counter()
        torch.nn.functional.cross_entropy(network(frames).mean(0), labels).backward()
        waited.append(fetched - start)
        start = time.perf_counter()
        taken.append(start - fetched)
        if number == steps:
            break
    return statistics.median(taken), statistics.median(waited)


def blob(sensor: Sensor, count: int, seed: int) -> Events:
    """Events around the middle of the sensor, 6 s long."""
    numbers = np.random.default_rng(seed)
    events = np.zeros(count, EVENT)
    for name, size in (("x", sensor.width), ("y", sensor.height)):
        events[name] = numbers.normal(size / 2, size / 10, count).clip(0, size - 1)
    events["t"], events["p"] = np.sort(numbers.integers(6_000_000, size=count)), numbers.random(count) < 0.5
    return events


def gestures(root: Path, count: int, users: int) -> EventDataModule:
    """DVS128 Gesture's layout with random events."""
    for user in range(users):
        folder = root / f"DVSGesture/ibmGestureTrain/user{user:02d}_led"
        folder.mkdir(parents=True)
        for label in range(11):
            events = blob(Sensor(128, 128, 2), count, 20 * user + label)
            np.save(
                folder / f"{label}.npy", np.stack([events[n] // (1000 if n == "t" else 1) for n in "xypt"], 1) * 1.0
            )
    return DVS128Gesture(root=root, T=T, verify=False, download=False, batch_size=8)


def digits(root: Path, each: int) -> EventDataModule:
    """N-MNIST's layout with random events."""
    for digit in range(10):
        folder = root / f"NMNIST/Train/{digit}"
        folder.mkdir(parents=True)
        for i in range(each):
            e = blob(Sensor(34, 34, 2), 4_000, each * digit + i)
            t, p = e["t"] // 20, e["p"].astype(np.int64)
            rows = [e["x"], e["y"], (p << 7) | (t >> 16), (t >> 8) & 255, t & 255]
            (folder / f"{i:05d}.bin").write_bytes(np.stack(rows, 1).astype(np.uint8).tobytes())
    return NMNIST(root=root, T=T, verify=False, download=False)


if __name__ == "__main__":
    cli.script(main, DataKeys, __doc__)
