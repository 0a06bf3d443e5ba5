"""Parameter groups."""

from __future__ import annotations

from typing import Any

from torch import nn


def parameter_groups(network: nn.Module) -> list[dict[str, Any]]:
    """Two groups: weights of layers, with the optimiser's weight decay; and Δ, norms and biases, without.

    Weights of layers are the parameters of two or more dimensions.
    """
    decayed = [p for p in network.parameters() if p.requires_grad and p.dim() >= 2]
    free = [p for p in network.parameters() if p.requires_grad and p.dim() < 2]
    return [{"params": decayed}, {"params": free, "weight_decay": 0.0}]
