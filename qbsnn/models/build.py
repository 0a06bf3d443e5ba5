"""Turns a table into stages, tracking the shape that leaves each of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from math import prod

import torch
from torch import nn
from typing_extensions import TypedDict

from qbsnn import checks
from qbsnn.bounds import ModelBounds
from qbsnn.errors import ArgumentError
from qbsnn.layers.encoder import Encoder
from qbsnn.layers.norm import NORMS, TemporalScale
from qbsnn.layers.stage import INPUT, Branch, Stage
from qbsnn.models.network import SpikingNetwork, check_shape
from qbsnn.neurons.base import Neuron
from qbsnn.neurons.relu import LeakyIntegrator

log = logging.getLogger(__name__)

NeuronFactory = Callable[[], Neuron]


class Options(TypedDict, total=False):
    """What every family takes besides its own table, with the defaults of ``DEFAULTS``.

    Attributes:
        T: time steps.
        width: multiplies every channel number.
        norm: a key of ``NORMS``.
        v_th: the constant of tdBN.
        encoding: ``direct`` (also for ``None``), ``rate`` or ``latency``.
        seed: of rate coding.
        neurons: factories for single stages by name, instead of the common one.
        readout: ``current`` (a linear layer), ``membrane`` (that and a leaky integrator, which never fires) or ``rate``
            (spiking neurons, whose mean burst is the logit).
        readout_tau: time constant of the membrane readout, in steps.
        population: spiking neurons per class of the rate readout.
        decision: which logits are compared: the ``mean`` over time, the ``last`` step or the ``max`` over time.
    """

    T: int
    width: float
    norm: str
    v_th: float
    encoding: str | None
    seed: int
    neurons: Mapping[str, NeuronFactory] | None
    readout: str
    readout_tau: float
    population: int
    decision: str


DEFAULTS: Options = {
    "T": 4,
    "width": 1.0,
    "norm": "bn",
    "v_th": 1.0,
    "encoding": None,
    "seed": 0,
    "neurons": None,
    "readout": "current",
    "readout_tau": 2.0,
    "population": 1,
    "decision": "mean",
}


class Builder:
    """Collects stages. ``shapes[name]`` is one sample's output shape of a stage, ``(C, H, W)`` or ``(F,)``.

    neuron: called once per stage, so every stage owns its neuron; in_shape: (C, H, W) of the pixels; options: see
    :class:`Options`. Raises SettingsError for an unknown or bad option.
    """

    def __init__(self, neuron: NeuronFactory, in_shape: Sequence[int], options: Options) -> None:
        unknown = sorted(set(options) - set(DEFAULTS))
        if unknown:
            raise ArgumentError(f"{unknown[0]} is not a setting: there are {', '.join(sorted(DEFAULTS))}")
        given: Options = {**DEFAULTS, **options}
        self.neuron, self.in_shape, self.options = neuron, check_shape(in_shape), given
        if not isinstance(single := given["neurons"] or {}, Mapping):
            raise ArgumentError(f"neurons must give stages what makes their neurons, {{STAGE: QBLIF}}, got {single!r}")
        self.neurons = dict(single)
        for name, factory in {"neuron": neuron, **{f"neurons.{stage}": f for stage, f in self.neurons.items()}}.items():
            _check_factory(name, factory)
        self.norm_name = checks.choice("norm", given["norm"], NORMS)
        self.v_th = ModelBounds.check("v_th", given["v_th"])
        self.width = ModelBounds.check("width", given["width"])
        self.steps = ModelBounds.check("T", given["T"])
        self.stages: dict[str, Stage] = {}
        self.shapes: dict[str, tuple[int, ...]] = {INPUT: self.in_shape}

    def scaled(self, channels: int) -> int:
        """A channel number of a table, times width."""
        return max(1, round(channels * self.width))

    def conv(
        self, source: str, out: int, kernel: int = 3, stride: int = 1, branches: int = 1, padding: int | None = None
    ) -> tuple[Branch, tuple[int, ...]]:
        """Convolution and norm from ``source``; padding keeps the size at stride 1 by default; no norm, then a bias."""
        channels, height, width = self.shapes[source]
        pad = kernel // 2 if padding is None else padding
        size = tuple((side + 2 * pad - kernel) // stride + 1 for side in (height, width))
        if min(size) < 1:
            raise ArgumentError(
                f"in_shape = {list(self.in_shape)} is too small for this model: a map of {height} × {width} has no "
                f"place for a convolution of {kernel} × {kernel}"
            )
        weight = nn.Conv2d(channels, out, kernel, stride, pad, bias=self.norm_name == "none")
        nn.init.kaiming_normal_(weight.weight, mode="fan_out", nonlinearity="relu")
        return self._branch(source, weight, out, 2, branches), (out, *size)

    def linear(self, source: str, out: int) -> tuple[Branch, tuple[int, ...]]:
        """Linear layer and norm from ``source``, flattened; a bias only without norm."""
        weight = nn.Linear(prod(self.shapes[source]), out, bias=self.norm_name == "none")
        return self._branch(source, weight, out, 1, 1), (out,)

    def identity(self, source: str) -> tuple[Branch, tuple[int, ...]]:
        """An identity shortcut."""
        return Branch(source), self.shapes[source]

    def add(self, name: str, *branches: tuple[Branch, tuple[int, ...]]) -> str:
        """Add a stage of neurons fed by these branches; returns its name."""
        shape = branches[0][1]
        assert all(other == shape for _, other in branches), f"{name}: branch shapes differ: {branches}"
        own = f"neurons.{name}" if name in self.neurons else "neuron"
        neuron = _made(own, self.neurons.pop(name, self.neuron), [stage.neuron for stage in self.stages.values()])
        neuron.size_to(shape)
        self.stages[name] = Stage([branch for branch, _ in branches], neuron)
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

    def finish(self, source: str, num_classes: int, mean: Sequence[float], std: Sequence[float]) -> SpikingNetwork:
        """Add the readout and return the network. mean, std: normalisation of the pixels, per channel."""
        classes = checks.integer("num_classes", num_classes, 2)
        kind = ModelBounds.check("readout", self.options["readout"])
        population = ModelBounds.check("population", self.options["population"])
        if kind == "rate":
            source = self.add("output", self.linear(source, classes * population))
        layer = nn.Linear(prod(self.shapes[source]), classes, bias=kind != "rate")
        if kind == "rate":
            vote = torch.eye(classes).repeat_interleave(population, 1) / population
            layer.weight = nn.Parameter(vote, requires_grad=False)
        integrator = LeakyIntegrator(self.options["readout_tau"]) if kind == "membrane" else None
        self.stages["readout"] = Stage([Branch(source, layer)], integrator)
        if self.neurons:
            raise ArgumentError(
                f"neurons.{next(iter(self.neurons))} is not a stage with neurons: there are "
                f"{', '.join(name for name in self.stages if name != 'readout')}"
            )
        encoder = Encoder(self.options["encoding"] or "direct", self.steps, mean, std, self.options["seed"])
        return SpikingNetwork(encoder, self.stages, self.steps, self.in_shape, self.options["decision"])

    def _branch(self, source: str, weight: nn.Conv2d | nn.Linear, out: int, dim: int, branches: int) -> Branch:
        make = NORMS[self.norm_name]
        norm = None if make is None else make(out, dim, branches, self.v_th)
        return Branch(source, weight, norm, TemporalScale(self.steps) if self.norm_name == "tebn" else None)


def _check_factory(name: str, factory: object) -> None:
    if isinstance(factory, nn.Module) or not callable(factory):
        what = type(factory).__name__ if isinstance(factory, nn.Module) else "QBLIF"
        raise ArgumentError(
            f"{name} must be what makes a neuron, since every layer has its own, got {type(factory).__name__}: write "
            f"lambda: {what}(...)"
        )


def _made(name: str, factory: NeuronFactory, others: Sequence[Neuron | None]) -> Neuron:
    """A neuron for one more stage, unlike those of the others; else an ArgumentError."""
    neuron = factory()
    if not isinstance(neuron, Neuron):
        raise ArgumentError(f"{name} must return a neuron when it is called, got {type(neuron).__name__}")
    if any(neuron is other for other in others):
        raise ArgumentError(
            f"{name} must return a new neuron at every call, got the same {type(neuron).__name__} twice"
        )
    return neuron
