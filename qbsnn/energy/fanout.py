"""Exact fan-out: how many products one input position takes part in. Padding, stride and dilation count."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qbsnn.deploy.convert.folding import pair
from qbsnn.errors import EnergyError


def axis_fanout(size: int, kernel: int, stride: int, padding: int, dilation: int, outputs: int) -> Tensor:
    """Of each of ``size`` positions along one axis, how many (output, tap) pairs read it: int64 ``[size]``.

    Output o reads the positions o·stride − padding + k·dilation, k = 0..kernel − 1; those outside are padding.

    >>> axis_fanout(4, kernel=3, stride=1, padding=1, dilation=1, outputs=4).tolist()
    [2, 3, 3, 2]
    >>> axis_fanout(5, kernel=3, stride=2, padding=0, dilation=1, outputs=2).tolist()
    [1, 1, 2, 1, 1]
    """
    read = torch.arange(outputs)[:, None] * stride - padding + torch.arange(kernel) * dilation
    return torch.bincount(read[(read >= 0) & (read < size)], minlength=size)


def fanout(name: str, layer: nn.Module | None, shape: tuple[int, ...]) -> Tensor:
    """Synapses that one element of a source of ``shape`` (``[C, H, W]`` or ``[F]``) drives, the same in every channel.

    Returns int64, ``[H, W]`` for a map and a scalar for features. layer: a convolution, a linear layer (a map is
    flattened: all its elements have the same fan-out), or ``None`` for an identity shortcut, which has a fan-out of 1.
    Raises EnergyError for another layer and for padding other than zeros.
    """
    positions = shape[1:]
    if layer is None:
        return torch.ones(positions, dtype=torch.int64)
    if isinstance(layer, nn.Linear):
        return torch.full(positions, layer.out_features)
    if not isinstance(layer, nn.Conv2d) or layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        raise EnergyError(f"{name}: operations are counted for linear layers and zero-padded convolutions, got {layer}")
    kernel, stride, padding, dilation = (
        pair(value) for value in (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    )
    rows, columns = (
        axis_fanout(size, k, s, p, d, (size + 2 * p - d * (k - 1) - 1) // s + 1)
        for size, k, s, p, d in zip(positions, kernel, stride, padding, dilation, strict=True)
    )
    return rows[:, None] * columns * (layer.out_channels // layer.groups)


def pool_fanout(pool: nn.MaxPool2d | nn.AvgPool2d, size: tuple[int, ...], outputs: tuple[int, ...]) -> Tensor:
    """Of each position ``[H, W]`` before a pool, how many of its windows read it; ``outputs`` is the size after it."""
    kernel, stride, padding = (pair(value) for value in (pool.kernel_size, pool.stride, pool.padding))
    dilation = pair(pool.dilation) if isinstance(pool, nn.MaxPool2d) else (1, 1)
    rows, columns = (axis_fanout(*axis) for axis in zip(size, kernel, stride, padding, dilation, outputs, strict=True))
    return rows[:, None] * columns
