"""A new figure of merit is one row of the table of quantities: it then appears in every view."""

import csv
import json
import re

import pytest

from qbsnn import results
from qbsnn.cli.summary import summarise
from qbsnn.report.tables.documents import find_plan, write_table
from qbsnn.results.quantities import PAGE, PERCENT, Quantity
from qbsnn.tracking.runs import final_metrics
from tests.report.samples import make_result
from tests.report.sweeps import write_plan, write_sweep
from tests.test_docs import blocks

SILENT = Quantity(
    "silent",
    "silent neurons",
    PERCENT,
    lambda result: sum(layer.silent for layer in result.layers) / len(result.layers),  # of the sample: 0.1 in each
    "lower",
    "mean over the layers",
)
BY_LAYER = Quantity(
    "scale",
    "scale Δ",
    PERCENT,
    lambda result: {layer.name: layer.delta for layer in result.layers},  # of the sample: 0.5 in each
    by="layer",
)


def test_a_new_row_appears_in_summary_table_page_and_wandb(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("qbsnn.results.quantities.QUANTITIES", [*results.QUANTITIES, SILENT, BY_LAYER])

    config = {"name": "some", "T": 4, "neuron": {"s_max": 8}, "paths": {"run": str(tmp_path)}}
    result = make_result(config=config)
    summarise(result)
    shown = capsys.readouterr().out.splitlines()[1:]
    lines = dict(re.split(r"\s{2,}", line.strip(), maxsplit=1) for line in shown)
    assert lines["silent neurons"] == "10.00 %; mean over the layers"
    assert lines["scale Δ"] == "50.00 % (stem.neuron), 50.00 % (block.neuron)"

    sweeps, conf = write_sweep(tmp_path / "sweeps"), write_plan(tmp_path / "conf")
    files = {path.name: path for path in write_table(find_plan("some", conf), sweeps, tmp_path / "out")}
    shown = files["table_some.md"].read_text()
    assert "| silent neurons (%) | scale Δ (%) |" in shown and "| 10.00 ± 0.00 | 50.00 ± 0.00 / 50.00 ± 0.00 |" in shown
    assert r"silent neurons (\%) & scale $\Delta$ (\%)" in files["table_some.tex"].read_text()
    (row, *_), (run, *_) = (
        list(csv.DictReader(files[name].read_text().splitlines())) for name in ("table_some.csv", "table_some_runs.csv")
    )
    assert (float(row["silent mean"]), run["silent"], run["scale/stem.neuron"]) == (pytest.approx(0.1), "0.1", "0.5")

    assert final_metrics(result)["final/silent"] == 0.1
    assert final_metrics(result)["final/scale/block.neuron"] == 0.5

    page = results.values(result, PAGE)
    assert page["silent"] == 0.1 and page["scale/stem.neuron"] == 0.5
    assert {"silent", "scale/block.neuron"} <= set(results.frame(sweeps).columns)


def test_the_example_for_notebooks_runs(tmp_path, monkeypatch, capsys):
    write_sweep(tmp_path / "outputs" / "sweeps")
    (tmp_path / "outputs" / "broken").mkdir()
    (tmp_path / "outputs" / "broken" / "result.json").write_text("[" * 200_000)
    monkeypatch.chdir(tmp_path)
    (code,) = blocks("experiments.md", "python")
    exec(code, {})
    shown = capsys.readouterr().out
    assert "broken/result.json" in shown and "nests too deep" in shown
    assert json.loads((next(tmp_path.rglob("0_*")) / "result.json").read_text())["seed"] == 0
    (means,) = [line.split() for line in shown.splitlines() if line.startswith("QBLIF") and "3" in line.split()]
    assert means[:3] == ["QBLIF", "4", "0.93"]
