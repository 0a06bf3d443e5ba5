"""Who takes part: the ReLU twin, qbsnn's networks in each of its modes, and the peers, by name.

The twin is plain torch; compiled, it is qbsnn's own network with ReLU, in the same kernels as its spiking ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import peers
from benchmarks.harness import first_line
from qbsnn.energy.budget import EnergyBudget
from qbsnn.energy.spending import Spending, Synapses
from qbsnn.models import SpikingNetwork, resnet, vgg
from qbsnn.models.execution import prepare
from qbsnn.models.resnet import TABLES as RESNETS
from qbsnn.neurons import LIF, QBLIF, Neuron, ReLU

TWIN = "ReLU twin"
COMPILED_TWIN = "ReLU twin compiled"
REPEATED = (TWIN, COMPILED_TWIN)
"""They have no time, so they get T times as many images."""
LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Problem:
    """One training problem: architecture, steps, batch, sizes."""

    name: str = "resnet19"
    T: int = 4
    batch: int = 8
    width: float = 1.0
    in_shape: tuple[int, int, int] = (3, 32, 32)
    classes: int = 10
    channels_last: bool = False


@dataclass(frozen=True)
class Mode:
    """A network of qbsnn: its neuron, and how it is executed."""

    neuron: Callable[[], Neuron]
    compile: str
    memory: str = "none"


QB = partial(QBLIF, s_max=8)
MODES: dict[str, Mode] = {
    "QB-LIF block": Mode(QB, "block"),
    "QB-LIF packed": Mode(QB, "block", "packed"),
    "QB-LIF checkpoint": Mode(QB, "block", "checkpoint"),
    "QB-LIF s_max=1": Mode(partial(QBLIF, s_max=1), "neuron"),
    "qbsnn LIF": Mode(LIF, "neuron"),
    COMPILED_TWIN: Mode(ReLU, "block"),
}
KITS: dict[str, Callable[[], peers.Kit]] = {
    "SpikingJelly": peers.spikingjelly,
    "SpikingJelly compiled": partial(peers.spikingjelly, compiled=True),
    "snnTorch": lambda: peers.loop(peers.snntorch_lif),
    "Norse": lambda: peers.loop(peers.norse_lif),
}
NAMES = (TWIN, *MODES, *KITS)


def network(contender: str, problem: Problem) -> nn.Module:
    """The network of a contender, in training mode. Raises Unavailable."""
    torch.manual_seed(0)
    p = problem
    if mode := MODES.get(contender):
        family: Any = resnet if p.name in RESNETS else vgg
        ones = [0.0] * p.in_shape[0], [1.0] * p.in_shape[0]
        steps = 1 if contender in REPEATED else p.T
        made = family(mode.neuron, p.in_shape, p.classes, *ones, name=p.name, T=steps, width=p.width)
        return prepare(made, mode.compile, mode.memory)
    kit = peers.relu() if contender == TWIN else KITS[contender]()
    return peers.build(kit, p.name, p.T, p.in_shape, p.classes, p.width)


class Training:
    """Training steps of one contender: forward, loss, backward, optimiser, on the same images each time.

    precision: ``fp32``; ``tf32``, which shortens the products of a GPU; ``bf16`` for autocast. ``step()`` is one step;
    ``forward()`` its first part, whose graph lives as long as its result.
    """

    def __init__(self, contender: str, problem: Problem, device: torch.device, precision: str = "fp32") -> None:
        layout = torch.channels_last if problem.channels_last else torch.contiguous_format
        self.network = network(contender, problem).to(device, memory_format=layout).train()  # type: ignore[call-overload]
        self.tf32 = precision == "tf32"
        repeats = problem.T if contender in REPEATED else 1
        gen = torch.Generator().manual_seed(1)
        count = problem.batch * repeats
        self.images = torch.randn(count, *problem.in_shape, generator=gen).to(device, memory_format=layout)
        self.labels = torch.randint(problem.classes, (count,), generator=gen).to(device)
        self.optimiser = torch.optim.SGD(self.network.parameters(), lr=LEARNING_RATE, momentum=0.9)
        self.autocast = partial(torch.autocast, device.type, torch.bfloat16, enabled=precision == "bf16")

    def rest(self) -> None:
        """Drop the states that a peer keeps until its next forward pass, which belong to the step before."""
        if isinstance(self.network, peers.Network):
            self.network.kit.before(self.network)

    def forward(self) -> Tensor:
        """The loss of the mean logits."""
        torch.set_float32_matmul_precision("high" if self.tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = self.tf32
        with self.autocast():
            logits = self.network(self.images)
            return F.cross_entropy(logits.float().mean(0), self.labels)

    def step(self) -> None:
        """One training step."""
        loss = self.forward()
        loss.backward()
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)


class Budgeted(Training):
    """The same with the budget of energy as ``budget=energy`` ships it, at work: the network spends more than asked."""

    def __init__(self, contender: str, problem: Problem, device: torch.device) -> None:
        super().__init__(contender, problem, device)
        assert isinstance(self.network, SpikingNetwork)
        self.budget, self.synapses, self.steps = EnergyBudget(target=1e-3), Synapses(self.network), 0

    def forward(self) -> Tensor:
        """The loss of the mean logits, with the penalty where it is due."""
        spending = Spending(self.synapses) if self.budget.due(self.steps) else None
        self.steps += 1
        with self.autocast():
            loss = F.cross_entropy(self.network(self.images, spending).float().mean(0), self.labels)
        return loss if spending is None else loss + self.budget.penalty(spending, 1.0)


def trainings(
    names: Mapping[str, str] | tuple[str, ...],
    problem: Problem,
    device: torch.device,
    report: Callable[[str, object], None],
) -> dict[str, Training]:
    """Training of each contender that can be made; ``report(name, why)`` hears of the others.

    names: contenders, or title -> ``"contender|precision"``.
    """
    made = {}
    for title in names:
        contender, _, precision = (names[title] if isinstance(names, Mapping) else title).partition("|")
        try:
            made[title] = Training(contender, problem, device, precision or "fp32")
        except Exception as why:  # a peer may raise anything; of ours the others are still measured
            report(title, first_line(why))
    return made


def able(made: Mapping[str, Training], report: Callable[[str, object], None]) -> dict[str, Training]:
    """Those that can take a step: memory suffices, and a compiler works; ``report`` hears of the others."""
    kept = {}
    for title, training in made.items():
        try:
            training.step()
            kept[title] = training
        except Exception as error:
            report(title, "too little memory" if isinstance(error, torch.OutOfMemoryError) else first_line(error))
            training.optimiser.zero_grad(set_to_none=True)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return kept
