"""The measured figures of docs/training.md are those of the result file beside it."""

import re

import pandas as pd

from qbsnn.results.quantities import values
from qbsnn.results.reading import read_result
from tests.tool import ROOT


def test_the_fast_run_on_cifar10():
    page = (ROOT / "docs/training.md").read_text(encoding="utf-8")
    shown = dict(
        re.findall(r"^\| ([^|]+?) \| ([\d.]+)", page.split("### What was measured")[1].split("##")[0], re.MULTILINE)
    )
    result = read_result(ROOT / "docs/results/cifar10_fast_seed0.json")
    found = values(result)
    assert shown["test accuracy, last epoch"] == f"{100 * found['last/test/acc']:.2f}"
    assert shown["test accuracy, best epoch by validation"] == f"{100 * found['test/acc']:.2f}"
    assert shown["accuracy of the integer network (int8, of the best epoch)"] == f"{100 * found['integer/acc']:.2f}"
    assert int(shown["mismatches with the int64 engine, all 10,000 images"]) == found["integer/spike_mismatches"]
    assert result.integer.images == 10_000 and result.integer.passed and result.absorption.passed
    assert shown["relative energy (budget 15 %)"] == f"{100 * found['relative_energy']:.1f}"
    assert f"10 epochs in {result.timing.fit_seconds / 60:.1f} minutes" in page and result.timing.epochs == 10


def test_the_front_on_digits():
    page = (ROOT / "docs/training.md").read_text(encoding="utf-8")
    runs = pd.read_csv(ROOT / "docs/results/energy_front_runs.csv")
    for method, found in runs.groupby("method"):
        neuron, target = method.split(", budget.target=")
        accuracy, integer = 100 * found["test/acc"], 100 * found["integer/proven_acc"]
        spent = 100 * found["relative_energy"].mean()
        line = (
            f"| {neuron} | {100 * float(target):.0f} % | {spent:.1f} % | {accuracy.mean():.2f} ± {accuracy.std():.2f} "
        )
        assert f"{line}| {integer.mean():.2f} ± {integer.std():.2f} |" in page, method
