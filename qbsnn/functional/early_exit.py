"""Stopping at the step where a decision is safe, for decisions by the mean over time.

After step t the decision is that of Z_t = Σ_{τ≤t} logits_τ / t; its margin is the largest entry minus the second
largest. A sample leaves at the first step whose margin is at least m, and at the last step in any case.
"""

from __future__ import annotations

from itertools import accumulate

import torch
from torch import Tensor

CANDIDATES = 256
MOST = 1_000_000  # margins whose quantiles are taken


def running_sum(x: Tensor) -> Tensor:
    """Sums up to each step, ``[T, ...]``. ``cumsum`` of floating-point numbers is not deterministic on a GPU.

    >>> running_sum(torch.tensor([1.0, 2.0, 4.0])).tolist()
    [1.0, 3.0, 7.0]
    """
    return torch.stack(list(accumulate(x.unbind(0))))


def decisions(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Margins and classes of the decision after every step, both ``[T, B]``, from logits ``[T, B, classes]``."""
    steps = torch.arange(1, len(logits) + 1, device=logits.device, dtype=logits.dtype)
    means = running_sum(logits) / steps[:, None, None]
    top = means.topk(2, dim=2).values
    return top[..., 0] - top[..., 1], means.argmax(2)


def leave(logits: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    """When each sample leaves, and with which class.

    Args:
        logits: of every step, ``[T, B, classes]``, at least two classes.
        margin: m.

    Returns:
        Steps taken, int64 ``[B]`` from 1 to T, and classes, int64 ``[B]``.

    >>> logits = torch.tensor([[[3.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [0.0, 3.0]]])
    >>> [found.tolist() for found in leave(logits, 2.0)]
    [[1, 2], [0, 1]]
    """
    return _first_safe(*decisions(logits), margin)


def choose_margin(logits: Tensor, labels: Tensor, loss: float) -> float:
    """The margin with the fewest steps on these samples that costs at most ``loss`` of the accuracy of all steps.

    Args:
        logits: ``[T, B, classes]`` of samples that nothing else was chosen on, such as the validation samples.
        labels: int64 ``[B]``.
        loss: share of the samples, such as 0.002.

    Returns:
        One of the margins that occur (their quantiles, where there are many); infinity where all steps are needed.
    """
    margins, decided = decisions(logits)
    seen = margins.flatten().double()
    places = torch.linspace(0, 1, CANDIDATES, dtype=torch.float64, device=seen.device)
    whole = float((decided[-1] == labels).double().mean())
    best, fewest = float("inf"), float(len(logits))
    for margin in torch.quantile(seen[:: len(seen) // MOST + 1], places).tolist():
        steps, classes = _first_safe(margins, decided, margin)
        mean = float(steps.double().mean())
        if mean < fewest and float((classes == labels).double().mean()) >= whole - loss:
            best, fewest = margin, mean
    return best


def _first_safe(margins: Tensor, classes: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    safe = margins >= margin
    safe[-1] = True
    first = safe.int().argmax(0)
    return first + 1, classes.gather(0, first[None])[0]
