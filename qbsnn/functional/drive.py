"""What drives a neuron: the parts that sum to its current, each with the map of the norm in front of it."""

from __future__ import annotations

from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from qbsnn.functional.norm import Normal, normalise


class Part(NamedTuple):
    """One summand of a current.

    Attributes:
        y: ``[T or 1, B, C, ...]``.
        norm: What y still has to be normalised with, equation (B2); ``None`` if y itself is the summand.
    """

    y: Tensor
    norm: Normal | None = None

    def value(self) -> Tensor:
        """The summand, differentiable."""
        if self.norm is None:
            return self.y
        return normalise(self.y.flatten(0, 1), self.norm).unflatten(0, self.y.shape[:2])


class Drive(NamedTuple):
    """The parts that sum to a current.

    Attributes:
        parts: Of one shape, in the order in which they are added.
        steps: Time steps T.
    """

    parts: tuple[Part, ...]
    steps: int

    def total(self) -> Tensor:
        """The current ``[steps, B, C, ...]``; a single step is repeated as a view."""
        total = self.parts[0].value()
        for part in self.parts[1:]:
            total = total + part.value()
        return total.expand(self.steps, *total.shape[1:])


class Layout(NamedTuple):
    """A dense tensor ``[T, B, C, ...]`` seen in its memory order as ``[T, P, C, Q]``, or ``[T, N]`` without channels.

    Attributes:
        order: The dimensions by falling stride, time first.
        inner: How many of them lie within a channel; ``None`` without channels.
    """

    order: tuple[int, ...]
    inner: int | None

    @classmethod
    def of(cls, x: Tensor, channels: bool) -> Layout:
        """The layout of x ``[T, B, ...]``."""
        order = (0, *sorted(range(1, x.dim()), key=lambda d: (x.stride(d), x.size(d)), reverse=True))
        return cls(order, len(order) - 1 - order.index(2) if channels else None)

    def flat(self, x: Tensor) -> Tensor:
        """x in this layout: a view where x lies in memory like the tensor that the layout was taken from."""
        ordered = x.permute(self.order)
        if self.inner is None:
            return ordered.flatten(1)
        sizes = ordered.shape
        channel = len(sizes) - 1 - self.inner
        return ordered.reshape(sizes[0], prod(sizes[1:channel]), sizes[channel], prod(sizes[channel + 1 :]))

    def restored(self, flat: Tensor, shape: torch.Size) -> Tensor:
        """The view of a flat tensor that has the shape ``[B, C, ...]`` again behind its time."""
        sizes = (len(flat), *shape)
        ordered = flat.view([sizes[d] for d in self.order])
        return ordered.permute(sorted(range(len(self.order)), key=self.order.__getitem__))
