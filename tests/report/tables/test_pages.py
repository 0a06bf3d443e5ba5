"""Stored results, the pages made from them, and the verdicts of claims, against numbers worked out by hand."""

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from qbsnn.errors import DataError
from qbsnn.report.tables.claims import judge, read_claims
from qbsnn.report.tables.documents import store_sweeps
from qbsnn.report.tables.evidence import COMPARED, gather, reading
from qbsnn.report.tables.pages import Pages, with_markers, write_pages
from qbsnn.report.tables.stored import merged, read_stored, store
from qbsnn.results.sweeps import cells_frame, read_cells
from qbsnn.sweeps.plan import written
from tests.report.sweeps import BOTH, LIF, PLAN, write_plan, write_sweep
from tests.report.tables.test_table import rows_of
from tests.tool import ROOT

QB = "QB-LIF, T = 4"


@pytest.fixture
def project(tmp_path) -> Path:
    """A project with one stored sweep, one that was not run, and a folder of pages."""
    write_plan(write_plan(tmp_path / "conf"), PLAN.replace("Some_data", "Other"), "table_cifar10")
    (tmp_path / "docs").mkdir()
    stored(tmp_path, BOTH)
    return tmp_path


def stored(folder: Path, accuracies: dict, **changes) -> None:
    """Make the sweep's runs anew and store them."""
    sweeps = folder / f"sweeps{len(list(folder.glob('sweeps*')))}"
    store_sweeps("some", folder / "conf", write_sweep(sweeps, accuracies, **changes), folder / "docs/results")


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
    places = "paths.outputs='/home/a b/out' +data.cache_dir=/c data.root=/d data.rooted=1 seed=0"
    data = {"name": "x", "cache": {"train": {"folder": "/c/x"}}}
    store([replace(first, overrides=f"T=2 {places}", result=replace(first.result, data=data))], path)
    (kept,) = read_stored(path)
    assert kept.overrides == "T=2 data.rooted=1 seed=0" and kept.result.command == f"train.py {kept.overrides}"
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


def verdict(project: Path, **claim) -> tuple:
    (project / "docs/claims.yaml").write_text(json.dumps([{"claim": "c", "section": "s", **claim}]))
    found = judge(read_claims(project / "docs/claims.yaml")[0], gather(project / "conf", project / "docs/results"))
    return found.word, found.found, found.seeds


def test_verdicts_by_hand(project):
    side, lif = {"sweep": "table_some", "row": QB}, {"sweep": "table_some", "row": "LIF, T = 4"}
    # differences of 1, 2 and 3 points: 2 ± 4.3027/√3 = [−0.48, 4.48]
    shown = "+2.00 [−0.48, +4.48] points; asked: ≥ {}"
    assert verdict(project, **{"is": side}, over=lif, at_least=-0.005) == ("holds", shown.format("−0.50 points"), "3")
    assert verdict(project, **{"is": side}, over=lif, at_least=0.01)[0] == "open"
    assert verdict(project, **{"is": side}, over=lif, at_least=0.05)[0] == "fails"
    assert verdict(project, **{"is": side}, over=lif, at_most=0.05)[0] == "holds"
    assert verdict(project, **{"is": side}, over=lif, at_most=-0.01)[0] == "fails"
    assert verdict(project, **{"is": side}, over={**side, "quantity": "last/test/acc"}, at_least=0.01)[0] == "holds"
    cost = {**side, "quantity": "relative_energy"}
    assert verdict(project, **{"is": cost}, at_most=0.15) == ("fails", "18.75 [18.75, 18.75] %; asked: ≤ 15.00 %", "3")
    acs = {**side, "quantity": "acs_per_image"}
    assert verdict(project, **{"is": acs}, over={**acs, "row": "LIF, T = 4"}, by="ratio", at_most=1.0) == (
        "holds", "1.00 [1.00, 1.00] ×; asked: ≤ 1.00 ×", "3"
    )  # fmt: skip
    mismatches = {"everywhere": "integer/spike_mismatches"}
    assert verdict(project, **mismatches, at_most=0) == ("holds", "kept in 6 of 6 runs", "–")
    assert verdict(project, **mismatches, at_least=1)[0] == "fails"
    assert verdict(project, needs="a chip") == ("open", "not run: a chip", "–")
    absent = {"sweep": "table_cifar10", "row": QB}
    assert verdict(project, **{"is": absent}, over=lif, at_least=0.0) == ("open", "not run", "0")


@pytest.mark.parametrize(("spread", "words"), [(1, "differ by"), (3, "do not differ by")])
def test_what_seeds_explain_by_hand(spread, words):
    """Two rows of three, means 4 apart. Of ±1 F = 24 and p = 0.008; of ±3 F = 24/9 and p = 0.18."""
    cells = pd.DataFrame({"label": list("aaabbb"), COMPARED: [0, spread, -spread, 4, 4 + spread, 4 - spread]})
    means = pd.concat({COMPARED: pd.DataFrame({"mean": [0, 4], "std": spread, "count": 3}, ["a", "b"])}, axis=1)
    text = reading(SimpleNamespace(cells=cells, means=means))
    assert f"The rows {words} more than seeds explain (one-way" in text
    assert f"p = {0.008 if spread == 1 else 0.18}" in text


@pytest.mark.parametrize(("seeds", "found"), [(1, "+1.00"), (2, "+1.50 [−4.85, +7.85]")])
def test_fewer_than_three_seeds_leave_a_claim_open(project, seeds, found):
    """A difference of 1 point, or of 1 and 2: 1.5 ± 12.706/2."""
    (project / "docs/results/table_some.json").unlink()
    stored(project, {label: {seed: each[seed] for seed in range(seeds)} for label, each in BOTH.items()})
    side, lif = {"sweep": "table_some", "row": QB}, {"sweep": "table_some", "row": "LIF, T = 4"}
    for bound, asked in ((-0.2, "−20.00"), (0.0, "+0.00"), (0.2, "+20.00")):
        text = f"{found} points; asked: ≥ {asked} points"
        assert verdict(project, **{"is": side}, over=lif, at_least=bound) == ("open", text, str(seeds))
    found = reading(gather(project / "conf", project / "docs/results")["table_some"].table)
    assert ("Too few seeds" in found) == (seeds == 1)


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        ({}, "a claim has one of is, everywhere and needs"),
        ({"everywhere": "integer/acc"}, "a claim has one of at_least and at_most"),
        ({"needs": "x", "claims": 1}, "Extra inputs are not permitted"),
        ({"is": {"sweep": "gone", "row": QB}, "at_least": 0.0}, "names the sweep gone"),
    ],
)
def test_a_claim_that_is_none_is_named(project, claim, message):
    with pytest.raises(DataError, match=message):
        verdict(project, **claim)


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
    import yaml

    for path in sorted((ROOT / "docs/results").glob("*.json")):
        plan = yaml.safe_load((ROOT / f"conf/sweep/{path.stem}.yaml").read_text(encoding="utf-8"))
        rows = {row["label"] for row in plan.get("rows", [])}
        cells = read_stored(path)
        assert {cell.seed for cell in cells} == set(plan.get("seeds", [0])), path.name
        for cell in cells:
            told = [cell.overrides, *([cell.result.command, str(cell.result.data)] if cell.result else [])]
            assert not [text for text in told if re.search(r"(?<![\w.])/", text)], f"{path.name}: a path of a machine"
        if rows:
            assert {cell.row for cell in cells} == rows, path.name
        for key, each in plan.get("grid", {}).items():
            assert {
                word.split("=", 1)[1] for cell in cells for word in cell.overrides.split() if word.startswith(f"{key}=")
            } == {str(value) for value in each}, path.name


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
    odd = replace(first, result=None, status="failed", error="bad \udcff name", seed=7)
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
