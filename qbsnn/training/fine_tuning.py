"""Training on the grid: a fit of its own after training, on the weights that were selected.

The network that post-training quantisation gives is trained further in its own integer arithmetic
(:mod:`qbsnn.deploy.convert.grid`), and the float network for as many epochs at the same learning rate, because more
epochs help by themselves. Both keep the run's budget of energy, whose target acts from the first step on, and what is
frozen; an average of the weights and a teacher take no part. Of each the best epoch by validation is taken, the start
included, and where a budget is exceeded the one that exceeds it least. Both are stored in ``qat.ckpt`` beside the
checkpoint they come from, so that evaluating that checkpoint finds them.
"""

from __future__ import annotations

import copy
import hashlib
import logging
from functools import partial
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR

from qbsnn.data import DataModule
from qbsnn.deploy.convert.grid import GridNetwork
from qbsnn.deploy.convert.quantized import Quantized
from qbsnn.deploy.convert.settings import DeploySettings
from qbsnn.errors import CheckpointError
from qbsnn.models.network import SpikingNetwork
from qbsnn.results.formatting import counted
from qbsnn.training import checkpoints
from qbsnn.training.building import build_all, build_object
from qbsnn.training.deployment import Tuned
from qbsnn.training.devices.processes import one_process
from qbsnn.training.module import Classifier, classifier
from qbsnn.training.settings import deploy_settings
from qbsnn.training.setup import build_budget

log = logging.getLogger(__name__)

FILE = "qat.ckpt"


def fine_tune(
    network: SpikingNetwork,
    quantized: Quantized,
    settings: dict[str, Any],
    precision: str,
    data: DataModule,
    path: Path,
) -> Tuned:
    """Train on the grid and write ``path``.

    Args:
        network: the trained network in evaluation mode, which is not changed.
        quantized: its quantised form.
        settings: of the run, validated.
        precision: of training, in Lightning's words.
        data: training and validation images.
        path: of the file to write.
    """
    group = deploy_settings(settings)
    log.info("fine-tuning on the integer grid, then the float network, %s each", counted(group.epochs, "epoch"))
    if settings.get("teacher") or any("Averaging" in str(node) for node in (settings.get("callbacks") or {}).values()):
        log.info("the teacher and the average of the weights, where there are such, take no part in it")
    grid, kept = _fit(GridNetwork(quantized, network), settings, precision, data)
    floating, _ = _fit(copy.deepcopy(network), settings, precision, data)
    contents = {"grid": grid, "float": floating, "kept": kept, "deploy": group.grid, "base": _digest(network)}
    checkpoints.AtomicCheckpointIO().save_checkpoint(contents, path)
    return Tuned(grid, floating, kept)


def stored(network: SpikingNetwork, group: DeploySettings, checkpoint: Path) -> Tuned:
    """What ``fine_tune`` left beside a checkpoint.

    Args:
        network: holds the weights of the checkpoint.
        group: how the network is to become integers.
        checkpoint: its file.

    Raises:
        CheckpointError: it is absent, or belongs to other weights or other settings.
    """
    path = checkpoint.with_name(FILE)
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist; it holds what deploy=qat learned. deploy.mode=ptq needs none")
    contents = checkpoints.load(path)
    if contents.get("base") != _digest(network):
        raise CheckpointError(f"{path} was made from other weights than those of {checkpoint.name}")
    for key, value in group.grid.items():
        found = contents["deploy"].get(key)
        if found != value:
            raise CheckpointError(f"{path} was made with deploy.{key} = {found}, got {value}; use deploy.mode=ptq")
    return Tuned(contents["grid"], contents["float"], contents["kept"])


def _fit(
    network: SpikingNetwork, settings: dict[str, Any], precision: str, data: DataModule
) -> tuple[dict[str, Tensor], bool]:
    """The weights of the best epoch, and whether that is better than the start."""
    group, optim = deploy_settings(settings), settings["optim"]
    budget = build_budget(settings, network)
    if budget is not None:
        budget.begin = budget.end = 0.0  # the target is the final one
    module = classifier(
        network.train(),
        data.num_classes,
        {**settings, "optim": {**optim, "optimizer": {**optim["optimizer"], "lr": group.lr}, "scheduler": None}},
        partial(CosineAnnealingLR, T_max=group.epochs),
        budget,
    )
    best = _Best()
    shown = build_all({"progress": (settings.get("callbacks") or {}).get("progress")}, "callbacks")
    # Whatever limits or spaces out the run's own training, each of these epochs is trained whole and validated.
    whole = {"max_steps": -1, "max_time": None, "min_epochs": None, "check_val_every_n_epoch": 1,
             "val_check_interval": None, "num_sanity_val_steps": 0}  # fmt: skip
    chosen = {**whole, "max_epochs": group.epochs, "enable_checkpointing": False, "precision": precision}
    trainer: lightning.Trainer = build_object(
        {**one_process(settings["trainer"]), **chosen}, "trainer", callbacks=[best, *shown], logger=False
    )
    trainer.validate(module, datamodule=data, verbose=False)
    trainer.fit(module, datamodule=data)
    return best.weights, best.improved


class _Best(Callback):
    """Remembers the weights with the least excess of a budget, then the highest validation accuracy and lowest loss."""

    def __init__(self) -> None:
        self.weights: dict[str, Tensor] = {}
        self.score: tuple[float, float, float] | None = None
        self.improved = False

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Compare, and copy the weights."""
        assert isinstance(pl_module, Classifier)
        metrics = trainer.callback_metrics
        score = (-float(metrics.get("val/excess", 0.0)), float(metrics["val/acc"]), -float(metrics["val/loss"]))
        if self.score is None or score > self.score:
            self.improved = self.score is not None
            self.score = score
            state = pl_module.network.state_dict()
            self.weights = {name: value.detach().cpu().clone() for name, value in state.items()}


def _digest(network: SpikingNetwork) -> str:
    """SHA-256 of a network's names and values."""
    sha256 = hashlib.sha256()
    for name, value in network.state_dict().items():
        sha256.update(name.encode())
        sha256.update(value.detach().cpu().contiguous().numpy().tobytes())
    return sha256.hexdigest()
