"""Learning from a trained network of any kind, typically the ReLU twin (Hinton et al., arXiv 1503.02531)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

from qbsnn.checks import named
from qbsnn.data import DataModule, trained_on
from qbsnn.errors import SettingsError
from qbsnn.functional.loss import soft_targets
from qbsnn.models.network import SpikingNetwork
from qbsnn.models.weights import load_network
from qbsnn.training import checkpoints
from qbsnn.training.building import build_object
from qbsnn.training.settings import DistillationSettings, validate
from qbsnn.training.setup import network_of


@dataclass(frozen=True)
class Teacher:
    """A trained network whose logits are learned: (1 − share)·loss + share·τ²·KL.

    It is no part of the module that learns: not trained, not averaged, not copied, and in no checkpoint.
    """

    network: SpikingNetwork
    settings: DistillationSettings

    @classmethod
    def asked(cls, settings: dict[str, Any]) -> Teacher | None:
        """The ``teacher`` of validated settings, if they name one.

        Raises:
            CheckpointError, SettingsError: as :meth:`of`, and where ``distillation`` is set without a teacher.
        """
        if settings.get("teacher"):
            with named("teacher"):
                return cls.of(settings)
        for key, value in settings.get("distillation", {}).items():
            if value != DistillationSettings.model_fields[key].default:
                raise SettingsError(
                    f"distillation.{key}={value} has no effect without a teacher: give teacher=CHECKPOINT"
                )
        return None

    @classmethod
    def of(cls, settings: dict[str, Any]) -> Teacher:
        """Load the ``teacher`` of validated settings.

        Raises:
            CheckpointError: it cannot be read.
            SettingsError: it takes other samples than those of the settings, knows other classes, or draws random
                numbers.
        """
        data: DataModule = build_object(settings["data"], "data")
        path = Path(settings["teacher"])
        contents = checkpoints.load(path)
        config = {**checkpoints.stored(contents, path), "trust": settings.get("trust")}
        network, theirs = network_of(validate(OmegaConf.create(config)))
        samples = [f"samples {list(one.in_shape)} of {one.num_classes} classes" for one in (theirs, data)]
        if samples[0] != samples[1]:
            raise SettingsError(
                f"checkpoint {path} learned from {theirs.name}, {samples[0]}; {data.name} has {samples[1]}"
            )
        trained_on.check_classes(contents, path, data)
        if network.encoder.coding == "events" and settings["T"] != network.T:
            raise SettingsError(
                f"checkpoint {path} takes frames of {network.T} steps, this run has T = {settings['T']}"
            )
        if network.encoder.coding == "rate":
            raise SettingsError(f"checkpoint {path} has the random encoding rate; a teacher must be one without")
        load_network(network, contents, path)
        return cls(network.eval().requires_grad_(False), DistillationSettings(**settings.get("distillation", {})))

    def __call__(self, loss: Tensor, pixels: Tensor, logits: Tensor) -> Tensor:
        """What is minimised in place of ``loss``, from inputs ``[B, ...]`` and decided logits ``[B, classes]``."""
        with torch.no_grad():
            wanted = self.network.decide(self.network.to(pixels)(pixels)).float()
        share = self.settings.share
        return (1 - share) * loss + share * soft_targets(logits, wanted, self.settings.temperature)

    def __deepcopy__(self, memo: Any) -> Teacher:
        """The teacher itself: an average of weights copies the module that it belongs to."""
        return self
