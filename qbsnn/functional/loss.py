"""Losses on logits over time, ``[T, B, classes]``, and labels ``[B]``, or shares ``[B, classes]`` of mixed samples."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def mean_cross_entropy(logits: Tensor, target: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of the time-mean logits. A scalar."""
    return F.cross_entropy(logits.mean(0), target, label_smoothing=label_smoothing)


def tet(logits: Tensor, target: Tensor, lam: float = 0.05, phi: float = 1.0, label_smoothing: float = 0.0) -> Tensor:
    """Temporal efficient training (Deng et al., arXiv 2202.11946, eqs. 9 to 12). A scalar.

    (1 − λ)·mean_t CE(logits_t, y) + λ·mean_t MSE(logits_t, φ).
    """
    steps = logits.shape[0]
    each = F.cross_entropy(
        logits.flatten(0, 1), target.repeat(steps, *[1] * (target.dim() - 1)), label_smoothing=label_smoothing
    )
    return (1 - lam) * each + lam * F.mse_loss(logits, torch.full_like(logits, phi))
