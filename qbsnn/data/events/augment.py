"""Augmentation of events (Tonic's transforms) and of frames, and mixing; all numbers from (seed, epoch, sample)."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from qbsnn import checks
from qbsnn.data.events.events import Events, Sensor
from qbsnn.data.randomness import Purpose, draw, generator, numpy_seeded

Generator = np.random.Generator


class EventAugment:
    """Tonic's transforms of a recording, in this order; each is off at 0.

    drop: share of events that are dropped (``DropEvent``). jitter: standard deviation in pixels of each event's place
    (``SpatialJitter``; what leaves the sensor is dropped). time_jitter_ms: the same for times (``TimeJitter``).
    reverse: probability that time runs backwards and polarities swap (``RandomTimeReversal``).
    """

    def __init__(
        self, sensor: Sensor, seed: int, drop: float, jitter: float, time_jitter_ms: float, reverse: float
    ) -> None:
        from tonic import transforms  # here: it brings librosa and numba, and takes seconds

        self.seed = seed
        steps: list[Callable[[Events], Events]] = []
        if drop:
            steps.append(transforms.DropEvent(p=drop))
        if jitter:
            steps.append(transforms.SpatialJitter(tuple(sensor), jitter**2, jitter**2, clip_outliers=True))
        if time_jitter_ms:
            steps.append(transforms.TimeJitter(time_jitter_ms * 1000, clip_negative=True, sort_timestamps=True))
        if reverse:
            steps.append(transforms.RandomTimeReversal(p=reverse))
        self.transform = transforms.Compose(steps)

    def __call__(self, events: Events, epoch: int, index: int) -> Events:
        """Transform the events ``[N]`` of the sample ``index`` in ``epoch``."""
        with numpy_seeded(int(draw(Purpose.EVENTS, self.seed, epoch, index)[0])):
            return self.transform(events)


class FrameAugment:
    """Neuromorphic augmentation of frames (arXiv 2203.06145): a flip, then one of those that are on, drawn anew.

    All frames of a sample move alike, and counts stay counts (nearest neighbour). flip: mirror left-right, one time in
    two. roll: up to so many pixels in both directions, what leaves comes in on the other side. rotate: up to so many
    degrees. shear: the same, horizontally. cutout: a square of up to so many pixels a side becomes silent.
    """

    def __init__(self, seed: int, flip: bool, roll: int, rotate: float, shear: float, cutout: int) -> None:
        self.seed, self.flip = seed, flip
        moves: tuple[tuple[Any, Callable[[Any, Tensor, Generator], Tensor]], ...] = (
            (roll, _roll),
            (rotate, _rotate),
            (shear, _shear),
            (cutout, _cut),
        )
        self.moves = [partial(move, size) for size, move in moves if size]

    def __call__(self, frames: Tensor, epochs: NDArray[np.int64], indices: NDArray[np.int64]) -> Tensor:
        """Augment ``frames`` ``[B, T, C, H, W]`` of the samples ``(epochs[b], indices[b])``."""
        augmented = []
        for sample, epoch, index in zip(frames, epochs.tolist(), indices.tolist(), strict=True):
            numbers = generator(Purpose.FRAMES, self.seed, epoch, index)
            if self.flip and numbers.random() < 0.5:
                sample = sample.flip(-1)
            if self.moves:
                sample = self.moves[numbers.integers(len(self.moves))](sample, numbers)
            augmented.append(sample)
        return torch.stack(augmented)


def _roll(most: int, x: Tensor, numbers: Generator) -> Tensor:
    return x.roll(numbers.integers(-most, most, 2, endpoint=True).tolist(), (-2, -1))


def _rotate(most: float, x: Tensor, numbers: Generator) -> Tensor:
    return _affine(x, numbers.uniform(-most, most), 0.0)


def _shear(most: float, x: Tensor, numbers: Generator) -> Tensor:
    return _affine(x, 0.0, numbers.uniform(-most, most))


def _affine(x: Tensor, angle: float, shear: float) -> Tensor:
    moved = tv.affine(x.flatten(0, 1), angle, [0, 0], 1.0, [shear, 0.0], interpolation=InterpolationMode.NEAREST)
    return moved.view_as(x)


def _cut(largest: int, x: Tensor, numbers: Generator) -> Tensor:
    side = int(numbers.integers(1, largest, endpoint=True))
    top, left = (int(numbers.integers(0, max(size - side, 0), endpoint=True)) for size in x.shape[-2:])
    x = x.clone()
    x[..., top : top + side, left : left + side] = 0
    return x


class EventMix:
    """Mixes each sample with the one before it in its batch inside a blob of space and time (as arXiv 2205.12054).

    The blob is where a sum of ``GAUSSIANS`` Gaussians over (t, y, x) is largest, its volume a share drawn from
    Beta(alpha, alpha). Labels are shares of the events that each sample contributes.
    """

    GAUSSIANS = 3

    def __init__(self, alpha: float, classes: int, seed: int) -> None:
        self.alpha = checks.number("mix_alpha", alpha, 0, open_low=True)
        self.classes, self.seed = classes, seed

    def __call__(
        self, frames: Tensor, labels: Tensor, epochs: NDArray[np.int64], indices: NDArray[np.int64]
    ) -> tuple[Tensor, Tensor]:
        """``frames`` ``[B, T, C, H, W]`` and ``labels`` int64 ``[B]`` to the same and float32 ``[B, classes]``."""
        keys = zip(epochs.tolist(), indices.tolist(), strict=True)
        steps, _, height, width = frames.shape[1:]
        blobs = torch.stack([self._blob((steps, height, width), epoch, index) for epoch, index in keys]).unsqueeze(2)
        own, other = frames.masked_fill(blobs, 0), frames.roll(1, 0).masked_fill(~blobs, 0)
        ours, theirs = (x.flatten(1).sum(1, dtype=torch.float32) for x in (own, other))
        share = (ours / (ours + theirs).clamp(min=1))[:, None]
        hot = F.one_hot(labels, self.classes).float()
        return own + other, share * hot + (1 - share) * hot.roll(1, 0)

    def _blob(self, shape: tuple[int, int, int], epoch: int, index: int) -> Tensor:
        numbers = generator(Purpose.MIX, self.seed, epoch, index)
        density = np.zeros(shape)
        for _ in range(self.GAUSSIANS):
            centre, width = numbers.random(3), numbers.uniform(0.1, 0.5, 3)
            places = [(np.arange(n) + 0.5) / n for n in shape]
            axes = [np.exp(-(((x - c) / w) ** 2) / 2) for x, c, w in zip(places, centre, width, strict=True)]
            density += axes[0][:, None, None] * axes[1][:, None] * axes[2]
        volume = min(math.floor(numbers.beta(self.alpha, self.alpha) * density.size), density.size - 1)
        threshold = np.partition(density, density.size - 1 - volume, axis=None)[density.size - 1 - volume]
        return torch.from_numpy(density > threshold)
