"""Robustness: the accuracy on disturbed test samples of a network that was trained without disturbance."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor

from qbsnn import checks
from qbsnn.errors import ArgumentError
from qbsnn.models.execution import prepare
from qbsnn.models.network import SpikingNetwork
from qbsnn.results.schema import Disturbance
from qbsnn.results.schema import Robustness as Block
from qbsnn.training.deployment import Listener, frozen
from qbsnn.training.module import Classifier

log = logging.getLogger(__name__)


class Robustness(Listener):
    """Tests a copy of the network once more for each disturbance, batch by batch beside the ordinary test.

    ``noise``: Gaussian, added to pixels in [0, 1] before they are encoded; the sum is cut to [0, 1]. ``missing``: what
    the encoder gives for one step is 0, so that the first weights add nothing to the current of that step (a bias, or
    the shift of a norm, stays); the mean over which of the T steps it is. ``steps``: the same weights with T + 1 and
    with T − 1 steps.

    Args:
        sigmas: standard deviations of the noise. The noise of a sample is the same for all of them but for its size.
        seed: of the noise, which depends on the order of the samples and neither on the batch size nor on the device.

    Raises:
        ArgumentError: ``sigmas`` is no list of different numbers of at least 0, or ``seed`` no integer of at least 0.
    """

    block = "robustness"

    def __init__(self, sigmas: Sequence[float] = (0.05, 0.1, 0.2), seed: int = 0) -> None:
        if not isinstance(sigmas, (list, tuple)) or not sigmas:
            raise ArgumentError(f"sigmas must be a list of at least one number, such as [0.1], got {sigmas!r}")
        self.sigmas = [checks.number(f"sigmas[{index}]", sigma, 0) for index, sigma in enumerate(sigmas)]
        if twice := [sigma for index, sigma in enumerate(self.sigmas) if sigma in self.sigmas[:index]]:
            raise ArgumentError(f"sigmas must differ from each other, got {twice[0]:g} twice")
        self.seed = checks.integer("seed", seed, 0)
        self._found: list[Disturbance] = []
        self._right: list[int] = []
        self._clean = self._images = 0

    def on_test_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Copy the network, before anything listens to it, and say what will not be measured."""
        assert isinstance(pl_module, Classifier)
        self._network = prepare(frozen(pl_module.network, pl_module.device))
        self._noise = np.random.default_rng(self.seed)
        self._found = disturbances(self._network, self.sigmas)
        self._right = [0] * len(self._found)
        self._clean = self._images = 0
        for each in self._found:
            if each.skipped is not None:
                log.info("robustness, %s %g: skipped, %s", each.kind, each.value, each.skipped)

    def on_test_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Count what is still right."""
        pixels, labels = batch
        self._images += len(labels)
        self._clean += int((outputs["predicted"] == labels).sum())
        drawn = self._noise.standard_normal(tuple(pixels.shape), dtype=np.float32)
        noise = torch.from_numpy(drawn).to(pixels)
        for index, each in enumerate(self._found):
            if each.skipped is None:
                found = [self._network.decide(logits).argmax(1) for logits in self._disturbed(each, pixels, noise)]
                self._right[index] += sum(int((classes == labels).sum()) for classes in found)

    def found(self, name: str) -> Block:
        """The accuracies."""
        for each, right in zip(self._found, self._right, strict=True):
            passes = self._network.T if each.kind == "missing" else 1
            each.accuracy = None if each.skipped is not None else right / max(passes * self._images, 1)
        return Block(name, self._images, self._clean / max(self._images, 1), self._found)

    def _disturbed(self, each: Disturbance, pixels: Tensor, noise: Tensor) -> list[Tensor]:
        """Logits of every pass that a disturbance takes."""
        network = self._network
        if each.kind == "noise":
            return [network((pixels + each.value * noise).clamp(0, 1))]
        if each.kind == "missing":
            return [without_step(network, pixels, step) for step in range(network.T)]
        return [with_steps(network, pixels, network.T + int(each.value))]


def disturbances(network: SpikingNetwork, sigmas: Sequence[float]) -> list[Disturbance]:
    """What is measured of a network, with the reason where it is not defined."""
    found = [Disturbance("noise", sigma) for sigma in sigmas] + [Disturbance("missing", 1)]
    found += [Disturbance("steps", more) for more in (1, -1)]
    frames = network.encoder.coding == "events"
    scaled = any(part.temporal is not None for _, stage in network.named_stages() for part in stage.parts)
    for each in found:
        if each.kind == "noise" and frames:
            each.skipped = "frames hold counts of events, and this noise is defined for pixels in [0, 1]"
        elif each.kind == "steps" and frames:
            each.skipped = f"the frames of a sample are T = {network.T}"
        elif each.kind == "steps" and scaled:
            each.skipped = f"tebn learned a factor for each of T = {network.T} steps"
        elif network.T == 1 and (each.kind == "missing" or each.value < 0):
            each.skipped = "T = 1: no step would be left"
    return found


def without_step(network: SpikingNetwork, pixels: Tensor, step: int) -> Tensor:
    """Logits ``[T, B, classes]`` where the encoded input of a step, counted from 0, is 0."""
    encoded = network.encoder(pixels)
    present = encoded.expand(network.T, *encoded.shape[1:]).clone()
    present[step] = 0
    return network.walk(present, lambda name, stage, inputs: stage(inputs, network.T))


def with_steps(network: SpikingNetwork, pixels: Tensor, steps: int) -> Tensor:
    """Logits of a network that runs for another number of steps."""
    whole = network.T
    try:
        network.T = network.encoder.steps = steps
        return network(pixels)
    finally:
        network.T = network.encoder.steps = whole
