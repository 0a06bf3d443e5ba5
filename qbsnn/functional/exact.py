"""Integers in floating-point arithmetic."""

from __future__ import annotations

import torch

from qbsnn.errors import DeployError


def exact_float(largest: int, device: torch.device) -> torch.dtype:
    """The floating-point format in which sums up to ``largest`` are exact in any order.

    Raises:
        DeployError: No format is wide enough.
    """
    if largest < 2**24 and device.type == "cpu":
        return torch.float32  # a GPU may use TF32 or Winograd here, which are not exact
    if largest < 2**53:
        return torch.float64
    raise DeployError(f"an accumulation of up to {largest} is exact in no floating-point format")
