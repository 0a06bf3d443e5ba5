"""Folding of norms and absorption of scales, as arithmetic on weights.

W is ``[out, in, ...]`` (convolution or linear), b is ``[out]``; everything is exact in real arithmetic.
"""

from __future__ import annotations

from torch import Tensor


def per_output(scale: Tensor, weight: Tensor) -> Tensor:
    """Shape a ``[out]`` (or scalar) factor so that it multiplies W ``[out, in, ...]`` per output channel."""
    return scale.reshape(-1, *[1] * (weight.dim() - 1))


def per_input(scale: Tensor, weight: Tensor, groups: int = 1) -> Tensor:
    """Shape a ``[C]`` (or scalar) factor of the source's channels so that it multiplies W ``[out, in, ...]`` per input.

    A linear W on a flattened map has in = C·H·W, the positions of a channel lying together.
    """
    if scale.numel() == 1:
        return scale.reshape(())
    outputs, inputs = weight.shape[0], weight.shape[1] * groups
    each = scale.reshape(-1).repeat_interleave(inputs // scale.numel())
    rows = each.view(groups, -1).repeat_interleave(outputs // groups, 0)
    return rows.view(outputs, -1, *[1] * (weight.dim() - 2))


def fold_norm(
    weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor, eps: float, gamma: Tensor, beta: Tensor
) -> tuple[Tensor, Tensor]:
    """Fold γ·(W x + b − μ)/√(σ² + ε) + β into one affine map. Eq. (F1): a = γ/√(σ² + ε), W' = aW, b' = a(b − μ) + β."""
    a = gamma / (var + eps).sqrt()
    return weight * per_output(a, weight), a * (bias - mean) + beta


def absorb_scale(weight: Tensor, bias: Tensor, source: Tensor, delta: Tensor, groups: int = 1) -> tuple[Tensor, Tensor]:
    """Absorb the scale Δ of a layer and the emission scale c of its source. Eq. (F2): W' = c·W/Δ, b' = b/Δ.

    Args:
        weight: W ``[out, in, ...]``.
        bias: b ``[out]``.
        source: c, what one unit of the source's integer output is worth: a scalar, or one per source channel.
        delta: Δ, a scalar or one per output channel.
        groups: Of a convolution.

    Returns:
        (W', b').
    """
    delta = delta.reshape(-1)
    return weight * per_input(source, weight, groups) / per_output(delta, weight), bias / delta
