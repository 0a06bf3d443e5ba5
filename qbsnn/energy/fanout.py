"""Exact fan-out: how many products one input position takes part in. Padding, stride and dilation count."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qbsnn.deploy.convert.folding import pair
from qbsnn.deploy.format.operations import axis_fanout
from qbsnn.errors import EnergyError


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
        _axis(size, k, s, p, d, (size + 2 * p - d * (k - 1) - 1) // s + 1)
        for size, k, s, p, d in zip(positions, kernel, stride, padding, dilation, strict=True)
    )
    return rows[:, None] * columns * (layer.out_channels // layer.groups)


def pool_fanout(pool: nn.MaxPool2d | nn.AvgPool2d, size: tuple[int, ...], outputs: tuple[int, ...]) -> Tensor:
    """Of each position ``[H, W]`` before a pool, how many of its windows read it; ``outputs`` is the size after it."""
    kernel, stride, padding = (pair(value) for value in (pool.kernel_size, pool.stride, pool.padding))
    dilation = pair(pool.dilation) if isinstance(pool, nn.MaxPool2d) else (1, 1)
    rows, columns = (_axis(*axis) for axis in zip(size, kernel, stride, padding, dilation, outputs, strict=True))
    return rows[:, None] * columns


def _axis(*axis: int) -> Tensor:
    return torch.from_numpy(axis_fanout(*axis))
