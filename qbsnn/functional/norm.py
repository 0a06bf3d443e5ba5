"""Batch norm as statistics and a map per channel, so that the map can run inside the kernel of the neuron behind it.

    (B1)  μ, σ² over all but the channels of y, or the running ones;  r = 1/√(σ² + ε)
    (B2)  a = γ·r,  b = β − μ·a,  z = a·y + b

Source: Ioffe & Szegedy, arXiv 1502.03167. The map is one product and one sum, rounded each, in every path.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from qbsnn.functional.scan import HALF


class Normal(NamedTuple):
    """What normalises one tensor.

    Attributes:
        gamma: γ ``[C]``, which may want a gradient.
        beta: β ``[C]``, which may want a gradient.
        mean: μ ``[C]``.
        rstd: r ``[C]``.
        eps: ε.
        batch: Whether μ and r were measured on that tensor.
    """

    gamma: Tensor
    beta: Tensor
    mean: Tensor
    rstd: Tensor
    eps: float
    batch: bool

    def map(self) -> tuple[Tensor, Tensor]:
        """a and b of equation (B2), without their history."""
        with torch.no_grad():
            a = self.gamma * self.rstd
            return a, self.beta - self.mean * a


def batch_statistics(
    y: Tensor, running_mean: Tensor | None, running_var: Tensor | None, momentum: float
) -> tuple[Tensor, Tensor]:
    """μ and σ² of y ``[N, C, ...]``, each ``[C]``; the running ones move towards them by the share ``momentum``."""
    return torch.ops.aten.batch_norm_update_stats(y.detach(), running_mean, running_var, momentum)


def affine(y: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """z of equation (B2) in the type of y; a and b broadcast to y. Half precision is computed in float32.

    >>> affine(torch.tensor([[1.0, 2.0]]), torch.tensor([2.0, 3.0]), torch.tensor([0.5, -1.0])).tolist()
    [[2.5, 5.0]]
    """
    wide = y.float() if y.dtype in HALF else y
    return (wide * a + b).to(y.dtype)


def affine_backward(
    grad: Tensor, y: Tensor, norm: Normal, needs: tuple[bool, bool, bool] = (True, True, True)
) -> tuple[Tensor | None, ...]:
    """Gradients of y, γ and β for that of z, through the statistics where ``norm.batch``.

    Args:
        grad: The gradient of z ``[N, C, ...]``.
        y: What was normalised, ``[N, C, ...]``.
        norm: What normalised it.
        needs: Which of the three are wanted; the others are ``None``.
    """
    grad, y = _strided(grad), _strided(y)
    return torch.ops.aten.native_batch_norm_backward(
        grad, y, norm.gamma, norm.mean, _variance(norm), norm.mean, norm.rstd, norm.batch, norm.eps, list(needs)
    )


def _strided(x: Tensor) -> Tensor:
    """x with the strides of channels-last memory; views leave others where a size is 1, and torch misreads those."""
    if x.dim() != 4 or x.is_contiguous() or not x.is_contiguous(memory_format=torch.channels_last):
        return x
    _, c, h, w = x.shape
    right = (c * h * w, 1, c * w, c)
    return x if x.stride() == right else x.as_strided(x.shape, right)


def _variance(norm: Normal) -> Tensor:
    return norm.rstd.pow(-2) - norm.eps


class _Affine(torch.autograd.Function):
    """z of y; keeps y alone."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, gamma: Tensor, beta: Tensor, norm: Normal) -> Tensor:
        ctx.save_for_backward(y, gamma, beta, norm.mean, norm.rstd)
        ctx.eps, ctx.batch = norm.eps, norm.batch
        a, b = norm.map()
        shape = (-1, *[1] * (y.dim() - 2))
        return affine(y, a.view(shape), b.view(shape))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        y, gamma, beta, mean, rstd = ctx.saved_tensors
        norm = Normal(gamma, beta, mean, rstd, ctx.eps, ctx.batch)
        return *affine_backward(grad, y, norm, ctx.needs_input_grad[:3]), None


def normalise(y: Tensor, norm: Normal) -> Tensor:
    """z ``[N, C, ...]`` of equations (B1) and (B2), differentiable in y, γ and β."""
    return _Affine.apply(y, norm.gamma, norm.beta, norm)
