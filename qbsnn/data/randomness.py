"""Random numbers that are a function of what they are for: (seed, epoch, sample, purpose).

No generator is advanced, so a sample meets the same numbers whatever batch or worker process it is in, and a resumed
run meets those of an uninterrupted one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from enum import IntEnum

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray


class Purpose(IntEnum):
    """What a number is drawn for; each purpose is an independent stream."""

    ORDER = 1
    CROP_Y = 2
    CROP_X = 3
    FLIP = 4
    CUTOUT_Y = 5
    CUTOUT_X = 6
    POLICY = 7
    HOLD_OUT = 8
    LIMIT = 9
    MIX = 10
    VIEW = 11
    EVENTS = 12
    FRAMES = 13
    STEPS = 14
    NOISE = 15


def mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """One step of splitmix64 (Steele, Lea, Flood 2014) from each state in ``x`` (at least one-dimensional).

    >>> [hex(v) for v in mix(np.array([0], np.uint64))]
    ['0xe220a8397b1dcdaf']
    """
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def draw(purpose: Purpose, seed: int, epoch: ArrayLike, index: ArrayLike) -> NDArray[np.uint64]:
    """64 random bits per sample ``[B]``; ``epoch`` and ``index`` are non-negative integers ``[B]`` or one for all."""
    # arrays, never scalars: numpy warns where a scalar wraps around
    state = mix(np.array([seed], np.uint64))
    for part in (int(purpose), epoch, index):
        state = mix(state ^ np.atleast_1d(np.asarray(part)).astype(np.uint64))
    return state


def below(limit: int, bits: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Integers from 0 to ``limit`` − 1, ``limit`` at most 2³²; the bias is below ``limit``/2³²."""
    return (((bits >> np.uint64(32)) * np.uint64(limit)) >> np.uint64(32)).astype(np.int64)


def permutation(purpose: Purpose, size: int, seed: int, epoch: int = 0) -> NDArray[np.int64]:
    """The numbers 0 to ``size`` − 1 in an order given by (purpose, seed, epoch)."""
    return np.argsort(draw(purpose, seed, epoch, np.arange(size)), kind="stable")


def generator(purpose: Purpose, seed: int, epoch: int, index: int) -> np.random.Generator:
    """A generator of its own for one sample and purpose, for whoever needs more than one number."""
    return np.random.default_rng(draw(purpose, seed, epoch, index))


@contextlib.contextmanager
def torch_seeded(seed: int) -> Iterator[None]:
    """Seed torch's global CPU generator, which torchvision draws from, and put its state back afterwards.

    torch.manual_seed and fork_rng would reset the generators of the graphics cards as well, and with them the
    training's own randomness.
    """
    before = torch.default_generator.get_state()
    torch.default_generator.manual_seed(seed >> 1)  # it takes 63 bits
    try:
        yield
    finally:
        torch.default_generator.set_state(before)


@contextlib.contextmanager
def numpy_seeded(seed: int) -> Iterator[None]:
    """The same for numpy's global generator, which Tonic draws from."""
    before = np.random.get_state()  # noqa: NPY002, it is Tonic that uses it
    np.random.seed([seed & 0xFFFFFFFF, seed >> 32])  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002
