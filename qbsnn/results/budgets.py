"""The budget of a run: what was asked for, and whether the chosen network keeps it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from qbsnn.results.schema import Result, ran

TOLERANCE = 0.05
"""Share of a budget by which it may be exceeded and still counts as kept."""

SPENT = {"energy": "relative_synapses", "accumulates": "spikes_per_synapse"}
"""By ``budget.quantity``, the field of the block ``energy`` that holds what the network spends on test images."""


def asked(quantity: str) -> Callable[[Result], float | None]:
    """What a run was asked to spend at most of a quantity; ``None`` where it had no such budget.

    A network without spikes has none, whatever its settings say.
    """

    def read(result: Result) -> float | None:
        budget = result.config.get("budget")
        if not isinstance(budget, Mapping) or budget.get("quantity") != quantity or _left_out(result):
            return None
        target = budget.get("target")
        return float(target) if isinstance(target, (int, float)) else None

    return read


def missed(result: Result) -> str | None:
    """A sentence that names both numbers where the chosen network spends more than it should on test images."""
    for quantity, field in SPENT.items():
        target, spent = asked(quantity)(result), getattr(ran(result.energy), field, None)
        if target is not None and spent is not None and spent > target * (1 + TOLERANCE):
            numbers = (
                (f"{100 * spent:.1f} % of the dense ReLU network's energy", f"{100 * target:.1f} %")
                if quantity == "energy"
                else (f"{spent:.3g} accumulates per synapse", f"{target:.3g}")
            )
            return (
                f"the budget is not kept: the chosen network spends {numbers[0]} on test images, budget.target allows "
                f"{numbers[1]}. A longer training or a larger budget.weight comes closer to it"
            )
    return None


def _left_out(result: Result) -> bool:
    """Whether the network has no spikes, as its count says, or else its training, which logged no budget."""
    block = ran(result.energy)
    if block is not None:
        return block.mean_rate is None
    return bool(result.metrics.last) and "train/budget" not in result.metrics.last
