"""Decisions and losses on logits over time, ``[T, B, classes]``.

Labels are classes ``[B]``, or shares ``[B, classes]`` of mixed samples.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from qbsnn import checks

Decision = Callable[[Tensor], Tensor]


def mean_over_time(logits: Tensor) -> Tensor:
    """The mean of all steps, ``[B, classes]``."""
    return logits.mean(0)


def last_step(logits: Tensor) -> Tensor:
    """The last step, ``[B, classes]``."""
    return logits[-1]


def max_over_time(logits: Tensor) -> Tensor:
    """Each class at its best step, ``[B, classes]``."""
    return logits.amax(0)


DECISIONS: dict[str, Decision] = {"mean": mean_over_time, "last": last_step, "max": max_over_time}
"""How the logits of T steps become those that are compared, by the names that settings use."""


def decided_cross_entropy(
    logits: Tensor, target: Tensor, decision: str = "mean", label_smoothing: float = 0.0
) -> Tensor:
    """Cross-entropy of the decided logits, a scalar.

    Args:
        logits: ``[T, B, classes]``.
        target: Classes or shares.
        decision: A key of ``DECISIONS``.
        label_smoothing: Share of a label that is spread over all classes.

    Raises:
        ArgumentError: ``decision`` is no such key.

    >>> logits = torch.tensor([[[4.0, 0.0]], [[0.0, 2.0]]])
    >>> [round(decided_cross_entropy(logits, torch.tensor([1]), name).item(), 4) for name in DECISIONS]
    [1.3133, 0.1269, 2.1269]
    """
    decide = DECISIONS[checks.choice("decision", decision, DECISIONS)]
    return F.cross_entropy(decide(logits), target, label_smoothing=label_smoothing)


def tet(logits: Tensor, target: Tensor, lam: float = 0.05, phi: float = 1.0, label_smoothing: float = 0.0) -> Tensor:
    """Temporal efficient training (Deng et al., arXiv 2202.11946, eqs. 9 to 12), a scalar.

    (1 − λ)·mean_t CE(logits_t, y) + λ·mean_t MSE(logits_t, φ).

    Args:
        logits: ``[T, B, classes]``.
        target: y, classes or shares.
        lam: λ.
        phi: φ.
        label_smoothing: As in :func:`decided_cross_entropy`.
    """
    steps = logits.shape[0]
    each = F.cross_entropy(
        logits.flatten(0, 1), target.repeat(steps, *[1] * (target.dim() - 1)), label_smoothing=label_smoothing
    )
    return (1 - lam) * each + lam * F.mse_loss(logits, torch.full_like(logits, phi))


def soft_targets(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """τ²·KL(softmax(teacher/τ) ‖ softmax(logits/τ)), the mean over the samples (Hinton et al., arXiv 1503.02531).

    The factor keeps the gradient as large as that of the cross-entropy, whatever τ is.

    Args:
        logits: Decided, ``[B, classes]``.
        teacher: Those of the network that is learned from, ``[B, classes]``.
        temperature: τ.

    >>> soft_targets(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 0.0]]), 1.0)  # ln(½ / √(σ(2)·σ(−2)))
    tensor(0.4338)
    """
    wanted = F.log_softmax(teacher / temperature, 1)
    found = F.log_softmax(logits / temperature, 1)
    return temperature**2 * F.kl_div(found, wanted, reduction="batchmean", log_target=True)
