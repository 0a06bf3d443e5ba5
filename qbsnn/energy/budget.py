"""A budget of energy: a penalty in the training step on what the network spends above its target.

The loss is (P1), with E the relative energy of the tables (:mod:`qbsnn.energy.spending`) and a the target, in the
spirit of the synaptic operations loss of Sorbaro et al. 2020 (Frontiers in Neuroscience 14:662). The target begins at
what the network spends after a part of training and falls geometrically to what is asked, (P2).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor, nn

from qbsnn import checks
from qbsnn.bounds import BUDGET_TOLERANCE, check_target
from qbsnn.energy.spending import Spending
from qbsnn.errors import ArgumentError
from qbsnn.results.formatting import counted
from qbsnn.results.quantities import asked
from qbsnn.results.schema import Result, ran

QUANTITIES = {"energy": Spending.relative, "accumulates": Spending.per_synapse}
MEMORY = 0.9  # of the running mean that is shown


class EnergyBudget(nn.Module):
    """Gives the penalty of a training step. Its state is part of every checkpoint.

    Args:
        target: of the quantity, at the end.
        weight: w.
        begin: share of the training steps after which the target begins to fall, from what is then spent.
        end: share of the training steps after which the target stays.
        every: steps between two penalties, each of which counts as often; one of them costs a pass over all spikes.
        floor: mean burst of a layer below which it is pushed up again, by w·max(0, 1 − burst/floor)²; 0 for none.
        quantity: ``energy``, relative to the dense ReLU network's, or ``accumulates`` per synapse and image.
        layers: by stage, the largest mean burst (behind its pool), each with a penalty of its own; ``None`` for none.

    Raises:
        ArgumentError: for a bad value.
    """

    def __init__(
        self,
        target: float = 0.15,
        weight: float = 3.0,
        begin: float = 0.15,
        end: float = 0.6,
        every: int = 4,
        floor: float = 0.001,
        quantity: str = "energy",
        layers: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.target = checks.number("target", target, 0, open_low=True)
        self.weight = checks.number("weight", weight, 0)
        self.begin = checks.number("begin", begin, 0, 1)
        self.end = checks.number("end", end, 0, 1)
        if self.end < self.begin:
            raise ArgumentError(f"end must be at least begin = {begin}, got {end}")
        self.every = checks.integer("every", every, 1)
        self.floor = checks.number("floor", floor, 0)
        self.quantity = checks.choice("quantity", quantity, QUANTITIES)
        check_target(target, quantity)
        if not isinstance(layers, Mapping | None) or not all(isinstance(name, str) for name in layers or {}):
            raise ArgumentError(f"layers must give stages their largest mean burst, as {{conv1: 0.2}}, got {layers!r}")
        self.layers = {name: checks.number(f"layers.{name}", top, 0, open_low=True)
                       for name, top in (layers or {}).items()}  # fmt: skip
        self.start = self.spent = math.nan
        self.estimated = False  # what is spent, from a pass with fewer than all T steps

    def get_extra_state(self) -> dict[str, float | bool]:
        """What a checkpoint keeps: numbers of the fit, which no average of weights may touch."""
        return {"start": self.start, "spent": self.spent, "estimated": self.estimated}

    def set_extra_state(self, state: dict[str, float | bool]) -> None:
        """Take it back."""
        self.start, self.spent = state["start"], state["spent"]
        self.estimated = bool(state.get("estimated", False))  # which earlier versions did not keep

    def check_layers(self, stages: Collection[str]) -> None:
        """See that every one of ``layers`` is among the stages whose spikes are read; else an ArgumentError."""
        for name in self.layers:
            if name not in stages:
                raise ArgumentError(f"layers.{name} is no stage whose spikes are read: {', '.join(stages)}")

    def idle(self, batches: int) -> str | None:
        """Why the target never acts in a training of so many batches; ``None`` where it does.

        The first penalty after ``begin`` says where the target begins, so it takes a second one.
        """
        late = [batch for batch in range(0, batches, self.every) if batch >= self.begin * batches]
        if len(late) > 1:
            return None
        return (
            f"the target of the budget never acts: it is applied to {counted(len(late), 'batch', 'batches')} after "
            f"{100 * self.begin:g} % of training, and it needs at least 2. Train for longer, or set budget.every=1"
        )

    def due(self, step: int) -> bool:
        """Whether the penalty is computed in this step."""
        return step % self.every == 0

    def spending(self, spending: Spending) -> Tensor:
        """The quantity that is limited, of a pass that was listened to: a scalar with its gradient."""
        return QUANTITIES[self.quantity](spending)

    def excess(self, spent: float) -> float:
        """How far ``spent`` is above the final target, as a share of it; 0 within ``BUDGET_TOLERANCE``.

        >>> EnergyBudget(target=0.1).excess(0.104), round(EnergyBudget(target=0.1).excess(0.12), 4)
        (0.0, 0.2)
        """
        above = spent / self.target - 1
        return above if above > BUDGET_TOLERANCE else 0.0

    def allowed(self, progress: float) -> float:
        """The target after this share of the training steps; infinite before the first penalty.

        >>> budget = EnergyBudget(target=0.1, begin=0.0, end=0.5)
        >>> budget.start = 0.4
        >>> round(budget.allowed(0.0), 4), round(budget.allowed(0.25), 4), round(budget.allowed(1.0), 4)
        (0.4, 0.2, 0.1)
        """
        if math.isnan(self.start):
            return math.inf
        if self.start <= self.target:
            return self.target
        part = (progress - self.begin) / (self.end - self.begin) if self.end > self.begin else 1.0
        return float(self.start * (self.target / self.start) ** min(max(part, 0.0), 1.0))

    def penalty(self, spending: Spending, progress: float, mean: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """The penalty of this step, a scalar; it remembers what was spent.

        Args:
            spending: has listened to the forward pass of this step.
            progress: share of the training steps that are done.
            mean: averages a scalar over processes; each process then adds its part of the common gradient.
        """
        quantity = self.spending(spending)
        spent = quantity.detach() if mean is None else mean(quantity.detach())
        now = float(spent)
        whole = spending.times == 1
        fresh = math.isnan(self.spent) or (self.estimated and whole)  # no mean of an estimate and a count
        self.spent = now if fresh else MEMORY * self.spent + (1 - MEMORY) * now
        self.estimated = not whole
        if progress >= self.begin and math.isnan(self.start):
            self.start = now
        allowed = self.allowed(progress)
        found = _above(quantity, spent, allowed) if math.isfinite(allowed) else quantity.new_zeros(())
        self.check_layers(spending.rates)
        for name, top in self.layers.items():
            found = found + _above(spending.rates[name], spending.rates[name].detach(), top)
        if self.floor:
            for rate in spending.rates.values():
                found = found + torch.relu(1 - rate / self.floor) ** 2
        return self.every * self.weight * found


def _above(value: Tensor, seen: Tensor, allowed: float) -> Tensor:
    """max(0, seen/allowed − 1)², with its derivative at ``seen`` handed to ``value``."""
    excess = torch.relu(seen / allowed - 1)
    return excess**2 + 2 * excess / allowed * (value - value.detach())


def missed(result: Result) -> str | None:
    """A sentence with both numbers where the chosen network of a run spends more than its budget on test images."""
    for quantity, spent, words in (
        ("energy", "relative_synapses", "{:.1%} of the dense ReLU network's energy"),
        ("accumulates", "spikes_per_synapse", "{:.3g} accumulates per synapse"),
    ):
        target, found = asked(quantity)(result), getattr(ran(result.energy), spent, None)
        if target is not None and found is not None and found > target * (1 + BUDGET_TOLERANCE):
            return (
                f"the budget is not kept: the chosen network spends {words.format(found)} on test images, and "
                f"budget.target allows {words.format(target)}. Train for longer, or raise budget.weight"
            )
    return None
