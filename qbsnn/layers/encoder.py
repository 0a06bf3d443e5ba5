"""The input layer: pixels in [0, 1], or frames of events, to a sequence over time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from qbsnn import checks
from qbsnn.errors import ArgumentError, DataError
from qbsnn.functional.arguments import real, widened
from qbsnn.functional.encode import direct, latency, rate

EVAL_SEED, EPOCHS = 20260424, 2**24
SEEDS = 2**63 // EPOCHS
EVENT_MAX = 255.0
"""The largest value of a frame of events; data sets clip their counts there."""


class Encoder(nn.Module):
    """Turns pixels ``[B, C, H, W]`` in [0, 1], or frames ``[B, T, C, H, W]``, into input ``[T or 1, B, C, H, W]``.

    The spikes of rate coding are a function of the sample and, in training, of seed and epoch, whatever the batch.

    Args:
        coding: ``direct`` (normalised with mean and std per channel; one step that stands for all T), ``rate``
            (Bernoulli with the pixel as probability), ``latency`` (time to first spike) or ``events`` (frames of event
            counts, one per step, as they are).
        steps: T.
        mean: Of the pixels, per channel: finite.
        std: Of the pixels, per channel, or one for all: above 0.
        seed: Of rate coding in training, 0 to 2^39 − 1.

    Attributes:
        epoch: Of rate coding in training: whoever trains says when a sample is to meet other noise.

    Raises:
        ArgumentError: A setting is out of bounds; pixels or frames are no tensor, integers, or of another type than the
            weights with as many bits or more.
        DataError: Pixels or frames have other dimensions than these.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, coding: str, steps: int, mean: Sequence[float], std: Sequence[float], seed: int = 0) -> None:
        super().__init__()
        self.coding = checks.choice("encoding", coding, ("direct", "rate", "latency", "events"))
        self.steps, self.epoch = checks.integer("steps", steps, 1), 0
        self.seed = checks.integer("seed", seed, 0, SEEDS - 1)
        self.register_buffer("mean", torch.tensor(_per_channel("mean", mean)).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(_per_channel("std", std, 0)).view(-1, 1, 1))
        if len(self.std) not in (1, len(self.mean)):
            raise ArgumentError(f"std must have one number, or {len(self.mean)} as mean has, got {len(self.std)}")

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode one batch."""
        events = self.coding == "events"
        name, right = ("frames", "[B, T, C, H, W]") if events else ("pixels", "[B, C, H, W]")
        scaled = "call .float() first" if events else "bytes become pixels in [0, 1] by .float() / 255"
        pixels = widened(name, real(name, pixels, right, scaled), self.mean.dtype)
        channels = len(self.mean)
        if not events and (pixels.dim() != 4 or channels not in (1, pixels.shape[1])):
            right = f"C = {channels}" if channels > 1 else "C"
            raise DataError(
                f"pixels must be [B, {right}, H, W], got {list(pixels.shape)}; time is made here, T = {self.steps}"
            )
        if self.coding == "direct":
            return direct((pixels - self.mean) / self.std)
        if events:
            if pixels.dim() != 5 or pixels.shape[1] != self.steps:
                raise DataError(f"frames must be [B, T = {self.steps}, C, H, W], got {list(pixels.shape)}")
            return pixels.transpose(0, 1)
        if self.coding == "latency":
            return latency(pixels, self.steps)
        # No two runs share an epoch's noise: there are fewer epochs than EPOCHS.
        return rate(pixels, self.steps, self.seed * EPOCHS + self.epoch if self.training else EVAL_SEED)

    @property
    def bound(self) -> float:
        """The largest value of a pixel, or of a frame; the smallest is 0."""
        return EVENT_MAX if self.coding == "events" else 1.0

    def bounds(self) -> tuple[Tensor, Tensor]:
        """Smallest and largest value of the output per channel, each ``[C]``."""
        if self.coding == "direct":
            return ((0 - self.mean) / self.std).flatten(), ((1 - self.mean) / self.std).flatten()
        return torch.zeros_like(self.mean).flatten(), torch.full_like(self.mean, self.bound).flatten()


def _per_channel(name: str, values: Sequence[float], above: float = -math.inf) -> list[float]:
    """Finite numbers, one per channel."""
    given = values.tolist() if isinstance(values, Tensor) else values
    if not isinstance(given, Iterable) or isinstance(given, str) or not (listed := list(given)):
        raise ArgumentError(f"{name} must be a list with a number for each channel, got {values!r}")
    return [checks.number(name, value, above, open_low=True) for value in listed]
