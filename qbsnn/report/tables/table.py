"""A sweep's table: from a row for each run to a row for each setting, with mean and spread over its seeds."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from qbsnn.bounds import BUDGET_TOLERANCE
from qbsnn.results.formatting import NONE
from qbsnn.results.published import Published, figure, of_the_same_sets
from qbsnn.results.quantities import TABLE, Quantity, listed, of_columns, spread
from qbsnn.results.statistics import Difference, paired
from qbsnn.results.sweeps import Plan

NOT_RUN = "not run"
COMPARED = "test/acc"
"""The quantity whose difference to the baseline a table shows."""
NOISE = "robust/noise/"
"""What the columns of accuracies under noise begin with; σ follows."""


@dataclass(frozen=True)
class Table:
    """What a table is written from.

    Args:
        plan: The sweep's plan.
        cells: A row per run, see :func:`~qbsnn.results.sweeps.cells_frame`.
        means: By label, for each quantity ``(column, mean | std | count)`` over the runs that are done.
        differences: By label, to the baseline; a row without one is left out.
        published: By label, what others published of that setting.
        others: All that is published on the same data.
    """

    plan: Plan
    cells: pd.DataFrame
    means: pd.DataFrame
    differences: dict[str, Difference]
    published: dict[str, list[Published]]
    others: list[Published]


def make_table(plan: Plan, cells: pd.DataFrame) -> Table:
    """Average over the seeds of each setting.

    Raises:
        DataError: A row asks for published figures that there are not.
    """
    columns = {name: cells[name].astype("float64") for name in shown_in_table(cells)}
    means = pd.DataFrame(columns, cells.index).groupby(cells["label"], sort=False).agg(["mean", "std", "count"])
    by_label = dict(iter(cells.groupby("label", sort=False)))
    rows = {label: group["row"].iloc[0] for label, group in by_label.items()}
    published = {
        label: [figure(key, f"sweep {plan.name}, row {label}") for key in plan.published.get(row, [])]
        for label, row in rows.items()
    }
    seeds = {label: group.set_index("seed")[COMPARED].to_dict() for label, group in by_label.items()}
    differences = {}
    for label, row in rows.items():
        # a grid is compared with the baseline's row at the same values
        other = f"{plan.baseline}{label.removeprefix(row)}"
        if plan.baseline is not None and row != plan.baseline and other in seeds:
            differences[label] = paired(seeds[label], seeds[other])
    known = {label: found for label, found in differences.items() if found is not None}
    others = of_the_same_sets([key for keys in plan.published.values() for key in keys])
    return Table(plan, cells, means, known, published, others)


def shown_in_table(cells: pd.DataFrame) -> dict[str, Quantity]:
    """The quantities among the columns of a frame that tables show."""
    return {name: quantity for name, quantity in of_columns(cells.columns).items() if TABLE in quantity.views}


def texts(table: Table) -> pd.DataFrame:
    """The table as it is read: a row per setting, a column per heading.

    A column without a value in any row is left out, except for those up to the test accuracy.
    """
    found = pd.DataFrame([_row(table, str(label)) for label in table.means.index])
    always = list(found.columns).index(_heading(COMPARED)) + 1 if len(found) else 0
    return found[[name for at, name in enumerate(found) if at < always or (found[name] != NONE).any()]]


def _heading(key: str) -> str:
    return next(quantity.heading for quantity in listed() if quantity.key == key)


def _row(table: Table, label: str) -> dict[str, str]:
    cells = table.cells[table.cells["label"] == label]
    done = int((cells["status"] == "done").sum())
    row = {"method": label, "T": _all(cells["T"]), "s_max": _all(cells["s_max"])}
    members = of_columns(table.means.columns.get_level_values(0))
    for quantity in listed(TABLE):
        names = [name for name in members if name == quantity.key or name.startswith(f"{quantity.key}/")]
        means = [table.means.loc[label, name] for name in names]
        each = [counted_spread(quantity, found, done) if found["count"] else NONE for found in means]
        # a member without a value keeps its place, so that those after it keep theirs
        row[quantity.heading] = " / ".join(each) if set(each) - {NONE} else NONE
        if quantity.key == COMPARED:
            row[quantity.heading] = told_with_n(row[quantity.heading], cells)
            row["difference (points)"] = difference(table.differences.get(label))
    row["published (%)"] = "; ".join(f"{item.accuracy:g} ({item.source})" for item in table.published[label]) or NONE
    return row


def counted_spread(quantity: Quantity, found: pd.Series, done: int) -> str:
    """Mean ± standard deviation, and over how many runs (``count``) where that is fewer than are done.

    >>> accuracy = of_columns([COMPARED])[COMPARED]
    >>> found = pd.Series({"mean": 0.5, "std": 0.01, "count": 2})
    >>> counted_spread(accuracy, found, 2), counted_spread(accuracy, found, 3)
    ('50.00 ± 1.00', '50.00 ± 1.00 (2)')
    """
    text = spread(quantity, found["mean"], found["std"])
    return text + (f" ({found['count']:.0f})" if found["count"] < done else "")


def _all(column: pd.Series) -> str:
    """The value that the runs of one row share; values that differ are all named."""
    return ", ".join(str(value) for value in column.dropna().unique()) or NONE


def told_with_n(accuracy: str, cells: pd.DataFrame) -> str:
    """An accuracy with the number of seeds behind it, and of how many where runs are missing."""
    done = int((cells["status"] == "done").sum())
    if not done:
        return NOT_RUN
    return f"{accuracy} (n = {done}{f' of {len(cells)}' if done < len(cells) else ''})"


def difference(found: Difference | None) -> str:
    """A difference of shares in percentage points, with its interval, p and the number of pairs.

    >>> difference(Difference(0.015, 0.0025, 0.0275, 0.031, 3)), difference(Difference(-0.005, None, None, None, 1))
    ('+1.50 [+0.25, +2.75], p = 0.031, 3 pairs', '−0.50, 1 pair')
    """
    if found is None:
        return NONE
    parts = [f"{100 * found.mean:+.2f}"]
    if found.low is not None and found.high is not None:
        parts[0] += f" [{100 * found.low:+.2f}, {100 * found.high:+.2f}]"
    if found.p is not None:
        parts.append("p < 0.001" if found.p < 0.001 else f"p = {found.p:.2g}")
    parts.append(f"{found.pairs} pair" + "s" * (found.pairs != 1))
    return ", ".join(parts).replace("-", "−")


def caption(table: Table) -> list[str]:
    """What the columns are, as sentences."""
    lines = [
        "Mean ± sample standard deviation over n seeds, of the weights that were best on validation images; test "
        "images chose nothing. Integer: the proven integer network."
    ]
    counts = table.means.xs("count", axis=1, level=1)
    done = (table.cells["status"] == "done").groupby(table.cells["label"], sort=False).sum()
    if ((counts > 0) & counts.lt(done, axis=0)).any(axis=None):
        lines.append("(k): over k of the n seeds.")
    if any(found.pairs > 1 for found in table.differences.values()):
        lines.append(
            f"Difference: to {table.plan.baseline}, paired over seeds, with its 95 % confidence interval and the "
            "two-sided p of Student's paired t, not corrected for the number of rows; few pairs make it weak."
        )
    elif table.differences:
        lines.append(f"Difference: to {table.plan.baseline}, of one pair of seeds, so without an interval.")
    if sigmas := [name.removeprefix(NOISE) for name in shown_in_table(table.cells) if name.startswith(NOISE)]:
        lines.append(f"Noise: Gaussian on pixels in [0, 1], cut to [0, 1], σ = {' / '.join(sigmas)}.")
    if models := table.cells.attrs["models"]:
        lines.append(
            f"Energy: estimates by {len(models)} price models, {' / '.join(models.values())}. Relative energy: "
            "estimated fp32 energy of synaptic operations, % of the same architecture as a dense ReLU network, the "
            "convention of published tables."
        )
    return [*lines, *over_budget(table)]


def over_budget(table: Table) -> list[str]:
    """A sentence that names the rows whose runs spent more on test images than was asked, if there are any."""
    named = []
    for label, cells in table.cells.groupby("label", sort=False):
        beyond = pd.Series(False, cells.index)
        for spent, asked in (("relative_energy", "energy_budget"), ("spikes_per_synapse", "accumulates_budget")):
            if {spent, asked} <= set(cells):
                limit = cells[asked].astype("float64") * (1 + BUDGET_TOLERANCE)
                beyond |= cells[spent].astype("float64") > limit
        if beyond.any():
            named.append(f"{label} ({beyond.sum()} of {(cells['status'] == 'done').sum()} runs)")
    share = f"{100 * BUDGET_TOLERANCE:g} %"
    return [f"More than {share} over the budget on test images: {'; '.join(named)}."] if named else []


def absent(table: Table) -> list[str]:
    """Which runs are not done, and why; seeds with the same reason stand in one line."""
    cells = table.cells[table.cells["status"] != "done"]
    found: dict[tuple[str, str], list[str]] = {}
    for cell in cells.itertuples():
        status = NOT_RUN if cell.status == "missing" else cell.status
        found.setdefault((cell.label, f"{status}{f': {cell.error}' if cell.error else ''}"), []).append(str(cell.seed))
    return [f"{label}, seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}: {why}" for (label, why), seeds in found.items()]
