"""The margin at which an integer network leaves early, chosen on validation images with the network itself."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from qbsnn.deploy.convert.quantized import Quantized
from qbsnn.deploy.engines.int8_engine import Int8Engine
from qbsnn.deploy.engines.torch_engine import Overflows
from qbsnn.errors import ArgumentError, DeployError
from qbsnn.functional.early_exit import choose_margin

log = logging.getLogger(__name__)


@torch.no_grad()
def with_exit(quantized: Quantized, batches: Iterable[tuple[Tensor, Tensor]], loss: float) -> Quantized:
    """The network with the margin of :func:`~qbsnn.functional.early_exit.choose_margin` on its own sums Z.

    Args:
        quantized: the network.
        batches: pixels ``[B, C, H, W]`` and labels ``[B]`` of validation images.
        loss: accuracy that may be given up on them, as a share.

    Returns:
        The same network without a margin where none saves a step.

    Raises:
        ArgumentError: there are no images.
        DeployError: the network has a single class.
    """
    if (classes := len(quantized.net.readout.bias)) < 2:
        raise DeployError(f"network: an exit margin needs two classes, got {classes}")
    front = quantized.front
    engine, device = Int8Engine(quantized, next(front.parameters()).device), next(front.parameters()).device
    scores, labels = [], []
    for pixels, truth in batches:
        if not len(pixels):
            continue
        current = quantized.current_tensor(front.encoder(pixels.to(device)))
        scores.append(engine.running(current, Overflows()).cpu())
        labels.append(truth.cpu())
    if not labels:
        raise ArgumentError("batches must hold an image at least, got none")
    margin = choose_margin(torch.cat(scores, 1), torch.cat(labels), loss)
    if not math.isfinite(margin):
        log.info("no early exit of the integer network: no margin saves a step at a loss of at most %g", loss)
        return quantized
    return replace(quantized, net=replace(quantized.net, exit_margin=int(margin)))
