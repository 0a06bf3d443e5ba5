"""What quantisation gives: the integer network and the analog first layer in front of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qbsnn.deploy.convert.settings import DeploySettings
from qbsnn.deploy.convert.thresholds import Plan
from qbsnn.deploy.format.network import IntegerNetwork
from qbsnn.errors import DataError, DeployError
from qbsnn.functional.exact import full_float32
from qbsnn.models.network import SpikingNetwork

INT32_MAX = 2**31 - 1


@dataclass(frozen=True)
class Quantized:
    """A quantised network: the integer part, and the analog first layer that feeds it.

    Attributes:
        net: What every engine runs.
        front: The absorbed network, whose encoder and first stage give the input current.
        current_bounds: The smallest and the largest J that an input in the encoder's bounds can cause, per channel
            (int64 ``[O]``).
        clipped: Per stage name, and for the ``readout``, the number of weights that lie outside ±q_max on their grid (a
            first layer in floating point has none).
        settings: How the network was converted.
        plan: The grid that it was rounded to.
    """

    net: IntegerNetwork
    front: SpikingNetwork
    current_bounds: tuple[NDArray[np.int64], NDArray[np.int64]]
    clipped: dict[str, int]
    settings: DeploySettings
    plan: Plan

    def current(self, pixels: Tensor) -> NDArray[np.int32]:
        """J = round_half_even(θ·I) of the first layer, ``[T or 1, B, ...]`` for one batch of the encoder's inputs.

        Raises:
            ArgumentError: As of the encoder.
            DataError: Pixels have other dimensions than the network was built for, or there is no sample.
            DeployError: A value is no number or lies outside the encoder's bounds.
        """
        return self.current_of(self.encoded(pixels))

    def encoded(self, pixels: Tensor) -> Tensor:
        """What the encoder makes of pixels, whose values are checked here: rate and latency coding hide bad ones."""
        encoder = self.front.encoder
        encoded: Tensor = encoder(pixels)
        name = "frames" if encoder.coding == "events" else "pixels"
        if not pixels.numel():
            raise DataError(f"{name} must hold a sample at least, got {list(pixels.shape)}")
        low, high = (float(end) for end in pixels.aminmax())
        if not (low >= 0 and high <= encoder.bound):
            raise DeployError(f"{name} must be numbers in [0, {encoder.bound:g}], got {low:g} to {high:g}")
        return encoded

    def current_of(self, encoded: Tensor) -> NDArray[np.int32]:
        """The same for an input that is encoded already."""
        return self.current_tensor(encoded).cpu().numpy()

    @full_float32()  # the bounds of J are those of float32
    def current_tensor(self, encoded: Tensor) -> Tensor:
        """The same, where it was computed."""
        if encoded.shape[2:] != self.front.in_shape:
            raise DataError(
                f"pixels must end with in_shape = {list(self.front.in_shape)}, for which the network was built, got "
                f"{list(encoded.shape[2:])}"
            )
        first = self.net.stages[0]
        stage = next(stage for _, stage in self.front.named_stages())
        current = stage.parts[0](encoded)
        theta = torch.from_numpy(first.theta.astype(np.float64)).to(current.device)
        scaled = (current.double() * theta.view(-1, *[1] * (current.dim() - 3))).round()
        if not bool((scaled.abs() <= INT32_MAX).all()):
            raise DeployError(
                f"{first.name}: input current leaves the int32 range or is not a number; the inputs must be numbers in "
                f"[0, {self.front.encoder.bound:g}]"
            )
        return scaled.to(torch.int32)
