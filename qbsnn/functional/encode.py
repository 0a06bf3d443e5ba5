"""Encodings: pixels in [0, 1], ``[B, ...]``, to network input over time, ``[T, B, ...]``."""

from __future__ import annotations

import torch
from torch import Tensor


def direct(pixels: Tensor) -> Tensor:
    """The analog image, once: ``[1, B, ...]``. The first weight layer sees it once and its current is repeated."""
    return pixels.unsqueeze(0)


def rate(pixels: Tensor, steps: int, seed: int) -> Tensor:
    """Bernoulli spikes with the pixel as probability, independent over ``steps``.

    The noise of a sample is a function of (seed, the sample's pixels, step, position) and of no generator: a sample
    meets the same noise in whatever batch it is and on whatever device.

    Args:
        pixels: ``[B, ...]`` in [0, 1].
        steps: T.
        seed: Another one gives other noise.

    Returns:
        ``[T, B, ...]`` of 0 and 1 in the type of the pixels.

    >>> rate(torch.tensor([[0.0, 1.0]]), 3, seed=0).tolist()
    [[[0.0, 1.0]], [[0.0, 1.0]], [[0.0, 1.0]]]
    """
    flat = pixels.float().flatten(1).contiguous()
    where = _mixed(torch.arange(steps * flat.shape[1], device=pixels.device)).view(steps, 1, -1)
    # The sum over hashes of (value, position) names a sample; a few samples would have to be sought to collide.
    sample = _mixed(flat.view(torch.int32).long() ^ where[0]).sum(1)
    noise = _mixed(_mixed(sample + seed).unsqueeze(1) ^ where)
    # 24 of the bits make a uniform number in [0, 1), so a pixel of 0 never fires and a pixel of 1 always does.
    uniform = ((noise >> 40) & (2**24 - 1)).float() / 2**24
    return (uniform < flat).to(pixels.dtype).view(steps, *pixels.shape)


def _mixed(x: Tensor) -> Tensor:
    """One step of splitmix64 (Steele, Lea, Flood 2014) from each state, int64 standing for its 64 bits.

    >>> hex(_mixed(torch.tensor([0])).item() % 2**64)
    '0xe220a8397b1dcdaf'
    """
    x = x + (0x9E3779B97F4A7C15 - 2**64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9 - 2**64), (27, 0x94D049BB133111EB - 2**64)):
        x = (x ^ _shifted(x, shift)) * factor
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, n: int) -> Tensor:
    """The shift that fills with zeros."""
    return (x >> n) & (2 ** (64 - n) - 1)


def latency(pixels: Tensor, steps: int) -> Tensor:
    """Time to first spike: one spike at t = round((1 − p)·(steps − 1)), none for a pixel of 0: ``[steps, B, ...]``.

    >>> latency(torch.tensor([[1.0, 0.5, 0.01, 0.0]]), 3)[:, 0].tolist()
    [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]
    """
    when = ((1 - pixels) * (steps - 1)).round()
    t = torch.arange(steps, device=pixels.device, dtype=pixels.dtype).view(-1, *[1] * pixels.dim())
    return ((t == when) & (pixels > 0)).to(pixels.dtype)
