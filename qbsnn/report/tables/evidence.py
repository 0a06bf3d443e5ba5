"""What the committed result files say: a table per sweep, and how a number of one is written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from scipy import stats

from qbsnn.errors import DataError
from qbsnn.report.tables.stored import read_stored, words
from qbsnn.report.tables.table import COMPARED, NOT_RUN, Table, counted_spread, make_table
from qbsnn.results.quantities import QUANTITIES, of_columns, spread
from qbsnn.results.sweeps import Plan, cells_frame, read_plan


@dataclass(frozen=True)
class Evidence:
    """A sweep: its plan, its table where at least one of its cells is done, its runs whose checks failed."""

    plan: Plan
    table: Table | None
    unproven: frozenset[str] = frozenset()

    def cells(self, label: str) -> pd.DataFrame:
        """The runs of a row that are done.

        Raises:
            DataError: The sweep has no such row; not for one without any stored run.
        """
        if self.table is None:
            return pd.DataFrame()
        found = self.table.cells[self.table.cells["label"] == label]
        if not len(found):
            known = "; ".join(str(name) for name in self.table.means.index)
            raise DataError(f"sweep {self.plan.name} has no row {label!r}; there are {known}")
        return found[found["status"] == "done"]


def gather(conf: Path, results: Path) -> dict[str, Evidence]:
    """Every sweep of ``conf`` by name, with what ``results``/NAME.json holds.

    Raises:
        DataError: No sweep is stored, a stored file has no sweep, or see
            :func:`~qbsnn.report.tables.stored.read_stored`.
    """
    plans = sorted((read_plan(path) for path in conf.glob("*.yaml")), key=_order)
    names = {plan.name for plan in plans}
    files = {path.stem: path for path in sorted(results.glob("*.json"))}
    if not files:
        raise DataError(f"{results} holds no stored sweep: make_tables.py store=NAME writes one")
    if strange := sorted(set(files) - names):
        raise DataError(f"{files[strange[0]]} belongs to no sweep of {conf}")
    found = {}
    for plan in plans:
        cells = read_stored(files[plan.name]) if plan.name in files else []
        table = make_table(plan, cells_frame(cells)) if any(cell.result for cell in cells) else None
        unproven = frozenset(cell.fingerprint or f"{cell.label} {cell.seed}" for cell in cells if cell.unproven)
        found[plan.name] = Evidence(plan, table, unproven)
    return found


def _order(plan: Plan) -> tuple[bool, list[tuple[int, str]], bool]:
    """Tables first, each before its ``_document`` variant, then the sweeps that are there for a figure.

    Numbers in names count as numbers: CIFAR-10 comes before CIFAR-100.
    """
    parts = re.findall(r"(\d*)(\D*)", plan.name.removesuffix("_document"))
    named = [(int(number or 0), text) for number, text in parts]
    return not plan.name.startswith("table_"), named, plan.name.endswith("_document")


def values(evidence: Evidence, label: str, key: str) -> dict[int, float]:
    """A quantity of a row by seed, in the units of ``result.json``; empty where nothing is stored.

    Raises:
        DataError: No such quantity or row.
    """
    _check(key)
    cells = evidence.cells(label)
    if key not in cells:
        return {}
    return {int(seed): float(value) for seed, value in zip(cells["seed"], cells[key], strict=True) if pd.notna(value)}


def of_runs(evidence: Evidence, key: str) -> dict[str, float]:
    """A quantity of every run that has it, by the run's fingerprint.

    Raises:
        DataError: No such quantity.
    """
    _check(key)
    if evidence.table is None or key not in evidence.table.cells:
        return {}
    cells = evidence.table.cells.dropna(subset=[key])
    return {str(run): float(value) for run, value in zip(cells["fingerprint"], cells[key], strict=True)}


def _check(key: str) -> None:
    if not {key, key.rpartition("/")[0]} & {one.key for one in QUANTITIES}:
        raise DataError(f"{key!r} is no quantity; qbsnn/results/quantities.py has them")


def told(evidence: Evidence, label: str, key: str) -> str:
    """Mean ± standard deviation over seeds as tables write it, ``not run`` without any; ``n`` tells how many seeds."""
    done = len(evidence.cells(label))
    if key == "n":
        return str(done)
    found = pd.Series(values(evidence, label, key), dtype="float64")
    if not len(found):
        return NOT_RUN
    return counted_spread(of_columns([key])[key], found.agg(["mean", "std", "count"]), done)


def alike(table: Table) -> bool:
    """Whether all rows have one test accuracy, as rows that deploy one trained network in several ways do."""
    found = table.means[COMPARED]["mean"].dropna()
    return len(found) > 1 and found.nunique() == 1


def reading(table: Table) -> str:
    """Two lines: best and lowest row, and whether rows differ by more than seeds do. One for a single row."""
    if alike(table):
        return "All rows have the same test accuracy, as one network has that is deployed in several ways."
    accuracies = table.means[COMPARED].dropna(subset=["mean"]).sort_values("mean", ascending=False)
    lines = []
    for word, label in (("Best", accuracies.index[0]), ("lowest", accuracies.index[-1])):
        row = accuracies.loc[label]
        text = spread(of_columns([COMPARED])[COMPARED], row["mean"], row["std"])
        lines.append(f"{word}: {label}, {text} % (n = {int(row['count'])})")
    if len(accuracies) == 1:
        return f"One row: {lines[0].removeprefix('Best: ')}."
    first = f"{lines[0]}; {lines[1]}."
    groups = [group[COMPARED].dropna() for _, group in table.cells.groupby("label", sort=False)]
    groups = [group.astype(float) for group in groups if len(group) > 1]
    if len(groups) < 2:
        return f"{first}\nToo few seeds to say whether rows differ by more than seeds do."
    p = float(stats.f_oneway(*groups).pvalue)
    verb = "differ by more than seeds explain" if p < 0.05 else "do not differ by more than seeds explain"
    return f"{first}\nThe rows {verb} (one-way analysis of variance, p {'< 0.001' if p < 0.001 else f'= {p:.2g}'})."


def command(plan: Plan) -> str:
    """What runs the sweep, as Markdown."""
    return f"`python train.py sweep={plan.name}`"


def source(evidence: Evidence, up: str) -> str:
    """With which command, code and machine the runs were made, and where their numbers are."""
    assert evidence.table is not None
    runs = evidence.table.cells[evidence.table.cells["status"] == "done"]
    commits = [
        (commit or "unknown")[:10] + (" with changes" if dirty else "")
        for commit, dirty in zip(runs["commit"], runs["dirty"], strict=True)
    ]
    code, torch = ", ".join(dict.fromkeys(commits)), ", ".join(runs["torch"].fillna("unknown").unique())
    precision = " and ".join(runs["precision"].unique())
    each = [words(one) for one in runs["overrides"]]
    shared = " ".join(word for word in each[0] if all(word in one for one in each))
    same = [f"`{shared}`"] if shared else []
    same += [f"{parts} samples" for parts in runs["samples"].dropna().unique()]
    return (
        f"Command: {command(evidence.plan)}. All its runs: {'; '.join(same) or 'nothing in common'}. "
        f"Hardware: {'; '.join(runs['device'].unique())}. Code: {code}. "
        f"PyTorch {torch}, {precision}. [Every run]({up}results/{evidence.plan.name}.json)."
    )
