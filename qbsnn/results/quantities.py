"""The table of quantities: every number that sums up a run, each in one row.

The summary at the end of a run, the tables of sweeps, the pages and the final numbers at W&B all read this table. A new
row appears in all of them; ``views`` restricts it to some. A row with a mapping in place of a number (the energy of
each energy model) makes one column for each of its members, named ``key/member``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from qbsnn.results.formatting import NONE, duration, energy, microjoules, number, percent, si
from qbsnn.results.schema import EarlyExit, Result, ran

SUMMARY, TABLE, PAGE, WANDB = "summary", "table", "page", "wandb"
VIEWS = (SUMMARY, TABLE, PAGE, WANDB)
"""Where a quantity can appear: a line of its own at the end of a run, a column of the tables of sweeps, a column that
the page of all runs shows at first (every quantity can be switched on there), and ``final/KEY`` at W&B."""


@dataclass(frozen=True)
class Kind:
    """How values are shown.

    Args:
        name: Which kind it is, for a page that formats values itself.
        text: Writes one value with its unit.
        cell: Writes one value without its unit, for a column of a table.
        heading: Unit of the values that ``cell`` writes.
        spread: Whether a table shows the standard deviation behind the mean.
    """

    name: str
    text: Callable[[float], str]
    cell: Callable[[float], str]
    heading: str = ""
    spread: bool = True


def _decimals(digits: int, factor: float = 1.0) -> Callable[[float], str]:
    return lambda value: f"{factor * value:.{digits}f}"


PERCENT = Kind("percent", percent, _decimals(2, 100), "%")
PERCENT_1 = Kind("percent", lambda value: percent(value, 1), _decimals(1, 100), "%")
RATIO = Kind("ratio", _decimals(2), _decimals(2))
NUMBER = Kind("number", number, _decimals(3))
COUNT = Kind("count", number, number, spread=False)
OPERATIONS = Kind("count", si, si, spread=False)
ENERGY = Kind("energy", energy, microjoules, "µJ", spread=False)
SECONDS = Kind("duration", duration, _decimals(1), "s")


@dataclass(frozen=True)
class Quantity:
    """One row of the table.

    Args:
        key: Column of :func:`~qbsnn.results.frame` and of CSV files; ``final/KEY`` at W&B.
        title: What it is called in a summary, a heading or on a page.
        kind: How values are shown.
        read: Takes a result and returns the value, a mapping from members to values, or ``None`` where there is none.
        better: Whether a larger value is better.
        meaning: What a reader must know besides the title.
        views: Where it appears.
        by: What the members are, for a quantity whose ``read`` returns a mapping.
    """

    key: str
    title: str
    kind: Kind
    read: Callable[[Result], float | Mapping[str, float] | None]
    better: Literal["higher", "lower", "neither"] = "neither"
    meaning: str = ""
    views: tuple[str, ...] = VIEWS
    by: str = ""

    @property
    def heading(self) -> str:
        """The title with the unit of a table's column."""
        return f"{self.title} ({self.kind.heading})" if self.kind.heading else self.title


def _best(name: str) -> Callable[[Result], float | None]:
    return lambda result: result.metrics.best.get(name)


def _check(block: str, name: str) -> Callable[[Result], float | Mapping[str, float] | None]:
    """A field of a block, where that check or count ran."""
    return lambda result: getattr(ran(getattr(result, block)), name, None)


def _proven(result: Result) -> float | None:
    block = ran(result.integer)
    if block is None or not block.passed:
        return None
    samples = result.data.get("samples")
    images = samples.get("test", block.images) if isinstance(samples, Mapping) else block.images
    return block.acc if block.images == images else None


def _integer_exit(read: Callable[[EarlyExit], float]) -> Callable[[Result], float | None]:
    def value(result: Result) -> float | None:
        block = ran(result.integer)
        return read(block.exit) if block is not None and isinstance(block.exit, EarlyExit) else None

    return value


def asked(quantity: str) -> Callable[[Result], float | None]:
    """The budget of a run, by its quantity; none without spikes, as the count or else training says."""

    def read(result: Result) -> float | None:
        budget, block = result.config.get("budget"), ran(result.energy)
        trained = "train/budget" in result.metrics.last or not result.metrics.last
        spiking = trained if block is None else block.mean_rate is not None
        found = budget.get("target") if isinstance(budget, Mapping) and budget.get("quantity") == quantity else None
        return float(found) if spiking and isinstance(found, (int, float)) else None

    return read


def _per_image(name: str) -> Callable[[Result], float | None]:
    def read(result: Result) -> float | None:
        block = ran(result.energy)
        return sum(getattr(layer, name) for layer in block.layers) / block.images if block and block.images else None

    return read


def _estimates(result: Result) -> dict[str, float]:
    block = ran(result.energy)
    totals = block.totals if block else {}
    return {model: networks["network"].total for model, networks in totals.items() if "network" in networks}


def _exit_energy(result: Result) -> float | None:
    block, left = ran(result.energy), ran(result.early_exit)
    return block.with_accumulates(left.share) if block and block.images and left and left.acs_whole else None


def _over(other: str) -> Callable[[Result], dict[str, float]]:
    """By model, the energy of the network over that of another one."""

    def read(result: Result) -> dict[str, float]:
        block = ran(result.energy)
        return {model: shares[other] for model, shares in block.relative.items() if other in shares} if block else {}

    return read


_CHOSEN = "of the weights that were best on validation images; test images chose nothing"
_BELOW, _BY_MODEL = "below 1 the spiking network needs less", "energy model"
_COLUMNS = (TABLE, PAGE, WANDB)

QUANTITIES: list[Quantity] = [
    Quantity("test/acc", "test accuracy", PERCENT, _best("test/acc"), "higher", _CHOSEN, _COLUMNS),
    Quantity("last/test/acc", "test accuracy, last epoch", PERCENT, lambda result: result.metrics.last.get("test/acc"),
             "higher", "of the weights after the last epoch", _COLUMNS),
    Quantity("val/acc", "validation accuracy", PERCENT, _best("val/acc"), "higher", _CHOSEN, (WANDB,)),
    Quantity("integer/acc", "integer accuracy", PERCENT, _check("integer", "acc"), "higher",
             "test accuracy of the integer network", (PAGE, WANDB)),
    Quantity("integer/proven_acc", "integer accuracy", PERCENT, _proven, "higher",
             "test accuracy of the integer network where it is proven and ran on all test images", (TABLE,)),
    Quantity("integer/spike_mismatches", "mismatches", COUNT, _check("integer", "spike_mismatches"), "lower",
             "spikes in which the integer network and the independent int64 engine differ; must be 0", (PAGE, WANDB)),
    Quantity("integer/membrane_mismatches", "mismatches in membranes", COUNT,
             _check("integer", "membrane_mismatches"), "lower", "as for spikes", (WANDB,)),
    Quantity("integer/logit_mismatches", "mismatches in logits", COUNT,
             _check("integer", "logit_mismatches"), "lower", "as for spikes", (WANDB,)),
    Quantity("integer/onnxruntime_mismatches", "mismatches with onnxruntime", COUNT,
             _check("integer", "onnxruntime_mismatches"), "lower", "as for spikes", (WANDB,)),
    Quantity("absorption/acc", "absorbed accuracy", PERCENT, _check("absorption", "acc"), "higher",
             "of the absorbed network, on the images of its check", (WANDB,)),
    Quantity("absorption/spike_mismatches", "mismatches of absorption", COUNT,
             _check("absorption", "spike_mismatches"), "lower",
             "spikes in which trained and absorbed network differ, ties aside; must be 0", (WANDB,)),
    Quantity("absorption/ties", "ties of absorption", COUNT, _check("absorption", "ties"),
             meaning="spikes that differ within rounding of a threshold", views=(WANDB,)),
    Quantity("params", "parameters", COUNT, lambda result: result.params or None),
    Quantity("mean_burst", "mean burst", NUMBER, _check("energy", "mean_rate"),
             meaning="spikes per neuron and step on test images; a burst of s counts s times", views=_COLUMNS),
    Quantity("spikes_per_synapse", "spikes per synapse", NUMBER, _check("energy", "spikes_per_synapse"), "lower",
             "accumulates per synapse and image; a burst of s counts s times", (WANDB,)),
    Quantity("acs_per_image", "accumulates per image", OPERATIONS, _per_image("acs"), "lower",
             "a burst of s costs s accumulates", (TABLE, WANDB)),
    Quantity("macs_per_image", "MACs per image", OPERATIONS, _per_image("macs"), "lower",
             "products of a weight and a real number, each with its accumulate", (TABLE, WANDB)),
    Quantity("relative_energy", "relative energy", PERCENT_1, _check("energy", "relative_synapses"), "lower",
             "estimate: fp32 synaptic operations ÷ those of the dense ReLU network"),
    Quantity("energy_budget", "energy budget", PERCENT_1, asked("energy"),
             meaning="the relative energy asked for in training", views=(SUMMARY, PAGE)),
    Quantity("accumulates_budget", "budget of accumulates", NUMBER, asked("accumulates"),
             meaning="accumulates per synapse and image asked for in training", views=(SUMMARY, PAGE)),
    Quantity("energy_estimate", "energy per image, estimates", ENERGY, _estimates, "lower", by=_BY_MODEL),
    Quantity("energy_over_relu", "energy ÷ zero-skipping ReLU network's", RATIO, _over("relu"), "lower", _BELOW,
             (SUMMARY, PAGE, WANDB), _BY_MODEL),
    Quantity("energy_over_quantized", "energy ÷ level-matched ReLU network's", RATIO, _over("quantized"), "lower",
             _BELOW, (SUMMARY, WANDB), _BY_MODEL),
    Quantity("energy_over_relu_dense", "energy ÷ dense ReLU network's", RATIO, _over("relu_dense"), "lower", _BELOW,
             (WANDB,), _BY_MODEL),
    Quantity("exit/acc", "accuracy with early exit", PERCENT, _check("early_exit", "acc"),
             "higher", "each image stops at the step where its decision is safe"),
    Quantity("exit/steps", "time steps with early exit", RATIO, _check("early_exit", "mean_steps"), "lower",
             "mean over test images"),
    Quantity("exit/acs", "accumulates with early exit", PERCENT_1, _check("early_exit", "share"), "lower",
             "of those with all steps"),
    Quantity("exit/relative_energy", "relative energy with early exit", PERCENT_1, _exit_energy, "lower",
             "estimate: all products, and the accumulates until each image left"),
    Quantity("integer/exit_acc", "integer accuracy with early exit", PERCENT, _integer_exit(lambda block: block.acc),
             "higher", "of the integer network, which stops each image by its own margin"),
    Quantity("integer/exit_steps", "integer time steps with early exit", RATIO,
             _integer_exit(lambda block: block.mean_steps), "lower", "mean over test images"),
    Quantity("integer/exit_acs", "integer accumulates with early exit", PERCENT_1,
             _integer_exit(lambda block: block.share), "lower", "of those with all steps, behind the first layer"),
    Quantity("robust/noise", "accuracy under noise", PERCENT, _check("robustness", "noise"), "higher",
             "Gaussian on pixels in [0, 1], cut to [0, 1], by standard deviation σ", by="σ"),
    Quantity("robust/missing", "accuracy, a step missing", PERCENT, _check("robustness", "missing"), "higher",
             "one time step has no input; mean over which one"),
    Quantity("robust/longer", "accuracy with T + 1", PERCENT, _check("robustness", "longer"), "higher",
             "tested with one time step more than trained"),
    Quantity("robust/shorter", "accuracy with T − 1", PERCENT, _check("robustness", "shorter"), "higher",
             "tested with one time step fewer than trained"),
    Quantity("epochs", "epochs", COUNT, lambda result: result.timing.epochs or None, views=(WANDB,)),
    Quantity("fit_seconds", "fit time", SECONDS, lambda result: result.timing.fit_seconds or None, "lower",
             "training and its validation", (PAGE, WANDB)),
    Quantity("total_seconds", "time in all", SECONDS, lambda result: result.timing.total_seconds or None, "lower",
             "training, test and checks", (WANDB,)),
]  # fmt: skip
"""The quantities in the order in which views show them. A row that is appended appears in every view."""


def values(result: Result, view: str | None = None) -> dict[str, float]:
    """The values of a result by column, as read: shares in [0, 1], picojoules, seconds.

    Args:
        result: A run's result.
        view: One of :data:`VIEWS`, to take its quantities alone.

    Returns:
        By ``key``, or ``key/member`` for a quantity with members. What the result does not hold is left out.
    """
    found: dict[str, float] = {}
    for quantity in listed(view):
        value = quantity.read(result)
        if isinstance(value, Mapping):
            found |= {f"{quantity.key}/{member}": item for member, item in value.items()}
        elif value is not None:
            found[quantity.key] = value
    return found


def texts(result: Result) -> dict[str, str]:
    """The values of a result by ``key`` with their units; members in one text; a dash for what it does not hold."""
    found = {}
    for quantity in QUANTITIES:
        value = quantity.read(result)
        members = value if isinstance(value, Mapping) else {} if value is None else {"": value}
        shown = (quantity.kind.text(item) + (f" ({member})" if member else "") for member, item in members.items())
        found[quantity.key] = ", ".join(shown) or NONE
    return found


def listed(view: str | None = None) -> Iterator[Quantity]:
    """The quantities of a view, or all of them."""
    return (quantity for quantity in QUANTITIES if view is None or view in quantity.views)


def of_columns(columns: Iterable[str]) -> dict[str, Quantity]:
    """The quantities that columns of a frame hold, in the order of the table.

    A member has a row of its own: its key is the column, and its title names the member.

    >>> [quantity.title for quantity in of_columns(["seed", "energy_estimate/fp32", "test/acc"]).values()]
    ['test accuracy', 'energy per image, estimates, fp32']
    """
    names, keys, found = list(columns), {quantity.key for quantity in QUANTITIES}, {}
    for quantity in QUANTITIES:
        for name in names:
            if name == quantity.key:
                found[name] = quantity
            elif name.startswith(f"{quantity.key}/") and name not in keys:
                member = name.removeprefix(f"{quantity.key}/")
                found[name] = replace(quantity, key=name, title=f"{quantity.title}, {member}")
    return found


def spread(quantity: Quantity, mean: float, sd: float = math.nan) -> str:
    """A mean, with its standard deviation where there is one, without the unit; a dash for NaN.

    >>> spread(QUANTITIES[0], 0.975, 0.0025), spread(QUANTITIES[0], 0.975), spread(QUANTITIES[0], float("nan"))
    ('97.50 ± 0.25', '97.50', '–')
    """
    if math.isnan(mean):
        return NONE
    cell = quantity.kind.cell
    return cell(mean) + (f" ± {cell(sd)}" if quantity.kind.spread and not math.isnan(sd) else "")
