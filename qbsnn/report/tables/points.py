"""The groups of a sweep as points to draw, and the lines that join them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from qbsnn.report.tables.table import energies, percent_of
from qbsnn.results.formatting import chosen
from qbsnn.results.statistics import Summary, summary
from qbsnn.results.sweeps import Group, Sweep

NEURONS = {
    "QBLIF": "QB-LIF",
    "LIF": "binary LIF",
    "ReLU": "ReLU (ANN)",
    "QuantReLU": "quantised ReLU",
    "BurstLIF": "burst LIF, Δ fixed",
    "ILIF": "I-LIF",
    "QATQBLIF": "QB-LIF, low-bit weights",
}


@dataclass(frozen=True)
class Point:
    """One group. ``accuracy``: test accuracy in %; ``energy``: estimated pJ per image by model."""

    label: str
    row: str
    neuron: str
    T: int
    s_max: int | None
    alpha: float | None
    beta: float | None
    seeds: tuple[float, ...]
    accuracy: Summary
    energy: dict[str, Summary]


def points(sweep: Sweep) -> list[Point]:
    """A point for every group with a finished cell."""
    found = (_point(group) for group in sweep.groups)
    return [point for point in found if point is not None]


def lines(found: list[Point], x: str) -> dict[str, list[Point]]:
    """The points that have an ``x`` (the name of a field), by line and ascending.

    A line is a neuron; where that would put two points of one line on one place, a neuron with what else varies, and at
    last a row of the sweep.
    """
    found = [point for point in found if getattr(point, x) is not None]
    others = {"T": "T", "s_max": "s_max", "alpha": "α", "beta": "β"}
    varying = [name for name in others if name != x and len({getattr(point, name) for point in found}) > 1]

    def rest(point: Point) -> str:
        known = [f"{others[name]} = {getattr(point, name)}" for name in varying if getattr(point, name) is not None]
        return ", ".join(known)

    keys: list[Callable[[Point], str]] = [
        lambda point: point.neuron,
        lambda point: ", ".join(part for part in (point.neuron, rest(point)) if part),
        lambda point: point.row,
        lambda point: ", ".join(part for part in (point.row, rest(point)) if part),
    ]
    for key in keys:
        places = [(key(point), getattr(point, x)) for point in found]
        if len(set(places)) == len(places):
            break
    grouped: dict[str, list[Point]] = {}
    for point in found:
        grouped.setdefault(key(point), []).append(point)
    return {name: sorted(line, key=lambda point: getattr(point, x)) for name, line in grouped.items()}


def pareto(found: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The (cost, accuracy) pairs that no other beats: none is as cheap and better, or cheaper and as good.

    >>> pareto([(1, 90), (2, 89), (3, 95), (3, 94), (4, 95)])
    [(1, 90), (3, 95)]
    """
    front: list[tuple[float, float]] = []
    for cost, accuracy in sorted(found, key=lambda pair: (pair[0], -pair[1])):
        if not front or accuracy > front[-1][1]:
            front.append((cost, accuracy))
    return front


def _point(group: Group) -> Point | None:
    results = list(group.results())
    values = tuple(percent_of(result) for result in results)
    accuracy = summary(values)
    if accuracy is None:
        return None
    neuron = results[0].config.get("neuron", {})
    costs = [energies(result) for result in results]
    models = dict.fromkeys(model for cost in costs for model in cost)
    energy = {model: summary([cost[model] for cost in costs if model in cost]) for model in models}
    name = chosen(results[0].config, "neuron") or "?"
    return Point(
        group.label, group.row, NEURONS.get(name, name), int(results[0].config.get("T", 1)),
        neuron.get("s_max"), neuron.get("alpha"), neuron.get("beta"), values, accuracy,
        {model: total for model, total in energy.items() if total is not None},
    )  # fmt: skip
