"""What a tensor of bursts tells about the layer that emitted it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class BurstStatistics(NamedTuple):
    """Scalars of a batch of bursts ``[T, B, ...]``, and which neurons fired.

    Attributes:
        mean: Mean magnitude per neuron and step.
        saturation: Share of neuron-steps at ±s_max.
        bits: Entropy of the burst sizes in bits, which is what a neuron-step can tell at most.
        variation: See :func:`temporal_variation`.
        fired: Bool ``[...]``, whether each neuron fired in any sample and step.
        counts: Int64 ``[2·s_max + 1]``, how often each burst from −s_max to s_max occurred.
    """

    mean: Tensor
    saturation: Tensor
    bits: Tensor
    variation: Tensor
    fired: Tensor
    counts: Tensor


def burst_statistics(bursts: Tensor, s_max: int) -> BurstStatistics:
    """Statistics of integer bursts ``[T, B, ...]`` in −s_max..s_max, any dtype.

    >>> found = burst_statistics(torch.tensor([[[0.0, 1.0]], [[2.0, 1.0]]]), s_max=2)
    >>> [value.item() for value in found[:4]], found.fired.tolist(), found.counts.tolist()
    ([1.0, 0.25, 1.5, 1.0], [True, True], [0, 0, 1, 2, 1])
    """
    s = bursts.float()
    size = s.abs()
    counts = torch.bincount((s + s_max).flatten().to(torch.int64), minlength=2 * s_max + 1)
    share = counts / counts.sum()
    return BurstStatistics(
        mean=size.mean(),
        saturation=(size >= s_max).float().mean(),
        bits=-torch.xlogy(share, share).sum() / torch.log(torch.tensor(2.0, device=s.device)),
        variation=temporal_variation(s),
        fired=(size > 0).flatten(0, 1).any(0),
        counts=counts,
    )


def temporal_variation(bursts: Tensor) -> Tensor:
    """How much a spike pattern changes from step to step: mean |s_t − s_{t−1}| over mean |s|.

    Args:
        bursts: ``[T, B, ...]``.

    Returns:
        A scalar: 0 for a single step and for a pattern that repeats itself, 2 for one in which no neuron fires twice
        in a row.

    >>> [temporal_variation(torch.tensor([[[2.0]], [[b]], [[2.0]], [[b]]])).item() for b in (2.0, 0.0)]
    [0.0, 2.0]
    """
    if len(bursts) == 1:
        return bursts.new_zeros(())
    size = bursts.abs().mean()
    return (bursts[1:] - bursts[:-1]).abs().mean() / size.clamp(min=torch.finfo(bursts.dtype).tiny)
