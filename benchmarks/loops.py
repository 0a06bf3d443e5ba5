"""The two training loops of the time to an accuracy: qbsnn's own, and a plain one for SpikingJelly."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import lightning
import torch
from hydra import compose, initialize_config_dir
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import peers
from benchmarks.harness import ROOT, device
from qbsnn.data import DataModule
from qbsnn.sweeps.plan import written
from qbsnn.training.devices.allocator import keep_freed_memory
from qbsnn.training.devices.host import host_info
from qbsnn.training.devices.precision import computes_bfloat16
from qbsnn.training.optim import parameter_groups
from qbsnn.training.settings import validate
from qbsnn.training.setup import Parts, build

if TYPE_CHECKING:
    from benchmarks.time_to_accuracy import Task

Found = tuple[float, float, int]
"""What a loop returns: the epochs it ran, the test accuracy and the number of parameters."""


class Stopwatch:
    """Seconds of training, without the pauses, up to the first accuracy at or above each of ``targets``.

    longest: seconds after which training ends without them.
    """

    def __init__(self, targets: Sequence[float], longest: float | None = None) -> None:
        self.targets, self.longest, self.seconds = targets, longest, 0.0
        self.reached: list[float | None] = [None] * len(targets)
        self.steps: list[float] = []
        self.accuracy, self._since = 0.0, 0.0

    def start(self) -> None:
        """Run, from the start or after a pause."""
        self._since = _now()

    def pause(self) -> None:
        """Stand still."""
        self.seconds += _now() - self._since

    def check(self, accuracy: float) -> bool:
        """Hear an accuracy, during a pause, and say it on stderr; whether training ends here."""
        self.accuracy = accuracy
        self.reached = [self.seconds if seconds is None and accuracy >= target else seconds
                        for seconds, target in zip(self.reached, self.targets, strict=True)]  # fmt: skip
        print(f"{self.seconds:.1f} s, {len(self.steps)} steps: {accuracy:.4f}", file=sys.stderr, flush=True)
        return self.reached[-1] is not None or (self.longest is not None and self.seconds >= self.longest)


class Watch(Callback):
    """Tells a stopwatch of Lightning's loop, and ends it at the target."""

    def __init__(self, clock: Stopwatch) -> None:
        self.clock, self.begun, self.epochs = clock, 0.0, 0.0

    def on_train_batch_start(self, *args: Any) -> None:
        """Remember when the step began."""
        self.begun = _now()

    def on_train_batch_end(self, trainer: lightning.Trainer, *args: Any) -> None:
        """Record the step."""
        self.clock.steps.append(_now() - self.begun)
        self.epochs = trainer.global_step / trainer.num_training_batches

    def on_validation_start(self, *args: Any) -> None:
        """Validation does not count."""
        self.clock.pause()

    def on_validation_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Stop at the target."""
        trainer.should_stop = self.clock.check(float(trainer.callback_metrics["val/acc"]))
        self.clock.start()


def ours(task: Task, seed: int, root: Path, folder: Path, clock: Stopwatch) -> Found:
    """Train as ``train.py`` does, until the clock ends it. Raises DataError for absent files."""
    parts = built(task, seed, root, folder, recipe=task.recipe, compile="auto")
    watch = Watch(clock)
    cast("list[Callback]", parts.trainer.callbacks).insert(0, watch)  # type: ignore[attr-defined]
    parts.data.prepare_data()
    parts.data.setup()
    clock.start()
    parts.trainer.fit(parts.module, datamodule=parts.data)
    network = parts.module.network
    return watch.epochs, accuracy(network, parts.data), parameters(network)


def peer(task: Task, seed: int, root: Path, folder: Path, clock: Stopwatch) -> Found:
    """Train SpikingJelly's network in a plain loop. Raises DataError for absent files, Unavailable without it."""
    keep_freed_memory()
    kit = peers.spikingjelly(task.compiled)
    data = built(task, seed, root, folder).data
    data.prepare_data()
    data.setup()
    make = partial(peers.build, kit, "vgg9" if task.recipe else "vgg5", task.T, data.in_shape, data.num_classes)
    width = task.width
    if task.recipe:
        recipe = built(task, seed, root, folder, recipe=task.recipe)
        width = equal_width(make, parameters(recipe.module.network))
    network = Normalised(make(width), data)
    network.to(device()).train()
    size, optimiser = parameters(network), optimiser_of(task, network)
    half = bool(task.recipe) and computes_bfloat16(device().type, host_info().isa)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=task.epochs)
    loader = data.train_dataloader()
    every = max(1, len(loader) // task.checks)
    clock.start()
    for epoch in range(task.epochs):
        loader.sampler.set_epoch(epoch)  # as Lightning does it for ours: another order, and other crops
        for number, (images, labels) in enumerate(loader, start=1):
            begun = _now()
            with torch.autocast(device().type, torch.bfloat16, enabled=half):
                logits = network(images.to(device()))
            loss = F.cross_entropy(logits.float().mean(0), labels.to(device()))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            if not task.recipe:
                nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            clock.steps.append(_now() - begun)
            if number % every == 0:
                clock.pause()
                if clock.check(accuracy(network, data, "val")):
                    return epoch + number / len(loader), accuracy(network, data), size
                clock.start()
        schedule.step()
    return float(task.epochs), accuracy(network, data), size


def optimiser_of(task: Task, network: nn.Module) -> torch.optim.Optimizer:
    """SpikingJelly's: as ours where both share a recipe, else as its own example has it."""
    if task.recipe:
        return torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    return torch.optim.AdamW(parameter_groups(network), lr=1e-3, weight_decay=1e-4)


def equal_width(make: Callable[[float], nn.Module], size: int) -> float:
    """The width, in steps of 1/64, whose network has nearest to ``size`` parameters."""
    low, high = 1, 128
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if parameters(make(middle / 64)) < size else (low, middle)
    return min((max(low - 1, 1) / 64, low / 64), key=lambda width: abs(parameters(make(width)) - size))


def parameters(network: nn.Module) -> int:
    """How many there are."""
    return sum(parameter.numel() for parameter in network.parameters())


class Normalised(nn.Module):
    """A network behind the normalisation of the data's pixels."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, data: DataModule) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(data.mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(data.std).view(-1, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels ``[B, C, H, W]`` to logits ``[T, B, classes]``."""
        return self.network((pixels - self.mean) / self.std)


def built(task: Task, seed: int, root: Path, folder: Path, recipe: tuple[str, ...] = (), **settings: str) -> Parts:
    """Data, network and trainer from ``conf/`` with the task's settings, or those of an experiment. Reads no data."""
    chosen: dict[str, Any] = {
        "data": task.data,
        "model": "vgg5",
        "model.width": task.width,
        "T": task.T,
        "data.batch_size": task.batch,
        "trainer.max_epochs": task.epochs,
    }
    if recipe:
        chosen = dict(setting.split("=", 1) for setting in recipe)
        if task.train_limit:  # an attempt in seconds
            chosen |= {"model.channels": "[8,8,8]", "data.batch_size": 64, "trainer.max_epochs": 1}
    overrides = {
        **chosen,
        "seed": seed,
        "name": "time_to_accuracy",
        "report": "false",
        "data.root": written(str(root)),
        "data.download": "false",
        "data.verify": os.environ.get("QBSNN_VERIFY", "true"),
        "data.val_fraction": task.val,
        "data.limit_val": written(task.val_limit),
        "data.limit_train": written(task.train_limit),
        "+trainer.val_check_interval": 1.0 / task.checks,
        "callbacks.checkpoint": "null",
        "callbacks.progress": "null",
        "+trainer.enable_progress_bar": "false",
        **{f"paths.{name}": written(str(folder)) for name in ("run", "outputs", "data")},
        **settings,
    }
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train", [f"{key}={value}" for key, value in overrides.items()])
    return build(validate(cfg))


def accuracy(network: nn.Module, data: DataModule, part: str = "test") -> float:
    """Share of right answers, from the mean logits over time; the network is left in training mode."""
    loader = data.test_dataloader() if part == "test" else data.val_dataloader()
    right = total = 0
    network.eval()
    with torch.no_grad():
        for images, labels in loader:
            right += int((network(images.to(device())).mean(0).argmax(1).cpu() == labels).sum())
            total += len(labels)
    network.train()
    return right / total


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
