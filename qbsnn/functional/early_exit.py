"""Stopping at the step where a decision is safe.

After step t the decision is that of the scores of that step: the mean of the logits so far (:func:`means`), or their
sum, in an integer network Z_t. Its margin is the largest entry minus the second largest. A sample leaves at the
first step whose margin is at least m, and at the last step in any case. Of equal entries the lowest index decides.
"""

from __future__ import annotations

from itertools import accumulate

import torch
from torch import Tensor

CANDIDATES = 256
MOST = 1_000_000  # margins whose quantiles are taken
ROUNDING = 1e-12  # relative: loss·samples may be a whole number but for its rounding


def running_sum(x: Tensor) -> Tensor:
    """Sums up to each step, ``[T, ...]``. ``cumsum`` of floating-point numbers is not deterministic on a GPU.

    >>> running_sum(torch.tensor([1.0, 2.0, 4.0])).tolist()
    [1.0, 3.0, 7.0]
    """
    return torch.stack(list(accumulate(x.unbind(0))))


def means(logits: Tensor) -> Tensor:
    """The mean of the logits ``[T, B, classes]`` up to every step, of the same shape."""
    steps = torch.arange(1, len(logits) + 1, device=logits.device, dtype=logits.dtype)
    return running_sum(logits) / steps[:, None, None]


def leave(scores: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    """When each sample leaves, and with which class.

    Args:
        scores: after every step, ``[T, B, classes]``, at least two classes.
        margin: m.

    Returns:
        Steps taken, int64 ``[B]`` from 1 to T, and classes, int64 ``[B]``.

    >>> scores = torch.tensor([[[3, 0], [1, 0]], [[3, 1], [1, 3]]])
    >>> [found.tolist() for found in leave(scores, 2)]
    [[1, 2], [0, 1]]
    """
    return _first_safe(*_decisions(scores), margin)


def choose_margin(scores: Tensor, labels: Tensor, loss: float) -> float:
    """The smallest margin such that neither it nor a larger one costs more than ``loss`` of the accuracy of all steps.

    The smaller the margin, the fewer the steps. A margin that keeps the accuracy by chance, below one that does not, is
    not taken.

    Args:
        scores: ``[T, B, classes]`` of samples that nothing else was chosen on, such as the validation samples.
        labels: int64 ``[B]``.
        loss: share of the samples, such as 0.002.

    Returns:
        One of the margins that occur (of their quantiles, where there are many), or infinity where none of them saves
        a step at that price.
    """
    margins, decided = _decisions(scores)
    seen = margins.flatten().double()
    places = torch.linspace(0, 1, CANDIDATES, dtype=torch.float64, device=seen.device)
    whole = int((decided[-1] == labels).sum())
    allowed = loss * len(labels) * (1 + ROUNDING)
    best = float("inf")
    tried = torch.quantile(seen[:: len(seen) // MOST + 1], places, interpolation="higher").unique()  # ascending
    for margin in tried.flip(0).tolist():
        steps, classes = _first_safe(margins, decided, margin)
        if whole - int((classes == labels).sum()) > allowed:
            break
        if bool((steps < len(scores)).any()):
            best = margin
    return best


def _decisions(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Margins and classes after every step, both ``[T, B]``."""
    top = scores.topk(2, dim=2).values
    return top[..., 0] - top[..., 1], scores.argmax(2)


def _first_safe(margins: Tensor, classes: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    safe = margins >= margin
    safe[-1] = True
    first = safe.int().argmax(0)
    return first + 1, classes.gather(0, first[None])[0]
