"""Turns a table into stages, tracking the shape that leaves each of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from torch import nn

from qbsnn import checks
from qbsnn.errors import SettingsError
from qbsnn.layers.encoder import Encoder
from qbsnn.layers.norm import NORMS, BatchNorm
from qbsnn.layers.stage import INPUT, Branch, Stage
from qbsnn.models.network import SpikingNetwork
from qbsnn.neurons.base import Neuron

log = logging.getLogger(__name__)

NeuronFactory = Callable[[], Neuron]
POOLS = ("max", "avg")


class Builder:
    """Collects stages. ``shapes[name]`` is one sample's output shape of a stage, ``(C, H, W)`` or ``(F,)``.

    in_shape: (C, H, W) of the pixels; neuron: called once per stage, so every stage owns its neuron; norm: a key of
    ``NORMS``; v_th: the constant of tdBN; width: multiplies every channel number of a table.
    """

    def __init__(
        self, in_shape: Sequence[int], neuron: NeuronFactory, norm: str = "bn", v_th: float = 1.0, width: float = 1.0
    ) -> None:
        self.in_shape = check_shape(in_shape)
        self.neuron = neuron
        self.norm = NORMS[checks.choice("model.norm", norm, NORMS)]
        self.v_th = checks.number("model.v_th", v_th, 0, open_low=True)
        self.width = checks.number("model.width", width, 0, open_low=True)
        self.stages: dict[str, Stage] = {}
        self.shapes: dict[str, tuple[int, ...]] = {INPUT: self.in_shape}

    def scaled(self, channels: int) -> int:
        """A channel number of a table, times width."""
        return max(1, round(channels * self.width))

    def conv(
        self, source: str, out: int, kernel: int = 3, stride: int = 1, branches: int = 1
    ) -> tuple[Branch, tuple[int, ...]]:
        """Convolution and norm from ``source``, padded to keep the size at stride 1, without bias."""
        channels, height, width = self.shapes[source]
        pad = kernel // 2
        weight = nn.Conv2d(channels, out, kernel, stride, pad, bias=False)
        nn.init.kaiming_normal_(weight.weight, mode="fan_out", nonlinearity="relu")
        size = tuple((side + 2 * pad - kernel) // stride + 1 for side in (height, width))
        return Branch(source, weight, self._norm(out, 2, branches)), (out, *size)

    def linear(self, source: str, out: int) -> tuple[Branch, tuple[int, ...]]:
        """Linear layer and norm from ``source``, flattened, without bias."""
        features = prod(self.shapes[source])
        return Branch(source, nn.Linear(features, out, bias=False), self._norm(out, 1, 1)), (out,)

    def identity(self, source: str) -> tuple[Branch, tuple[int, ...]]:
        """An identity shortcut."""
        return Branch(source), self.shapes[source]

    def add(self, name: str, *branches: tuple[Branch, tuple[int, ...]]) -> str:
        """Add a stage of neurons fed by these branches; returns its name."""
        shape = branches[0][1]
        assert all(other == shape for _, other in branches), f"{name}: branch shapes differ: {branches}"
        self.stages[name] = Stage([branch for branch, _ in branches], self.neuron())
        self.shapes[name] = shape
        return name

    def pool(self, name: str, kind: str, kernel: int, stride: int | None = None, padding: int = 0) -> None:
        """Pool the output of a stage; left out, with a warning, where the map is smaller than the kernel."""
        channels, *size = self.shapes[name]
        if min(size) + 2 * padding < kernel:
            log.warning("pool after %s left out: its map is only %d×%d", name, *size)
            return
        step = stride or kernel
        self.stages[name].pool = (nn.MaxPool2d if kind == "max" else nn.AvgPool2d)(kernel, step, padding)
        self.shapes[name] = (channels, *((side + 2 * padding - kernel) // step + 1 for side in size))

    def global_pool(self, name: str) -> None:
        """Average the output of a stage over its whole map."""
        channels, height, width = self.shapes[name]
        self.stages[name].pool = nn.AvgPool2d((height, width))
        self.shapes[name] = (channels, 1, 1)

    def finish(
        self,
        source: str,
        num_classes: int,
        T: int,
        encoding: str,
        mean: Sequence[float],
        std: Sequence[float],
        seed: int,
    ) -> SpikingNetwork:
        """Add the readout (linear with bias, no norm, no neuron) and return the network."""
        classes = checks.integer("num_classes", num_classes, 2)
        readout = nn.Linear(prod(self.shapes[source]), classes)
        self.stages["readout"] = Stage([Branch(source, readout)])
        steps = checks.integer("T", T, 1, 1024)
        return SpikingNetwork(Encoder(encoding, steps, mean, std, seed), self.stages, steps, self.in_shape)

    def _norm(self, channels: int, dim: int, branches: int) -> BatchNorm:
        return self.norm(channels, dim, branches, self.v_th)


def check_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    """The pixel shape as (C, H, W), or a SettingsError."""
    if len(shape) != 3:
        raise SettingsError(f"in_shape must be (channels, height, width), got {tuple(shape)}")
    c, h, w = (checks.integer("in_shape", side, 1) for side in shape)
    return c, h, w


def table_entry(tables: dict[str, Any], name: str) -> Any:
    """The table of this name, or a SettingsError that lists the names."""
    return tables[checks.choice("model.name", name, tables)]
