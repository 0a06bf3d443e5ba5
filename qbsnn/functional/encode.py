"""Encodings: pixels in [0, 1], ``[B, ...]``, to network input over time, ``[T, B, ...]``."""

from __future__ import annotations

import torch
from torch import Tensor


def direct(pixels: Tensor) -> Tensor:
    """The analog image, once: ``[1, B, ...]``. The first weight layer sees it once and its current is repeated."""
    return pixels.unsqueeze(0)


def rate(pixels: Tensor, steps: int, generator: torch.Generator) -> Tensor:
    """Bernoulli spikes with the pixel as probability, independent over ``steps``: ``[steps, B, ...]`` of 0 and 1.

    All draws come from ``generator``.

    >>> rate(torch.tensor([[0.0, 1.0]]), 3, torch.Generator().manual_seed(0)).tolist()
    [[[0.0, 1.0]], [[0.0, 1.0]], [[0.0, 1.0]]]
    """
    p = pixels.unsqueeze(0).expand(steps, *pixels.shape)
    # Uniform draws lie in [0, 1), so a pixel of 0 never fires and a pixel of 1 always does.
    uniform = torch.rand(p.shape, generator=generator, device=generator.device, dtype=torch.float32)
    return (uniform.to(p.device) < p).to(pixels.dtype)


def latency(pixels: Tensor, steps: int) -> Tensor:
    """Time to first spike: one spike at t = round((1 − p)·(steps − 1)), none for a pixel of 0: ``[steps, B, ...]``.

    >>> latency(torch.tensor([[1.0, 0.5, 0.01, 0.0]]), 3)[:, 0].tolist()
    [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]
    """
    when = ((1 - pixels) * (steps - 1)).round()
    t = torch.arange(steps, device=pixels.device, dtype=pixels.dtype).view(-1, *[1] * pixels.dim())
    return ((t == when) & (pixels > 0)).to(pixels.dtype)


def levels(bursts: Tensor, s_max: int) -> Tensor:
    """Multilevel one-hot code of bursts 0..s_max, ``[...]`` to ``[..., s_max + 1]`` of 0 and 1 in the same dtype.

    >>> levels(torch.tensor([0.0, 2.0]), s_max=2).tolist()
    [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    """
    return (bursts.unsqueeze(-1) == torch.arange(s_max + 1, device=bursts.device)).to(bursts.dtype)


def from_levels(code: Tensor) -> Tensor:
    """The bursts of a one-hot code, ``[..., s_max + 1]`` to ``[...]``: the inverse of :func:`levels`.

    >>> from_levels(levels(torch.tensor([3.0, 0.0, 1.0]), s_max=3)).tolist()
    [3.0, 0.0, 1.0]
    """
    return code @ torch.arange(code.shape[-1], device=code.device, dtype=code.dtype)
