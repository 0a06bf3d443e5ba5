"""A sweep from the command line to its table, its figure and the results page."""

import csv
import json
import re

import pytest

from tests.report.sweeps import write_plan, write_sweep
from tests.tool import TINY, one_paragraph

SETTINGS = (*TINY, "report=false", "callbacks.integer.onnx_images=0", "trainer.max_epochs=2")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["s_max", "timesteps", "alpha_beta"])
def test_a_sweep_gives_its_table_and_figure(tool, name):
    smaller = [word for word in SETTINGS if not word.startswith("model.width")]
    assert tool("train.py", f"sweep={name}", "sweep.seeds=[0]", "model.width=0.125", *smaller) == 0
    assert tool("scripts/make_tables.py", f"table={name}") == 0
    out = tool.folder / "outputs" / "tables"
    assert {f"{name}{ending}" for ending in (".md", ".tex", ".csv", "_runs.csv", f"_{name}.png", f"_{name}.pdf")} <= {
        path.name for path in out.iterdir()
    }
    runs = {run["fingerprint"]: run for run in csv.DictReader((out / f"{name}_runs.csv").read_text().splitlines())}
    results = [json.loads((path / "result.json").read_text()) for path in tool.runs()]
    assert len(runs) == len(results) >= 4
    for result in results:
        row = runs[result["cell"]]
        assert float(row["test/acc"]) == result["metrics"]["best"]["test/acc"]
        assert row["commit"] == (result["git_commit"] or "")
    text = (out / f"{name}.md").read_text()
    assert len(re.findall(r"\[0\]\(<\.\./sweeps/", text)) == len(runs)
    docs = tool.folder / "docs"
    docs.mkdir()
    (docs / "page.md").write_text(f"<!-- begin: tables {name} -->\n<!-- end -->")
    assert tool("scripts/make_tables.py", f"store={name}", "docs=docs") == 0
    page = (docs / "page.md").read_text()
    assert f"![{'Mean' if name == 'alpha_beta' else 'Accuracy'}" in page and f"results_{name}_{name}.png" in page
    assert "Not run here. Command: `python train.py sweep=table_imagenet`" in page and "62.1" in page


@pytest.mark.slow
def test_rows_of_a_table_come_from_their_own_runs(tool):
    assert tool("train.py", "sweep=table_digits", "sweep.seeds=[0]", *SETTINGS) == 0
    assert tool("scripts/make_tables.py", "table=digits", "out=mine") == 0
    rows = list(csv.DictReader((tool.folder / "mine" / "table_digits.csv").read_text().splitlines()))
    assert [row["method"] for row in rows][:3] == ["ANN", "Quantised ReLU, 4 bits", "Binary LIF, T = 4"]
    assert [(row["T"], row["s_max"]) for row in rows[-3:]] == [("2", "8"), ("4", "8"), ("8", "8")]
    assert all(row["seeds_done"] == row["seeds_planned"] == "1" for row in rows)
    assert rows[0]["mean_burst mean"] == "" and float(rows[-1]["mean_burst mean"]) > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["table=nothing"], "table=nothing: no such sweep; there are alpha_beta, cifar10"),
        (["store=nothing"], "store=nothing: no such sweep; there are alpha_beta, cifar10"),
        (["table=digits"], "run `python train.py sweep=table_digits`"),
        (["tabel=digits"], "tabel is not a key of this tool: did you mean table?"),
        (["digits"], "digits is no key=value: did you mean table=digits?"),
        ([], "give table=NAME, or store=NAME to keep results, or docs=true"),
        (["store=s_max"], "s_max has no cells in"),
        (["docs=true", "out=x"], "out goes with table=NAME"),
        (["table=gone.yaml"], "gone.yaml cannot be read"),
    ],
)
def test_bad_arguments_are_answered_in_one_paragraph(tool, capsys, arguments, message):
    assert tool("scripts/make_tables.py", *arguments) == 1
    assert message in one_paragraph(capsys.readouterr().err)
    assert not tool.left_behind()


def test_a_sweep_of_another_folder_has_a_table_and_is_not_stored(tool, capsys):
    write_sweep(write_plan(tool.folder, name="own") / "outputs/sweeps", {"LIF, T = 4": {0: "missing"}}, name="own")
    assert tool("scripts/make_tables.py", "table=own.yaml") == 0
    assert tool("scripts/make_tables.py", "store=own.yaml") == 1
    assert "store=own.yaml: results are kept of the sweeps of " in one_paragraph(capsys.readouterr().err)
