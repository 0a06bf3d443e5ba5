"""Stored results and the pages made from them, against numbers worked out by hand."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import yaml

from qbsnn.errors import DataError
from qbsnn.report.tables.documents import store_sweeps
from qbsnn.report.tables.evidence import gather
from qbsnn.report.tables.pages import Pages, with_markers, write_pages
from qbsnn.report.tables.stored import merged, read_stored, store
from qbsnn.results.sweeps import Cell, cells_frame, read_cells
from qbsnn.sweeps.plan import cells as planned
from qbsnn.sweeps.plan import read, written
from qbsnn.sweeps.stored import refuse_unplanned
from tests.report.sweeps import LIF, QB, stored
from tests.report.tables.test_table import rows_of
from tests.tool import ROOT


def filled(project: Path, text: str) -> str:
    page = project / "docs/page.md"
    page.write_text(text, encoding="utf-8")
    return Pages(gather(project / "conf", project / "docs/results"), project / "docs").filled(page)


def test_what_is_stored_makes_the_frame_that_the_runs_make(project):
    runs = cells_frame(read_cells(project / "sweeps0/table_some"))
    kept = cells_frame(read_stored(project / "docs/results/table_some.json"))
    changed = {"folder", "overrides"}  # no paths are stored
    assert list(kept) == list(runs) and kept.attrs["models"] == runs.attrs["models"]
    for name in set(runs) - changed - {"config", "command", "scales"}:
        pd.testing.assert_series_equal(kept[name], runs[name])
    assert kept["acs_per_image"].tolist() == runs["acs_per_image"].tolist() == [2 * 123_456 / 512] * 6
    assert kept["scales"][0]["stem.neuron"].value.tolist() == runs["scales"][0]["stem.neuron"].value.tolist()
    assert str(project) not in (project / "docs/results/table_some.json").read_text()


def test_no_place_of_a_machine_is_stored(project):
    path = project / "docs/results/table_some.json"
    first = read_stored(path)[0]
    places = "paths.outputs='/home/a b/out' +data.cache_dir=/c data.root=/d data.rooted=1 teacher=/e/outputs/t seed=0"
    data = {"name": "x", "cache": {"train": {"folder": "/c/x"}}}
    store([replace(first, overrides=f"T=2 {places}", result=replace(first.result, data=data))], path)
    (kept,) = read_stored(path)
    assert (
        kept.overrides == "T=2 data.rooted=1 teacher=outputs/t seed=0"
        and kept.result.command == f"train.py {kept.overrides}"
    )
    assert kept.result.data == {"name": "x"}


def test_a_finished_cell_that_is_gone_from_the_outputs_stays(project):
    stored(project, {**LIF, QB: {0: 0.5, 1: "failed", 2: "running"}})
    found = {(cell.label, cell.seed): cell for cell in read_stored(project / "docs/results/table_some.json")}
    assert [found[QB, seed].result.metrics.best["test/acc"] for seed in range(3)] == [0.5, 0.93, 0.95]


def test_an_old_seed_of_another_recipe_is_left_out(project, caplog):
    path = project / "docs/results/table_some.json"
    old = [cell for cell in read_stored(path) if cell.label == QB]
    longer = {**old[0].identity, "trainer.max_epochs": 9}
    new = [replace(old[0], identity=longer), *(replace(cell, result=None, status="missing") for cell in old[1:])]
    assert [cell.result is not None for cell in merged(new, old)] == [True, False, False]
    assert f"{QB}, seed 1: left out, its trainer.max_epochs is not that of the new runs" in caplog.text
    same = {**old[0].identity, "data.root": "elsewhere", "model.seed": 5}
    moved = [replace(old[0], identity=same), *new[1:]]
    assert all(cell.result is not None for cell in merged(moved, old))


def test_files_that_are_not_stored_sweeps_are_named(project):
    path = project / "docs/results/table_some.json"
    good = json.loads(path.read_text())
    first = good["cells"][0]
    for change, message in (
        ({"sweep": "other"}, "must hold the cells of the sweep table_some"),
        ({"cells": [{}]}, "cell 1: not a cell of a sweep"),
        ({"cells": [{**first, "status": "missing"}]}, "a cell that is done has a result"),
        ({"cells": [{**first, "seed": 7}]}, "seed must be that of its result, 0, got 7"),
        ({"cells": [{**first, "result": {**first["result"], "cell": "f" * 16}}]}, "its fingerprint must be"),
        ({"cells": [{**first, "result": {"schema_version": 1}}]}, "command is missing"),
    ):
        path.write_text(json.dumps({**good, **change}))
        with pytest.raises(DataError, match=message):
            read_stored(path)
    (project / "docs/results/nobodys.json").write_text("{}")
    with pytest.raises(DataError, match=r"nobodys\.json belongs to no sweep"):
        gather(project / "conf", project / "docs/results")
    with pytest.raises(DataError, match="or with --list behind it"):
        store_sweeps("cifar10", project / "conf", project / "sweeps0", project / "docs/results")


def test_numbers_and_blocks_are_filled(project):
    text = filled(
        project, f"We got <!--=table_some; {QB}; test/acc-->?<!--/-->, n = <!--=table_some; {QB}; n-->?<!--/-->."
    )
    assert re.sub("<!--.*?-->", "", text) == "We got 93.00 ± 2.00 %, n = 3."
    text = filled(project, "<!-- begin: tables  -->\n<!-- end -->\nafter")
    assert "Not run here. Command: `python train.py sweep=table_cifar10`. [Where the data go]" in text
    assert "Hardware: a CPU, 2 cores. Code: 0123abc with changes." in text and text.endswith("<!-- end -->\nafter")
    assert ", 32-true. [Every run]" in text
    assert rows_of(text[text.index("## Some") :])[1]["test accuracy (%)"] == "93.00 ± 2.00 (n = 3)"
    rows = rows_of(filled(project, "<!-- begin: rows table_some: test/acc, relative_energy -->\n<!-- end -->"), "")
    assert rows[0] == {
        "": "LIF, T = 4",
        "test accuracy (%)": "91.00 ± 1.00 (n = 3)",
        "relative energy (%)": "18.8 ± 0.0",
    }
    rows = rows_of(filled(project, "<!-- begin: rows table_some: energy_estimate/fp32 -->\n<!-- end -->"), "")
    assert rows[0] == {"": "LIF, T = 4", "energy per image, estimates, fp32 (µJ)": "0.004"}  # 4,000 pJ
    text = filled(project, f"<!--=table_some; {QB}; energy_estimate/fp32-->?<!--/-->")
    assert re.sub("<!--.*?-->", "", text) == "0.004 µJ"
    text = filled(project, "<!-- begin: sweep table_some -->\n<!-- end -->")
    assert "Best: QB-LIF, T = 4, 93.00 ± 2.00 % (n = 3); lowest: LIF, T = 4, 91.00 ± 1.00 % (n = 3)." in text
    assert "| table or sweep | state | command |" in filled(project, "<!-- begin: missing -->\n<!-- end -->")
    assert "| 20\xa0min 24\xa0s |" in filled(project, "<!-- begin: costs -->\n<!-- end -->")  # 6 × 204 s


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        ("<!--=gone; a; n-->?<!--/-->", "there is no sweep gone"),
        ("<!--=table_some; gone; n-->?<!--/-->", "has no row 'gone'; there are LIF, T = 4; QB-LIF, T = 4"),
        (f"<!--=table_some; {QB}; tset/acc-->?<!--/-->", "'tset/acc' is no quantity"),
        ("<!--=table_some-->?<!--/-->", "SWEEP; ROW; QUANTITY"),
        ("<!--=table_some; a; n-->?", "a marker has no end"),
        ("<!-- begin: pie -->\n<!-- end -->", "pie is no kind of block"),
        ("<!-- begin: claims goals -->\n<!-- end -->", "claims.yaml cannot be read"),
        ("<!-- begin: figure pie -->\n<!-- end -->", "pie is no figure of several sweeps"),
    ],
)
def test_a_marker_that_asks_for_what_is_not_there_is_named(project, marker, message):
    with pytest.raises(DataError, match=message):
        filled(project, marker)


def test_pages_are_written_with_their_figures_and_again_the_same(project):
    docs = project / "docs"
    (docs / "images").mkdir()
    (docs / "images/results_gone.png").write_bytes(b"old")
    (docs / "images/report.png").write_bytes(b"not ours")
    (docs / "results.md").write_text("<!-- begin: tables  -->\n<!-- end -->", encoding="utf-8")
    (project / "README.md").write_text("<!-- begin: sweep table_some -->\n<!-- end -->", encoding="utf-8")
    write_pages(project / "conf", docs)
    images = {"report.png", *(f"results_table_some_{name}.png" for name in ("delta", "energy", "rows"))}
    assert {path.name for path in (docs / "images").iterdir()} == images
    for page in (docs / "results.md", project / "README.md"):
        targets = re.findall(r"\]\(([^)]+)\)", page.read_text())
        assert targets and all((page.parent / target).is_file() for target in targets if target != "data.md")
    before = {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}
    write_pages(project / "conf", docs)
    assert before == {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}


def test_the_pages_of_the_project_are_those_of_its_files():
    """``make pages`` changes no text. The test marked slow does the same for figures."""
    pages = Pages(gather(ROOT / "conf/sweep", ROOT / "docs/results"), ROOT / "docs")
    found = list(with_markers(ROOT / "docs"))
    assert {page.name for page in found} >= {"README.md", "results.md", "findings.md", "ablation_studies.md"}
    for page in found:
        assert pages.filled(page) == page.read_text(encoding="utf-8"), f"{page.name}: make pages"
    shown = {f"results_{name}" for name in re.findall(r"images/results_([^)]+)", "".join(p.read_text() for p in found))}
    assert shown == set(pages.figures) == {path.name for path in (ROOT / "docs/images").glob("results_*.png")}


def test_stored_cells_are_those_of_their_sweep_files():
    for path in sorted((ROOT / "docs/results").glob("*.json")):
        plan = ROOT / f"conf/sweep/{path.stem}.yaml"
        cells = read_stored(path)
        refuse_unplanned(plan, cells)
        sweep = planned(read(yaml.safe_load(plan.read_text(encoding="utf-8")), path.stem))
        assert {(cell.label, cell.seed) for cell in cells} == {(cell.label, cell.seed) for cell in sweep}, path.name
        for cell in cells:
            told = [cell.overrides, *([cell.result.command, str(cell.result.data)] if cell.result else [])]
            assert not [text for text in told if re.search(r"(?<![\w.])/", text)], f"{path.name}: a path of a machine"


def test_a_stored_cell_that_the_sweep_does_not_plan_is_refused(tmp_path):
    path = tmp_path / "some.yaml"
    path.write_text("title: t\nrows: [{label: A, overrides: [T=2]}]\nseeds: [0]")
    kept = Cell("A", "A", 0, "done", overrides="T=2 report=false seed=0")
    refuse_unplanned(path, [kept])
    with pytest.raises(DataError, match=r"A, seed 0, is stored with T=4, and .*some.yaml says T=2: run it again"):
        refuse_unplanned(path, [replace(kept, overrides="T=4 seed=0")])
    with pytest.raises(DataError, match=r"B, seed 0, is stored, and .*some.yaml has no such cell: bring it back"):
        refuse_unplanned(path, [replace(kept, label="B")])


def test_an_override_with_spaces_in_its_brackets_is_one_override(tmp_path):
    overrides = ["model.channels=[64, 128]", "model.neurons={fc1: {s_max: 2}}"]
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump({"title": "t", "overrides": overrides, "rows": [{"label": "A"}]}))
    refuse_unplanned(path, [Cell("A", "A", 0, "missing", overrides=" ".join([*overrides, "seed=0"]))])


def test_a_run_stands_once_in_a_file(project, caplog):
    path = project / "docs/results/table_some.json"
    cells = read_stored(path)
    for more, message in (
        (cells[0], r"cell 1 \(LIF, T = 4, seed 0\) and cell 7 \(LIF, T = 4, seed 0\) have one label and seed"),
        (replace(cells[0], label="other"), r"cell 1 .* and cell 7 \(other, seed 0\) have one fingerprint"),
    ):
        store([*cells, more], path)
        with pytest.raises(DataError, match=message):
            read_stored(path)
    merged(cells[1:], cells)
    assert "LIF, T = 4, seed 0: left out, a finished run that the sweep no longer has" in caplog.text


def test_an_old_row_none_of_whose_new_runs_is_done_is_known_by_its_recipe_too(project, caplog):
    old = [cell for cell in read_stored(project / "docs/results/table_some.json") if cell.label == QB]
    waiting = [replace(cell, result=None, status="missing") for cell in old]
    longer = [replace(cell, identity={**cell.identity, "trainer.max_epochs": 9}) for cell in waiting]
    assert [cell.result for cell in merged(longer, old)] == [None] * 3
    assert f"{QB}, seed 1: left out, its trainer.max_epochs is not that of the new runs" in caplog.text
    caplog.clear()
    assert all(cell.result for cell in merged(waiting, old)) and not caplog.text
    assert all(cell.result for cell in merged([replace(cell, identity={}) for cell in waiting], old))
    assert f"{QB}, seed 1: kept, though its settings now are not known" in caplog.text


def test_names_that_no_text_can_hold_are_stored_and_skipped_files_are_not(project):
    path = project / "docs/results/table_some.json"
    first, *_ = read_stored(path)
    data = {"name": "x", "skipped": {"test": ["/home/me/bad.png"]}}
    odd = replace(first, result=None, status="failed", error="bad \udcff name", seed=7, fingerprint="")
    store([replace(first, result=replace(first.result, data=data)), odd], path)
    good, failed = read_stored(path)
    assert good.result.data == {"name": "x"} and failed.error == odd.error


def test_an_apostrophe_does_not_end_a_place_that_is_left_out(project):
    path = project / "docs/results/table_some.json"
    first = read_stored(path)[0]
    for place in ("/home/o'brien/my data", "/home/o'brien\\", 'a "b" c'):
        store([replace(first, overrides=f"T=2 data.root={written(place)} name={written(place)} seed=0")], path)
        (kept,) = read_stored(path)
        assert kept.overrides == f"T=2 name={written(place)} seed=0"
