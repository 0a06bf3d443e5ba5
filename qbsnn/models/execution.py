"""How a network runs: what is compiled, and what a training step keeps. The numbers stay the same, bit for bit."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from importlib.util import find_spec
from typing import NamedTuple

import torch
from torch import nn

from qbsnn import checks
from qbsnn.errors import SettingsError
from qbsnn.kernels.compiled import compiler, keep_kernels, options
from qbsnn.layers.stage import INPUT
from qbsnn.models.network import SpikingNetwork
from qbsnn.neurons.base import SpikingNeuron

log = logging.getLogger(__name__)

COMPILE = ("none", "neuron", "block", "model")
MEMORY = ("none", "packed", "checkpoint")


class Costs(NamedTuple):
    """What compiling saves and takes on a CPU: ``eager``, the seconds that eager code takes longer per neuron-step of
    training, and ``kernel``, the seconds to compile one kernel."""

    eager: float
    kernel: float


# Of every machine that is to be expected: what pays nowhere between these, or everywhere, needs no measurement.
KINDEST, HARSHEST = Costs(eager=100e-9, kernel=2.0), Costs(eager=1e-9, kernel=60.0)
# On a GPU per stage and time step of a training step: a count of launches; the kernel was seen once.
LAUNCHES = Costs(eager=2e-4, kernel=8.0)


def prepare(network: SpikingNetwork, compile: str = "none", memory: str = "none") -> SpikingNetwork:
    """Set how ``network`` runs, in place, and return it.

    compile: ``none``; ``neuron``, the scan over time as one kernel per direction; ``block``, norm, sum and scan as one,
    which keeps what the weights put out and neither current nor membrane; ``model``, all of the network as one graph,
    which takes minutes to compile. memory: ``none``; ``packed``, as ``block`` and bursts kept as bytes; ``checkpoint``,
    every stage computed again from its packed input. Raises SettingsError.

    >>> from qbsnn.models import mlp
    >>> from qbsnn.neurons import QBLIF
    >>> network = mlp(QBLIF, in_shape=(1, 8, 8), num_classes=10, mean=[0.5], std=[0.5])
    >>> prepare(network, memory="packed").packs
    True
    """
    compile = checks.choice("compile", compile, COMPILE)
    memory = checks.choice("memory", memory, MEMORY)
    if compile == "model" and memory != "none":
        raise SettingsError(f"compile=model decides by itself what is kept: use memory=none, not {memory}, or block")
    for _, stage in network.named_stages():
        stage.fused = compile == "block" or memory != "none"
        stage.checkpointed = memory == "checkpoint" and stage.neuron is not None
        if isinstance(stage.neuron, SpikingNeuron):
            stage.neuron.compiled = compile in ("neuron", "block")
    network.packs = memory != "none"
    uncompiled(network)
    if compile == "model":
        keep_kernels()
        network.compile(options=options())
    return network


def uncompiled(network: SpikingNetwork) -> None:
    """Take ``compile=model`` back."""
    network._compiled_call_impl = None


def channels_last(network: SpikingNetwork, isa: Collection[str]) -> SpikingNetwork:
    """Have convolutions keep channels innermost, in place, and return ``network``.

    It is left out, with a warning, where it would damage memory: without AVX-512 oneDNN writes past its workspace when
    it computes the gradient of a 1×1 weight with a stride and fewer than eight input channels (oneDNN, issue 6035).

    Args:
        network: to change.
        isa: extensions of the processor, see :func:`qbsnn.training.devices.host.host_info`.
    """
    damaged = [name for name, part in network.named_modules() if isinstance(part, nn.Conv2d) and _overruns(part)]
    if damaged and "avx2" in isa and "avx512f" not in isa:
        log.warning("channels_last=true is left out: %s, a 1×1 with a stride, has fewer than 8 inputs", damaged[0])
        return network
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _overruns(conv: nn.Conv2d) -> bool:
    return conv.kernel_size == (1, 1) and max(conv.stride) > 1 and conv.in_channels // conv.groups < 8


def choose(
    network: SpikingNetwork, batches: float, batch_size: int, device: torch.device, measure: Callable[[], Costs]
) -> tuple[str, str]:
    """``block`` or ``none`` for a network that trains on this many batches, and the reason in one clause.

    Compiling is worth it if it takes less than half of the time that it saves. ``measure`` is asked for the costs on a
    CPU, where they decide.
    """
    if device.type == "cpu" and compiler() is None:
        return "none", "there is no C++ compiler"
    if device.type == "cuda" and find_spec("triton") is None:
        return "none", "there is no Triton"
    sizes, count = [neuron.neurons for _, _, neuron in network.spiking_stages()], kernels(network)
    steps = batches * network.T * (batch_size * sum(sizes) if device.type == "cpu" else len(sizes))

    def at(costs: Costs, least: str = "about", most: str = "about") -> tuple[str, str]:
        takes, saves = count * costs.kernel, steps * costs.eager
        reason = f"compiling would take {least} {takes:.0f} s and save {most} {saves:.0f} s"
        return ("block" if saves > 2 * takes else "none"), reason

    if device.type != "cpu":
        return at(LAUNCHES)
    if (never := at(KINDEST, "at least", "at most"))[0] == "none":
        return never
    if (always := at(HARSHEST, "at most", "at least"))[0] == "block":
        return always
    return at(measure())


def kernels(network: SpikingNetwork) -> int:
    """How many kernels ``block`` compiles: two for every kind of neuron and of what drives it."""
    kinds = set()
    for _, stage, neuron in network.spiking_stages():
        tau = neuron.tau if neuron.w is None else None  # a learned one is an argument of the kernel
        settings = (neuron.s_max, tau, str(neuron.reset), neuron.rounding)
        drive = tuple((type(part.weight), type(part.norm)) for part in stage.parts)
        kinds.add((type(neuron), settings, stage.sources[0] == INPUT, drive))
    return 2 * len(kinds)
