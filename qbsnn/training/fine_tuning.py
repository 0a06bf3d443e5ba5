"""Fine-tuning on the grid: a fit stage of its own after training, on the weights that were selected.

The network that post-training quantisation gives is trained further in its own integer arithmetic
(:mod:`qbsnn.deploy.convert.grid`), and the float network for as many epochs at the same learning rate, because more
epochs help by themselves. Of each the best epoch by validation is taken, the start included. Both are stored in
``qat.ckpt`` beside the checkpoint they come from, so that evaluating that checkpoint finds them.
"""

from __future__ import annotations

import copy
import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR

from qbsnn.data import DataModule
from qbsnn.deploy.convert.absorb import absorb
from qbsnn.deploy.convert.grid import GridNetwork
from qbsnn.deploy.convert.quantize import Quantized, quantize
from qbsnn.deploy.engines.int8_engine import Int8Engine
from qbsnn.errors import CheckpointError, DeployError
from qbsnn.models.network import SpikingNetwork
from qbsnn.training import checkpoints as checkpoint_io
from qbsnn.training.building import build_all, build_object
from qbsnn.training.devices.processes import one_process
from qbsnn.training.module import Classifier, Tuned
from qbsnn.training.settings import DeployGroup, deploy_group

log = logging.getLogger(__name__)

FILE = "qat.ckpt"
CONVERSION = ("bits", "theta", "leak", "membrane_bits", "overflow", "profile", "first_layer", "calibration_images")
"""The settings that fix the grid: what is stored under one choice is of no use to another."""


def fine_tune(module: Classifier, data: DataModule, path: Path) -> Tuned | None:
    """Fine-tune the module's network, which is not changed, and write ``path``; ``None`` unless ``deploy.mode`` is qat.

    A network without integer form is left to the checks, which say why.
    """
    group = deploy_group(module.config)
    if group.mode != "qat":
        return None
    network = copy.deepcopy(module.network).eval()
    try:
        quantized = quantize(absorb(network), group.conversion(), calibration(module.config, data))
    except DeployError as error:
        log.warning("no fine-tuning on the grid: %s", error)
        return None
    log.info("fine-tuning on the integer grid, then the float network, %d epochs each", group.epochs)
    grid, kept = _fit(GridNetwork(quantized), module, data, group)
    floating, _ = _fit(network, module, data, group)
    tuned = Tuned(grid, floating, kept)
    contents = {"grid": grid, "float": floating, "kept": kept, "deploy": _fixed(group), "base": _digest(module.network)}
    checkpoint_io.AtomicCheckpointIO().save_checkpoint(contents, path)
    return tuned


def stored(module: Classifier, checkpoint: Path) -> Tuned | None:
    """What ``fine_tune`` left beside a checkpoint whose weights the module holds; ``None`` unless the mode is qat.

    Raises CheckpointError where it is absent, or belongs to other weights or other settings.
    """
    group = deploy_group(module.config)
    if group.mode != "qat":
        return None
    path = checkpoint.with_name(FILE)
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist; it holds what deploy=qat learned. deploy.mode=ptq needs none")
    contents = checkpoint_io.load(path)
    if contents.get("base") != _digest(module.network):
        raise CheckpointError(f"{path} was made from other weights than those of {checkpoint.name}")
    for key, value in _fixed(group).items():
        found = contents["deploy"].get(key)
        if found != value:
            raise CheckpointError(f"{path} was made with deploy.{key} = {found}, got {value}; use deploy.mode=ptq")
    return Tuned(contents["grid"], contents["float"], contents["kept"])


@dataclass(frozen=True)
class Deployed:
    """The integer network of a run: its mode, the grid network of the same weights, and networks to compare with.

    rivals: accuracy field of the result -> function of pixels ``[B, C, H, W]`` to classes ``[B]``.
    """

    mode: str
    quantized: Quantized
    grid: GridNetwork
    rivals: dict[str, Callable[[Tensor], Tensor]]


def deployed(network: SpikingNetwork, module: Classifier, data: DataModule) -> Deployed:
    """Absorb and quantise a network in evaluation mode, and put in what fine-tuning on the grid gained.

    Raises DeployError where the network has no integer form.
    """
    group = deploy_group(module.config)
    quantized = quantize(absorb(network), group.conversion(), calibration(module.config, data))
    rounded = GridNetwork(quantized).eval()
    if module.tuned is None:
        return Deployed("ptq", quantized, rounded, {})
    tuned = GridNetwork(quantized).eval()
    tuned.load_state_dict(module.tuned.grid)
    floating = copy.deepcopy(network)
    floating.load_state_dict(module.tuned.floating)
    rivals = {
        "ptq_acc": _classes(rounded),
        "qat_acc": _classes(tuned),
        "float_comparator_acc": lambda pixels: floating.decide(floating(pixels)).argmax(1),
    }
    if not module.tuned.kept:
        return Deployed("ptq", quantized, rounded, rivals)
    return Deployed("qat", tuned.integers(), tuned, rivals)


def _classes(grid: GridNetwork) -> Callable[[Tensor], Tensor]:
    """Classes by Z as the engines have it: the lowest index among the largest."""
    return Int8Engine(grid.integers(), next(grid.parameters()).device).predict


def calibration(config: dict[str, Any], data: DataModule) -> Tensor | None:
    """The first training images of epoch 0, ``[N, C, H, W]``, where the settings ask for them; on the CPU."""
    group = deploy_group(config)
    if group.theta != "integer" or not group.calibration_images:
        return None
    data.setup("fit")
    batches, count = [], 0
    for pixels, _ in data.train_dataloader():
        batches.append(pixels.cpu())
        count += len(pixels)
        if count >= group.calibration_images:
            break
    return torch.cat(batches)[: group.calibration_images]


def _fit(
    network: SpikingNetwork, module: Classifier, data: DataModule, group: DeployGroup
) -> tuple[dict[str, Tensor], bool]:
    """The weights of the best epoch, and whether that is better than the start."""
    config = module.config
    optimizer = build_object({**config["optim"]["optimizer"], "lr": group.lr}, "optim.optimizer")
    schedule = partial(CosineAnnealingLR, T_max=group.epochs)
    tuned = Classifier(network.train(), data.num_classes, module.loss, optimizer, schedule, config, module.result)
    progress = (config.get("callbacks") or {}).get("progress")
    best = _Best()
    settings = {**one_process(config["trainer"]), "max_epochs": group.epochs, "enable_checkpointing": False}
    settings["precision"] = module.result.precision
    shown = build_all({"progress": progress}, "callbacks")
    trainer: lightning.Trainer = build_object(settings, "trainer", callbacks=[best, *shown], logger=False)
    trainer.validate(tuned, datamodule=data, verbose=False)
    trainer.fit(tuned, datamodule=data)
    return best.weights, best.improved


class _Best(Callback):
    """Remembers the weights with the highest validation accuracy, among equals the lowest loss."""

    def __init__(self) -> None:
        self.weights: dict[str, Tensor] = {}
        self.score: tuple[float, float] | None = None
        self.improved = False

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Compare, and copy the weights."""
        assert isinstance(pl_module, Classifier)
        metrics = trainer.callback_metrics
        score = (float(metrics["val/acc"]), -float(metrics["val/loss"]))
        if self.score is None or score > self.score:
            self.improved = self.score is not None
            self.score = score
            state = pl_module.network.state_dict()
            self.weights = {name: value.detach().cpu().clone() for name, value in state.items()}


def _fixed(group: DeployGroup) -> dict[str, Any]:
    return group.model_dump(include=set(CONVERSION))


def _digest(network: SpikingNetwork) -> str:
    """SHA-256 of a network's names and values."""
    sha256 = hashlib.sha256()
    for name, value in network.state_dict().items():
        sha256.update(name.encode())
        sha256.update(value.detach().cpu().contiguous().numpy().tobytes())
    return sha256.hexdigest()
