"""The input layer: pixels in [0, 1] to a sequence over time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from qbsnn import checks
from qbsnn.functional.encode import direct, latency, rate

EVAL_SEED = 20260424


class Encoder(nn.Module):
    """Turns pixels ``[B, C, H, W]`` in [0, 1] into network input ``[T or 1, B, C, H, W]``.

    coding: ``direct`` (normalised with mean and std per channel; one step that stands for all T), ``rate`` (Bernoulli
    with the pixel as probability, from a generator of its own) or ``latency`` (time to first spike). In evaluation mode
    rate coding starts from one fixed seed in every call, so that two calls see the same spikes.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, coding: str, steps: int, mean: Sequence[float], std: Sequence[float], seed: int = 0) -> None:
        super().__init__()
        self.coding = checks.choice("model.encoding", coding, ("direct", "rate", "latency"))
        self.steps, self.seed, self.draws = steps, seed, 0
        self.register_buffer("mean", torch.tensor(list(mean)).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(list(std)).view(-1, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode one batch."""
        if self.coding == "direct":
            return direct((pixels - self.mean) / self.std)
        if self.coding == "latency":
            return latency(pixels, self.steps)
        # Training call n draws from seed + n: a fresh sequence each time that needs no state beyond a counter.
        self.draws += self.training
        generator = torch.Generator(device=pixels.device)
        generator.manual_seed(self.seed + self.draws if self.training else EVAL_SEED)
        return rate(pixels, self.steps, generator)

    def bounds(self) -> tuple[Tensor, Tensor]:
        """Smallest and largest value of the output per channel, each ``[C]``."""
        if self.coding == "direct":
            return ((0 - self.mean) / self.std).flatten(), ((1 - self.mean) / self.std).flatten()
        return torch.zeros_like(self.mean).flatten(), torch.ones_like(self.mean).flatten()
