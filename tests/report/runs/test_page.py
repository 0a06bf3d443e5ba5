"""The page over all runs: which rows it has, and what they hold."""

from __future__ import annotations

import json
import os
import re
import shutil
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qbsnn.errors import DataError
from qbsnn.report.runs.cells import href, of_run
from qbsnn.report.runs.columns import columns
from qbsnn.report.runs.libraries import datatables, scripts
from qbsnn.report.runs.page import build_index, embedded, headline
from qbsnn.report.runs.payload import payload
from qbsnn.report.runs.rows import collect, settings, thinned
from qbsnn.results.run_files import Series
from qbsnn.results.schema import Integer, Metrics
from tests.report.samples import make_energy, make_result, write_metrics
from tests.tool import Tool, one_paragraph

ROOT = Path(__file__).parents[3]


def configuration(folder: Path, seed: int = 0, s_max: int = 8, **changes: Any) -> dict[str, Any]:
    """A configuration as train.py stores it, paths included."""
    return {
        "name": "digits-vgg5-qb_lif",
        "seed": seed,
        "T": 4,
        "paths": {"run": str(folder), "data": "/data"},
        "data": {"_target_": "qbsnn.data.Digits", "root": "/data", "seed": seed, "crop": 0},
        "model": {"_target_": "qbsnn.models.vgg", "name": "vgg5", "T": 4, "seed": seed},
        "neuron": {"_target_": "qbsnn.neurons.QBLIF", "s_max": s_max},
        "optim": {"scheduler": {"T_max": changes.get("epochs", 20)}},
        "trainer": {"max_epochs": changes.get("epochs", 20), "default_root_dir": str(folder)},
    }


def add_run(outputs: Path, place: str, seed: int = 0, s_max: int = 8, epochs: int = 20, **changes: Any) -> Path:
    folder = outputs / place
    folder.mkdir(parents=True)
    config = configuration(folder, seed, s_max, epochs=epochs)
    make_result(**{"config": config, "seed": seed, **changes}).write(folder / "result.json")
    return folder


def values(outputs: Path, place: str) -> dict[str, Any]:
    (row,) = [row for row in collect(outputs).rows if row.values["run"] == place]
    return row.values


def cells(outputs: Path, place: str) -> dict[str, str]:
    """What the cells of a run show, by the key of their column."""
    found = collect(outputs)
    (row,) = [row for row in found.rows if row.values["run"] == place]
    return {column.key: str(of_run(column, row).html) for column in columns(found)}


def content(page: Path) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text("utf-8"), re.DOTALL)
    assert found
    return json.loads(found[1])


def test_a_folder_whose_name_is_no_utf8_has_a_link(tmp_path: Path) -> None:
    add_run(tmp_path, os.fsdecode(b"caf\xe9"))
    (row,) = collect(tmp_path).rows
    assert href(row) == "caf%E9/result.json"


def test_a_row_holds_the_numbers_of_its_result(tmp_path: Path) -> None:
    folder = add_run(tmp_path, "sweeps/s_max/3_a", seed=3)
    write_metrics(folder / "metrics.csv")
    (folder / "report.html").write_text("the page")
    (row,) = collect(tmp_path).rows
    assert (href(row), row.page, row.checked) == ("sweeps/s_max/3_a/report.html", True, "passed")
    expected = {
        "run": "sweeps/s_max/3_a", "status": "finished", "data": "Digits", "model": "vgg5", "neuron": "QBLIF", "T": 4,
        "s_max": 8, "seed": 3, "params": 1_234_567, "val/acc": 0.9801, "test/acc": 0.9783, "last/test/acc": 0.9712,
        "integer/acc": 0.9688, "integer/spike_mismatches": 0, "mean_burst": 0.025, "relative_energy": 0.1875,
        "energy_estimate/memory": 4_000.0, "epochs": 3, "fit_seconds": 204.0, "started": "2025-06-01T12:00:00+00:00",
        "commit": "0123abc", "sweep": "s_max", "departs": "",
    }  # fmt: skip
    assert {key: row.values[key] for key in expected} == expected
    assert row.curves["val/acc"] == ([0, 1, 2], [0.5, 0.9, 0.8])
    shown = cells(tmp_path, "sweeps/s_max/3_a")
    assert 'title="0123abc, with uncommitted changes"' in shown["commit"] and "0123abc*" in shown["commit"]
    assert shown["test/acc"] == "97.83" and shown["started"] == "2025-06-01 12:00" and shown["fit_seconds"] == "204.0"


def test_runs_that_run_or_failed_or_prove_nothing_are_rows_too(tmp_path: Path) -> None:
    nothing: dict[str, Any] = {"absorption": None, "integer": None, "energy": None, "layers": []}
    running = add_run(tmp_path, "runs/running", status="running", **nothing)
    write_metrics(running / "metrics.csv")
    result = json.loads((running / "result.json").read_text())
    result["timing"] = {}
    (running / "result.json").write_text(json.dumps(result))
    add_run(tmp_path, "runs/failed", status="failed", error="DataError: no data", **nothing)
    add_run(tmp_path, "runs/relu", integer={"skipped": "ReLU puts out real numbers"}, energy=make_energy())
    broken = make_result().integer
    assert isinstance(broken, Integer)
    broken.spike_mismatches, broken.passed = 2, False
    add_run(tmp_path, "runs/wrong", integer=broken)
    found = collect(tmp_path)
    rows = {row.values["run"].partition("/")[2]: row for row in found.rows}
    assert rows["running"].values["status"] == "running" and rows["running"].curves["val/loss"][0] == [0, 1, 2]
    assert "running, seen " in cells(tmp_path, "runs/running")["status"]
    assert 'title="DataError: no data"' in cells(tmp_path, "runs/failed")["status"]
    assert rows["relu"].checked == "skipped"
    assert "real numbers" in cells(tmp_path, "runs/relu")["integer/spike_mismatches"]
    assert rows["wrong"].checked == "failed" and rows["wrong"].values["integer/spike_mismatches"] == 2
    assert cells(tmp_path, "runs/wrong")["integer/spike_mismatches"] == '<span class="failed">2</span>'
    assert href(rows["wrong"]) == "runs/wrong/result.json" and not rows["wrong"].page
    shown = {name: (value, below, tone) for name, value, below, tone in headline(found)}
    assert shown["Runs"][:2] == ("4", "2 finished, 1 running, 1 failed")
    assert shown["Integer networks proven"][::2] == ("0 of 1", "bad")


def test_files_that_are_no_results_are_named_and_not_fatal(tmp_path: Path) -> None:
    for place, text in {"a": "{", "b": "[]", "c": '{"schema_version": 99}', "d": '{"accuracy": 1}'}.items():
        (tmp_path / place).mkdir()
        (tmp_path / place / "result.json").write_text(text)
    (tmp_path / "e" / "result.json").mkdir(parents=True)
    add_run(tmp_path, "runs/good")
    bad = add_run(tmp_path, "runs/bad_curves")
    (bad / "metrics.csv").write_bytes(b"\xff\xfe\x00")
    found = collect(tmp_path)
    assert [place for place, _ in found.refused] == [f"{name}/result.json" for name in "abcd"]
    assert "is not JSON" in found.refused[0][1] and "schema_version must be 1, got 99" in found.refused[2][1]
    rows = {row.values["run"]: row for row in found.rows}
    assert set(rows) == {"runs/good", "runs/bad_curves"}
    assert "metrics.csv cannot be read" in rows["runs/bad_curves"].unreadable
    source = build_index(tmp_path).read_text(encoding="utf-8")
    assert "4 files are no results" in source and "<code>c/result.json</code>" in source
    for folder in tmp_path.glob("runs/*"):
        shutil.rmtree(folder)
    assert not content(build_index(tmp_path))["runs"]


def test_nothing_to_show_is_an_error_and_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no result\.json"):
        build_index(tmp_path)
    with pytest.raises(DataError, match="absent is no directory"):
        build_index(tmp_path / "absent")
    assert not list(tmp_path.iterdir())


def test_seeds_of_one_configuration_are_one_group(tmp_path: Path) -> None:
    for index, (seed, s_max, epochs) in enumerate([(0, 8, 20), (1, 8, 20), (0, 4, 20), (1, 8, 5)]):
        add_run(tmp_path, f"runs/{index}", seed, s_max, epochs)
    rows = {row.values["run"]: row for row in collect(tmp_path).rows}
    groups = [rows[f"runs/{index}"].group for index in range(4)]
    assert groups[0] == groups[1] and len(set(groups)) == 3
    # s_max has a column of its own, and T_max only repeats max_epochs.
    assert [rows[f"runs/{index}"].values["departs"] for index in range(4)] == [""] * 3 + ["trainer.max_epochs=5"]


def test_runs_on_other_data_and_unfinished_ones_enter_no_mean_and_a_repeated_seed_counts_once(tmp_path: Path) -> None:
    def run(place: str, seed: int, accuracy: float, files: str, **changes: Any) -> None:
        identity = {"data.files": files, "seed": seed, "data.seed": seed}
        add_run(tmp_path, place, seed, metrics=Metrics(best={"test/acc": accuracy}), identity=identity, **changes)

    run("cats/0", 0, 0.8, "aa", started="2025-06-02")
    run("cats/stopped", 0, 0.7, "aa", started="2025-06-03", status="incomplete")
    run("cats/again", 0, 0.1, "aa", started="2025-06-01")
    run("cats/1", 1, 0.9, "aa")
    run("cats/2", 2, 0.2, "aa", status="failed")
    run("birds/0", 3, 0.3, "bb")
    found = collect(tmp_path)
    shown = columns(found)
    (at,) = [at for at, column in enumerate(shown) if column.key == "test/acc"]
    averages = {row["name"]: row["cells"][at] for row in payload(found, shown)["averages"]}
    assert list(averages) == ["5 runs", "0"]  # on cats, and the one on birds
    assert averages["5 runs"][0] == pytest.approx(0.85) and averages["5 runs"][1] == "85.00 ± 7.07 (2)"


def test_evaluations_on_other_folders_are_apart(tmp_path: Path) -> None:
    for place in ("cats", "birds"):
        config = configuration(tmp_path / place)
        config["data"] |= {"_target_": "qbsnn.data.ImageFolder", "root": f"/{place}"}
        add_run(tmp_path, place, config=config, command="evaluate.py ckpt=best.ckpt")
    rows = {row.values["run"]: row for row in collect(tmp_path).rows}
    assert rows["cats"].group != rows["birds"].group
    assert {row.values["departs"] for row in rows.values()} == {"", "data.root=/cats"}


def test_an_evaluation_is_no_further_seed(tmp_path: Path) -> None:
    add_run(tmp_path, "runs/0", 0, command="train.py seed=0")
    add_run(tmp_path, "runs/1", 1, command="train.py seed=1")
    add_run(tmp_path, "evaluate/2", 0, command="evaluate.py ckpt=runs/0/checkpoints/best.ckpt")
    rows = {row.values["run"]: row.group for row in collect(tmp_path).rows}
    assert rows["runs/0"] == rows["runs/1"] != rows["evaluate/2"]


@pytest.mark.parametrize("change", [("crop", 4), ("_target_", "qbsnn.data.MNIST")])
def test_what_changes_the_result_changes_the_settings(tmp_path: Path, change: tuple[str, Any]) -> None:
    here, there = configuration(tmp_path / "a", 0), configuration(tmp_path / "b", 1)
    there["paths"]["data"] = there["data"]["root"] = "/elsewhere"
    assert settings(here) == settings(there)
    there["data"] |= dict([change])
    assert settings(here) != settings(there)


def test_curves_are_thinned_to_their_ends_and_some_between() -> None:
    epochs, found = thinned(Series(np.arange(1_000), np.linspace(0, 1, 1_000)), 200)
    assert len(epochs) == len(found) == 200 and epochs[0] == 0 and epochs[-1] == 999
    assert sorted(set(epochs)) == epochs and max(np.diff(epochs)) == 6 and min(np.diff(epochs)) == 5
    assert thinned(Series(np.array([2, 5]), np.array([1 / 3, float("nan")])))[1][0] == 0.3333


def test_strings_of_a_result_never_become_markup(tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script>&amp;\u2028'\""
    add_run(tmp_path, "runs/<script>alert(1)<&>", command=evil, status="failed", error=evil, git_commit=evil)
    (tmp_path / "<b>").mkdir()
    (tmp_path / "<b>" / "result.json").write_text(json.dumps({"schema_version": evil}))
    page = build_index(tmp_path)
    source = page.read_text(encoding="utf-8")
    assert source.count("<script") == 4 and "alert(1)</" not in source and "<b>" not in source
    (row,) = content(page)["runs"]
    assert row["href"].startswith("runs/%3Cscript%3Ealert%281%29%3C%26%3E/")
    shown = [cell[1] for cell in row["cells"]]
    assert not [text for text in shown if "<script" in text or "</script" in text or "<b>" in text]
    assert shown[0].count("&lt;script&gt;") == 3  # the name, and the command in the tooltip
    assert json.loads(embedded({"a": evil})) == {"a": evil}


def test_numbers_that_are_not_finite_are_named(tmp_path: Path) -> None:
    result = make_result()
    result.metrics.best["test/acc"] = float("nan")
    add_run(tmp_path, "runs/a", metrics=result.metrics)
    found = collect(tmp_path)
    shown = columns(found)
    (at,) = [at for at, column in enumerate(shown) if column.key == "test/acc"]
    assert payload(found, shown)["runs"][0]["cells"][at] == [None, "not finite"]


def test_the_page_is_one_file_replaced_whole_and_the_same_for_the_same_files(tmp_path: Path) -> None:
    add_run(tmp_path, "runs/a")
    page = build_index(tmp_path)
    first = page.read_bytes()
    page.write_bytes(b"an older page")
    assert build_index(tmp_path).read_bytes() == first
    assert not list(tmp_path.rglob("*.part"))
    text = first.decode()
    for ours in (*scripts(), datatables("css")):
        text = text.replace(ours, "")
    assert not re.search(r"""(src|href)=["']?(https?:|//)|@import|url\(|\bfetch\(|innerHTML|document\.write""", text)
    policy = (
        r"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src( 'sha256-[A-Za-z0-9+/]{43}='){3}"
    )
    assert re.search(policy, unescape(text))


def test_two_hundred_runs_are_at_most_8_mb_and_the_glue_60_lines(tmp_path: Path) -> None:
    sizes = []
    for seed in range(2):
        run = add_run(tmp_path, f"runs/2025-06-01_12-00-0{seed}_digits-vgg5-qb_lif", seed)
        values = [f"{epoch},{','.join([str(1 / (epoch + 1))] * 4)}\n" for epoch in range(300)]
        (run / "metrics.csv").write_text("epoch,train/loss,train/acc,val/loss,val/acc\n" + "".join(values))
        sizes.append(build_index(tmp_path).stat().st_size)
    assert sizes[0] + 199 * (sizes[1] - sizes[0]) < 8_000_000
    glue = ROOT / "qbsnn" / "report" / "runs" / "page.js"
    assert len(glue.read_text(encoding="utf-8").splitlines()) <= 60


def test_a_column_that_is_empty_everywhere_is_left_out(tmp_path: Path) -> None:
    add_run(tmp_path, "runs/a")
    found = collect(tmp_path)
    keys = [column.key for column in columns(found)]
    assert len(set(keys)) == len(keys) and not {"sweep", "error", "departs"} & set(keys)
    assert all(found.rows[0].values[key] not in (None, "") for key in keys)


def test_the_script_makes_the_page_of_many_runs_or_of_one(
    tool: Tool, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = add_run(tmp_path, "runs/a")
    for place in (tmp_path, folder):
        assert tool("scripts/make_report.py", f"folder={place}") == 0
        assert capsys.readouterr().out.strip() == str(place / "report.html")
    assert values(tmp_path, "runs/a") and collect(tmp_path).rows[0].page


def test_the_script_without_a_run(tool: Tool, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert tool("scripts/make_report.py", f"folder={tmp_path}") == 1
    assert "there is no result.json" in one_paragraph(capsys.readouterr().err)
