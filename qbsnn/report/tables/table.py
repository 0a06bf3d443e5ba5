"""A sweep's results as the lines of a table: mean ± sd over seeds, and the difference to the baseline."""

from __future__ import annotations

from dataclasses import dataclass, field

from qbsnn.report.run.energy import counted_energy
from qbsnn.results.published import Published, figure, of_the_same_sets
from qbsnn.results.schema import Integer, Result
from qbsnn.results.statistics import Difference, Summary, paired, summary
from qbsnn.results.sweeps import Group, Sweep

BEST, LAST = "best by validation", "last epoch"


@dataclass
class Line:
    """One row. Accuracies in % of the test set, ``acs`` and ``macs`` per image, ``energies`` by model in pJ per image.

    ``accuracy``: of the weights that were best by validation; ``relative``: estimated fp32 synaptic energy, % of the
    dense ReLU network's. ``notes``: which cells are absent, and why.
    """

    group: Group
    steps: str = ""
    s_max: str = ""
    params: str = ""
    accuracy: Summary | None = None
    last: Summary | None = None
    integer: Summary | None = None
    burst: Summary | None = None
    acs: Summary | None = None
    macs: Summary | None = None
    energies: dict[str, Summary] = field(default_factory=dict)
    relative: Summary | None = None
    difference: Difference | None = None
    published: list[Published] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def planned(self) -> int:
        """How many cells the sweep has for this row."""
        return len(self.group.cells)


@dataclass
class Table:
    """All lines, what others published on the same data, and the names of the energy models."""

    sweep: Sweep
    lines: list[Line]
    others: list[Published]
    models: dict[str, str]


def percent_of(result: Result, which: str = BEST) -> float:
    """Test accuracy in %; NaN where the run has none."""
    metrics = result.metrics.best if which == BEST else result.metrics.last
    return 100 * metrics.get("test/acc", float("nan"))


def integer_percent(result: Result) -> float:
    """Test accuracy of the integer network in %; NaN where it was not run, not proven or not run on all images."""
    block = result.integer
    if not isinstance(block, Integer) or block.skipped is not None or not block.passed:
        return float("nan")
    images = result.data.get("samples", {}).get("test", block.images)
    return 100 * block.acc if block.images == images else float("nan")


def operations(result: Result) -> dict[str, float]:
    """Per image: accumulates ``acs``, products ``macs``, and the mean burst per neuron and step ``burst``."""
    block = counted_energy(result)
    if block is None:
        return {}
    found = {
        "acs": sum(layer.acs for layer in block.layers) / block.images,
        "macs": sum(layer.macs for layer in block.layers) / block.images,
        "relative": 100 * block.relative_synapses,
    }
    return found if block.mean_rate is None else {**found, "burst": block.mean_rate}


def energies(result: Result) -> dict[str, float]:
    """Estimated pJ per image of the network, by model."""
    block = counted_energy(result)
    return {} if block is None else {model: networks["network"].total for model, networks in block.totals.items()}


def make_table(sweep: Sweep) -> Table:
    """Aggregate a sweep.

    Raises:
        DataError: a row asks for published figures that there are not.
    """
    lines = [_line(group, sweep.baseline(group), sweep.plan.name) for group in sweep.groups]
    keys = [key for row in sweep.plan.rows for key in row.published]
    models: dict[str, str] = {}
    for group in sweep.groups:
        for result in group.results():
            block = counted_energy(result)
            models |= block.models if block else {}
    return Table(sweep, lines, of_the_same_sets(keys), models)


def _line(group: Group, baseline: Group | None, name: str) -> Line:
    line = Line(group, published=[figure(key, f"sweep {name}, row {group.label}") for key in group.published])
    results = list(group.results())
    line.steps = _common([str(result.config.get("T", "")) for result in results])
    line.s_max = _common([str(result.config.get("neuron", {}).get("s_max") or "") for result in results])
    line.params = _common([f"{result.params:,}" for result in results])
    line.accuracy = summary([percent_of(result) for result in results])
    line.last = summary([percent_of(result, LAST) for result in results])
    line.integer = summary([integer_percent(result) for result in results])
    counts = [operations(result) for result in results]
    for part in ("burst", "acs", "macs", "relative"):
        setattr(line, part, summary([found[part] for found in counts if part in found]))
    costs = [energies(result) for result in results]
    for model in dict.fromkeys(model for cost in costs for model in cost):
        found = summary([cost[model] for cost in costs if model in cost])
        if found:
            line.energies[model] = found
    if baseline is not None:
        line.difference = paired(by_seed(group), by_seed(baseline))
    for cell in group.cells:
        if cell.result is None:
            why = f": {' '.join(cell.error.split())}" if cell.error else ""
            line.notes.append(f"{group.label}, seed {cell.seed}: {cell.status}{why}")
    return line


def by_seed(group: Group) -> dict[int, float]:
    """Test accuracy in % by seed."""
    return {result.seed: percent_of(result) for result in group.results()}


def _common(values: list[str]) -> str:
    """The value that all runs share; runs of one row that differ are all named."""
    return ", ".join(dict.fromkeys(value for value in values if value))
