"""Time of one neuron layer in copies of its input, at T = 4 and T = 16, beside ReLU and the peers' neurons.

The unit is one plain copy of the tensor into existing memory, a contender like the others: all take turns, medians over
rounds are shown. ``python -m benchmarks.neuron [steps=4,16] [rounds=5] [small=true]``
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from inspect import ismethod

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from benchmarks import peers
from benchmarks.harness import BenchmarkKeys, Goal, Result, device, first_line, where
from benchmarks.rounds import timed
from qbsnn.cli import launch as cli
from qbsnn.neurons import LIF, QBLIF, ReLU
from qbsnn.training.devices.allocator import keep_freed_memory

SHAPE = (32, 64, 32, 32)
COPY = "copy"
CHOSEN = "QB-LIF, s_max = 8, compiled"
GOALS = {"forward + backward": ("≤ 3.5", "≤ 4.2"), "inference": ("≤ 1.5", "≤ 1.5")}
"""Bounds for up to ``FEW`` steps and for more."""
FEW = 4


def compiled(neuron: nn.Module) -> nn.Module:
    """The same neuron with a compiled scan."""
    neuron.compiled = True
    return neuron


def jelly_compiled() -> nn.Module:
    """SpikingJelly's LIF under ``torch.compile``."""
    neuron = peers.jelly_lif()
    neuron.compile()
    return neuron


NEURONS: dict[str, Callable[[], nn.Module]] = {
    "ReLU": ReLU,
    "QB-LIF, s_max = 8": partial(QBLIF, s_max=8),
    CHOSEN: lambda: compiled(QBLIF(s_max=8)),
    "QB-LIF, s_max = 1, compiled": lambda: compiled(QBLIF(s_max=1)),
    "qbsnn LIF, compiled": lambda: compiled(LIF()),
    "SpikingJelly LIF": peers.jelly_lif,
    "SpikingJelly LIF, compiled": jelly_compiled,
    "SpikingJelly I-LIF, s_max = 8": partial(peers.jelly_ilif, 8),
    "snnTorch Leaky": peers.snntorch_lif,
    "Norse LIFBox": peers.norse_lif,
}


class NeuronKeys(BenchmarkKeys):
    """The keys of this benchmark."""

    steps: list[PositiveInt] = Field(default=[4, 16], description="time steps T, one table each")
    batch: int = Field(default=SHAPE[0], ge=1, description="B of the layer's input [T, B, 64, 32, 32]")


def main(args: NeuronKeys) -> None:
    shape = (2 if args.small else args.batch, *SHAPE[1:])
    keep_freed_memory()  # for every contender
    result = Result("neuron", {"shape": ["T", *shape], "T": args.steps, "rounds": args.rounds}, args.small)
    print(f"{where()}, [T, {', '.join(map(str, shape))}] float32", flush=True)
    with result.written(args.out):
        for steps in args.steps:
            measure(result, steps, shape, args.rounds)


def measure(result: Result, steps: int, shape: tuple[int, ...], rounds: int) -> None:
    """The two tables of one T, measured in the same rounds."""
    x = torch.randn(steps, *shape, device=device())
    target = torch.empty_like(x)
    calls: dict[str, Callable[[], object]] = {COPY: lambda: target.copy_(x)}
    neurons = {}
    for name, make in NEURONS.items():
        try:
            neurons[name] = make().to(device())
        except Exception as why:  # a peer may raise anything
            result.skip(name, first_line(why))
            continue
        calls[f"{name}|inference"] = partial(infer, neurons[name], x)
        calls[f"{name}|forward + backward"] = partial(step, neurons[name], x)
    with timed(result, calls, rounds) as times:
        for kind, bounds in GOALS.items():
            table = f"Neuron, T = {steps}, {kind}, in copies"
            add = partial(result.add, table, unit="ms", to=COPY)
            add(COPY, milliseconds(times[COPY]))
            for name in neurons:
                goal = Goal(f"neuron, {kind}, T = {steps}, in copies", bounds[steps > FEW]) if name == CHOSEN else None
                if (samples := milliseconds(times[f"{name}|{kind}"])) or goal:
                    add(name, samples, goal=goal, compiled=True)


def milliseconds(seconds: list[float]) -> list[float]:
    return [1e3 * second for second in seconds]


def infer(neuron: nn.Module, x: Tensor) -> None:
    forget(neuron)
    with torch.no_grad():
        neuron(x)


def step(neuron: nn.Module, x: Tensor) -> None:
    forget(neuron)
    leaf = x.detach().requires_grad_()
    neuron(leaf).backward(x)


def forget(neuron: nn.Module) -> None:
    """Clear the state that SpikingJelly keeps between calls."""
    if ismethod(reset := getattr(neuron, "reset", None)):  # in qbsnn's neurons it is a value
        reset()


if __name__ == "__main__":
    cli.script(main, NeuronKeys, __doc__)
