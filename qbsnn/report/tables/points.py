"""The settings of a sweep as points to draw, and the lines that join them."""

from __future__ import annotations

import pandas as pd

from qbsnn.report.tables.table import COMPARED

NEURONS = {
    "QBLIF": "QB-LIF",
    "LIF": "binary LIF",
    "ReLU": "ReLU (ANN)",
    "QuantReLU": "quantised ReLU",
    "BurstLIF": "burst LIF, Δ fixed",
    "ILIF": "I-LIF",
    "QATQBLIF": "QB-LIF, low-bit weights",
}
SETTINGS = {"T": "T", "s_max": "s_max", "alpha": "α", "beta": "β"}


def points(cells: pd.DataFrame) -> pd.DataFrame:
    """A row for every setting with a test accuracy.

    Returns:
        By label: ``row``, ``neuron`` (as it is called in a legend), the settings; ``mean``, ``sd`` and ``n`` of the
        accuracy in %, ``sd`` NaN for a single seed; ``cost`` and ``cost_sd``: estimated fp32 energy per image in pJ.
    """
    done = cells[cells[COMPARED].notna()]
    groups = done.groupby("label", sort=False)
    found = groups[["row", "neuron", *SETTINGS]].first()
    found["neuron"] = found["neuron"].fillna("?").map(lambda name: NEURONS.get(name, name))
    accuracy = (100 * done[COMPARED]).groupby(done["label"], sort=False)
    found["mean"], found["sd"], found["n"] = accuracy.mean(), accuracy.std(), accuracy.count()
    if "energy_estimate/fp32" in done:
        cost = groups["energy_estimate/fp32"]
        found["cost"], found["cost_sd"] = cost.mean(), cost.std()
    return found


def lines(found: pd.DataFrame, x: str) -> dict[str, pd.DataFrame]:
    """The points that have the setting ``x``, by line and ascending.

    A line is a neuron; where that would put two points of one line on one place, a neuron with what else varies, and at
    last a row of the sweep.
    """
    found = found[found[x].notna()]
    varying = [name for name in SETTINGS if name != x and found[name].nunique(dropna=False) > 1]
    rest = [
        "".join(f", {SETTINGS[name]} = {point[name]:g}" for name in varying if pd.notna(point[name]))
        for _, point in found.iterrows()
    ]
    keys = [found["neuron"], found["neuron"] + rest, found["row"], found["row"] + rest]
    fits = (key for key in keys if not pd.DataFrame({"line": key, "x": found[x]}).duplicated().any())
    key = next(fits, keys[-1])
    return {str(name): line.sort_values(x) for name, line in found.groupby(key, sort=False)}


def pareto(cost: pd.Series, accuracy: pd.Series) -> pd.DataFrame:
    """The points that no other beats: none is as cheap and better, or cheaper and as good.

    >>> pareto(pd.Series([1, 2, 3, 3, 4]), pd.Series([90, 89, 95, 94, 95])).to_numpy().tolist()
    [[1, 90], [3, 95]]
    """
    both = pd.DataFrame({"cost": cost, "accuracy": accuracy}).sort_values(["cost", "accuracy"], ascending=[True, False])
    return both[~(both["accuracy"].cummax().shift() >= both["accuracy"])]
