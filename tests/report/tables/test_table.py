"""Tables against numbers worked out by hand, read back from the files."""

import csv
import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest

from qbsnn.errors import DataError
from qbsnn.report.tables import documents
from qbsnn.report.tables.documents import find_plan, write_table
from qbsnn.report.tables.evidence import Evidence, told
from qbsnn.report.tables.formats import tex
from qbsnn.report.tables.table import make_table
from qbsnn.results.published import published
from qbsnn.results.schema import Disturbance, Robustness
from qbsnn.results.sweeps import cells_frame, read_cells, read_plan
from tests.report.sweeps import BOTH, LIF, PLAN, write_plan, write_sweep

CONF = Path(__file__).parents[3] / "conf" / "sweep"
undrawn = pytest.mark.usefixtures("no_figures")


@pytest.fixture
def no_figures(monkeypatch):
    """Tables alone: drawing takes most of their time, and test_figures.py looks at figures."""
    monkeypatch.setattr(documents, "figures", lambda plan, cells: {})


def tables(tmp_path: Path, out: str = "out", **options) -> dict[str, str]:
    """The text files of a table by their ending."""
    conf = write_plan(tmp_path / "conf")
    sweeps = write_sweep(tmp_path / "sweeps", **options)
    files = write_table(find_plan("some", conf), sweeps, tmp_path / out)
    return {
        path.name.removeprefix("table_some"): path.read_text() for path in files if path.suffix not in (".png", ".pdf")
    }


def rows_of(text: str, heading: str = "method") -> list[dict[str, str]]:
    """The first Markdown table with this first column."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {heading} |"))
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[start:]]
    width = len(cells[0])
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:] if len(row) == width]


def test_markdown_by_hand(tmp_path):
    text = tables(tmp_path)[".md"]
    lif, qb = rows_of(text)[:2]
    # 90, 91, 92: sd 1; 91, 93, 95: sd 2; differences 1, 2, 3: interval 2 ± 4.3027/√3
    assert lif["test accuracy (%)"] == "91.00 ± 1.00 (n = 3)" and qb["test accuracy (%)"] == "93.00 ± 2.00 (n = 3)"
    assert lif["test accuracy, last epoch (%)"] == "90.00 ± 1.00"
    assert qb["difference (points)"] == "+2.00 [−0.48, +4.48], p = 0.074, 3 pairs"
    assert lif["difference (points)"] == "–"
    assert lif["integer accuracy (%)"] == "96.88 ± 0.00"  # of the sample
    assert (lif["s_max"], qb["s_max"], qb["T"]) == ("–", "8", "4")
    # two layers of 123,456 accumulates on 512 images; totals of 4,000 pJ in either model; 18.75 %
    assert (qb["accumulates per image"], qb["MACs per image"]) == ("482", "0")
    assert qb["mean burst"] == "0.025 ± 0.000" and qb["relative energy (%)"] == "18.8 ± 0.0"
    assert qb["energy per image, estimates (µJ)"] == "0.004 / 0.004" and qb["parameters"] == "1,234,567"
    assert qb["published (%)"] == "93.8 (document)"


@undrawn
def test_links_lead_to_the_runs(tmp_path):
    text = tables(tmp_path)[".md"]
    links = re.findall(r"\[(\d)\]\(<([^>]+)>\)", text)
    assert [seed for seed, _ in links] == ["0", "1", "2"] * 2
    for seed, target in links:
        assert json.loads((tmp_path / "out" / target).read_text())["seed"] == int(seed)


@undrawn
def test_what_others_published_stands_beside_ours_with_its_source(tmp_path):
    others = rows_of(tables(tmp_path)[".md"], "method")[2:]
    text = tables(tmp_path / "again")[".md"]
    assert "Published on the same data, none of it measured here" in text
    assert "| ANN | – | – | 95.2 | – | 100 | document |" in text and "96.43" in text and not others
    assert "Sources. document: " in text


@undrawn
def test_csv_reads_back_unrounded(tmp_path):
    found = tables(tmp_path)
    lif, qb = csv.DictReader(found[".csv"].splitlines())
    assert float(qb["test/acc mean"]) == pytest.approx(0.93) and float(qb["test/acc std"]) == pytest.approx(0.02)
    assert (qb["test/acc count"], qb["seeds_planned"], qb["seeds_done"]) == ("3", "3", "3")
    assert (
        float(qb["difference mean"]) == pytest.approx(0.02) and lif["difference mean"] == lif["difference pairs"] == ""
    )
    assert float(qb["difference pairs"]) == 3 and (lif["T"], lif["s_max"], qb["s_max"]) == ("4", "", "8")
    assert float(qb["acs_per_image mean"]) == 2 * 123_456 / 512
    assert float(qb["energy_estimate/fp32 mean"]) == 4000 and qb["published"] == "cifar10/document_qb_t4: 93.8 %"
    runs = list(csv.DictReader(found["_runs.csv"].splitlines()))
    assert [float(run["test/acc"]) for run in runs] == [0.9, 0.91, 0.92, 0.91, 0.93, 0.95]
    assert {run["commit"] for run in runs} == {"0123abc"} and {run["device"] for run in runs} == {"a CPU, 2 cores"}
    assert len({run["fingerprint"] for run in runs}) == 6


@undrawn
def test_latex_is_escaped_and_every_row_has_all_columns(tmp_path):
    text = tables(tmp_path)[".tex"]
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    rows = [line for line in body.splitlines() if line.endswith(r"\\")]
    columns = len(re.search(r"\\begin\{tabular\}\{(\w+)\}", text)[1])
    assert len(rows) == 3 and all(len(re.split(r"(?<!\\)&", row)) == columns for row in rows)
    assert r"93.00 $\pm$ 2.00 (n = 3)" in body and r"s\_max" in body and r"\textmu{}J" in body
    assert r"\caption{Some\_data." in text
    text = text[text.index("\n") :].replace("{!}{%", "")  # the first line and the end of this one are comments
    assert not set(re.sub(r"\\[%_&#${}]|\$[^$]*\$", "", text)) & set("%_#±µ−–^~")
    for opened in ("table", "tabular"):
        assert text.count(rf"\begin{{{opened}}}") == text.count(rf"\end{{{opened}}}") == 1
    assert tex("{a}\\b^~&") == r"\{a\}\textbackslash{}b\textasciicircum{}\textasciitilde{}\&"
    assert tex("[1 < 2]") == "{[}1 $<$ 2]"


@undrawn
def test_incomplete_cells_are_named(tmp_path):
    parts = {**LIF, "QB-LIF, T = 4": {0: 0.91, 1: "failed", 2: "missing"}}
    found = tables(tmp_path, accuracies=parts)
    qb = rows_of(found[".md"])[1]
    assert qb["test accuracy (%)"] == "91.00 (n = 1 of 3)"
    assert qb["difference (points)"] == "+1.00, 1 pair"
    assert "- QB-LIF, T = 4, seed 1: failed: it broke in two lines" in found[".md"]
    assert "- QB-LIF, T = 4, seed 2: not run" in found[".md"]
    assert qb["runs by seed"].endswith("1: failed 2: missing")
    status = [(run["status"], run["test/acc"]) for run in csv.DictReader(found["_runs.csv"].splitlines())]
    assert status[4:] == [("failed", ""), ("missing", "")]


@undrawn
@pytest.mark.parametrize(("target", "named"), [(0.15, True), (0.17, True), (0.18, False)])
def test_rows_that_exceed_their_budget_are_named(tmp_path, target, named):
    """The runs of the sample spend 18.75 %, which is within 5 % of 18 %."""
    budget = {"budget": {"quantity": "energy", "target": target}}
    found = tables(tmp_path, settings={"QB-LIF, T = 4": budget})
    told = "More than 5 % over the budget on test images: QB-LIF, T = 4 (3 of 3 runs)."
    assert (told in found[".md"]) == named
    assert ("over the budget" in found[".md"] + found[".tex"]) == named


def test_a_sweep_without_a_finished_cell_has_a_table_without_figures(tmp_path):
    found = tables(tmp_path, accuracies={"LIF, T = 4": {0: "running"}, "QB-LIF, T = 4": {0: "missing"}})
    assert rows_of(found[".md"])[0]["test accuracy (%)"] == "not run"
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".md", ".tex", ".csv"}


@undrawn
def test_blocks_that_did_not_run_leave_dashes(tmp_path):
    skipped = {"skipped": "no integer form"}
    text = tables(tmp_path, integer=skipped, energy=None)[".md"]
    assert list(rows_of(text)[0]) == [
        "method", "T", "s_max", "test accuracy (%)", "difference (points)", "test accuracy, last epoch (%)",
        "parameters", "published (%)", "runs by seed",
    ]  # fmt: skip
    assert "estimates" not in text


@undrawn
def test_accuracies_under_disturbance_have_columns_and_sigma_stands_below(tmp_path):
    found = [Disturbance("noise", 0.1, 0.9), Disturbance("noise", 0.2, 0.75), Disturbance("missing", 1, 0.5),
             Disturbance("steps", 1, 0.25), Disturbance("steps", -1, None, "T = 1")]  # fmt: skip
    files = tables(tmp_path, robustness=Robustness("best", 360, 0.95, found))
    (row, *_) = rows_of(files[".md"])
    assert row["accuracy under noise (%)"] == "90.00 ± 0.00 / 75.00 ± 0.00"
    assert (row["accuracy, a step missing (%)"], row["accuracy with T + 1 (%)"]) == ("50.00 ± 0.00", "25.00 ± 0.00")
    assert "accuracy with T − 1 (%)" not in row and "σ = 0.1 / 0.2." in files[".md"]
    assert r"$\sigma$ = 0.1 / 0.2" in files[".tex"] and "robust/noise/0.2" in files["_runs.csv"]


@undrawn
def test_a_member_of_a_family_without_a_value_keeps_its_place(tmp_path):
    noise = [Disturbance("noise", 0.1, 0.9), Disturbance("noise", 0.2, 0.75)]
    sweeps, conf = write_sweep(tmp_path / "s", robustness=Robustness("best", 360, 0.95, noise)), tmp_path / "conf"
    for cell, kept in ((3, noise[1:]), (4, noise[1:]), (5, noise[1:])):  # the seeds of the second row
        (path,) = sweeps.glob(f"table_some/{cell}_*/result.json")
        content = json.loads(path.read_text())
        content["robustness"]["disturbances"] = [asdict(one) for one in kept]
        path.write_text(json.dumps(content))
    lif, qb = rows_of(write_table(find_plan("some", write_plan(conf)), sweeps, tmp_path / "out")[0].read_text())[:2]
    assert lif["accuracy under noise (%)"] == "90.00 ± 0.00 / 75.00 ± 0.00"
    assert qb["accuracy under noise (%)"] == "– / 75.00 ± 0.00"


def test_a_result_of_another_configuration_is_refused(tmp_path):
    sweeps, conf = write_sweep(tmp_path / "sweeps"), write_plan(tmp_path / "conf")
    path = next((sweeps / "table_some").glob("0_*")) / "result.json"
    good = json.loads(path.read_text())
    for change, what in (
        ({"cell": "f" * 16}, "its fingerprint is f{16}, .* for LIF, T = 4, seed 0"),
        ({"config": {**good["config"], "T": 8}}, "T is 8 there, and .* wants 4: another configuration"),
    ):
        path.write_text(json.dumps({**good, **change}))
        with pytest.raises(DataError, match=what):
            write_table(find_plan("some", conf), sweeps, tmp_path / "out")
    path.write_text(json.dumps({**good, "status": "failed"}))
    with pytest.raises(DataError, match="status must be finished"):
        write_table(find_plan("some", conf), sweeps, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@undrawn
def test_what_an_identity_says_in_other_words_than_the_configuration_is_no_other_configuration(tmp_path):
    sweeps, conf = write_sweep(tmp_path / "sweeps"), write_plan(tmp_path / "conf")
    folder = sweeps / "table_some"
    path = next(folder.glob("0_*")) / "result.json"
    good = json.loads(path.read_text())
    model, data = {**good["config"].get("model", {}), "encoding": "rate"}, {"root": "data/", "verify": False}
    said = {"model.encoding": "rate by epoch", "data.root": "/home/me/data"}
    listed = json.loads((folder / "cells.json").read_text())
    for cell in listed:
        if cell["run"] and path.parent.name in cell["run"]:
            cell["identity"] |= said
    (folder / "cells.json").write_text(json.dumps(listed))
    config = {**good["config"], "model": model, "data": {**good["config"].get("data", {}), **data}}
    path.write_text(json.dumps({**good, "identity": {**good["identity"], **said}, "config": config}))
    write_table(find_plan("some", conf), sweeps, tmp_path / "out")
    for key, other in (("model.encoding", None), ("data.root", "/elsewhere")):
        path.write_text(json.dumps({**good, "identity": {**good["identity"], **said, key: other}, "config": config}))
        with pytest.raises(DataError, match=f"{key} is {other!r} there, and .* wants {said[key]!r}"):
            write_table(find_plan("some", conf), sweeps, tmp_path / "again")


@undrawn
def test_a_precision_that_the_machine_chose_is_the_one_of_the_cell(tmp_path):
    sweeps, conf = write_sweep(tmp_path / "sweeps"), write_plan(tmp_path / "conf")
    folder = sweeps / "table_some"
    listed = json.loads((folder / "cells.json").read_text())
    path = next(folder.glob("0_*")) / "result.json"
    good = json.loads(path.read_text())
    trainer = {**good["config"].get("trainer", {}), "precision": "auto"}
    path.write_text(json.dumps({**good, "precision": "bf16-mixed", "config": {**good["config"], "trainer": trainer}}))
    for wanted, fits in (("bf16-mixed", True), ("32-true", False)):
        for cell in listed:
            if cell["run"] and path.parent.name in cell["run"]:
                cell["identity"] = {**cell["identity"], "trainer.precision": wanted}
        (folder / "cells.json").write_text(json.dumps(listed))
        if fits:
            write_table(find_plan("some", conf), sweeps, tmp_path / "out")
        else:
            with pytest.raises(DataError, match=r"trainer\.precision is 'bf16-mixed' there, and .* wants '32-true'"):
                write_table(find_plan("some", conf), sweeps, tmp_path / "again")


def test_bad_files_are_named(tmp_path):
    conf, sweeps = write_plan(tmp_path / "conf"), tmp_path / "sweeps"
    with pytest.raises(DataError, match=r"table=none: no such sweep; there are some"):
        find_plan("none", conf)
    plan = find_plan("some", conf)
    with pytest.raises(DataError, match=r"no cells in .*: run `python train.py sweep=table_some`"):
        write_table(plan, sweeps, tmp_path / "out")
    write_sweep(sweeps)
    with pytest.raises(DataError, match=r"figure must be one of timesteps, .*, got 'pie'"):
        write_table(plan, sweeps, tmp_path / "out", figure="pie")
    with pytest.raises(DataError, match="its cells do not give the figure timesteps"):
        write_table(plan, sweeps, tmp_path / "out", figure="timesteps")
    cells = sweeps / "table_some" / "cells.json"
    for text, message in (("{", "is not JSON"), ("{}", "must hold the cells"), ("[{}]", "not a cell of a sweep")):
        cells.write_text(text)
        with pytest.raises(DataError, match=message):
            write_table(plan, sweeps, tmp_path / "out")
    for text, message in (
        ("a: [", "is not YAML"),
        ("- 1", "must hold the keys"),
        (PLAN.replace('LIF, T = 4"\nf', 'x"\nf'), "baseline must be"),
    ):
        with pytest.raises(DataError, match=message):
            read_plan(write_plan(tmp_path / "bad", text) / "table_some.yaml")
    with pytest.raises(
        DataError, match=r"sweep table_some, row LIF.*has no 'cifar10/x'; there are cifar10/document_ann"
    ):
        bad = read_plan(write_plan(tmp_path / "bad", PLAN.replace("document_lif_t4", "x")) / "table_some.yaml")
        write_table(bad, write_sweep(tmp_path / "more"), tmp_path / "out")


def test_moved_outputs_are_found(tmp_path):
    conf = write_plan(tmp_path / "conf")
    write_sweep(tmp_path / "sweeps").rename(tmp_path / "elsewhere")
    files = write_table(find_plan("some", conf), tmp_path / "elsewhere", tmp_path / "out")
    assert "93.00 ± 2.00 (n = 3)" in files[0].read_text()


@undrawn
def test_the_baseline_of_a_grid_is_the_row_with_the_same_values(tmp_path):
    conf = write_plan(tmp_path / "conf")
    values = {f"{row}, s=2": seeds for row, seeds in BOTH.items()}
    values |= {f"{row}, s=3": {seed: acc - 0.5 for seed, acc in seeds.items()} for row, seeds in BOTH.items()}
    sweeps = write_sweep(tmp_path / "sweeps", values)
    cells = sweeps / "table_some" / "cells.json"
    entries = [{**entry, "row": entry["label"][:-5]} for entry in json.loads(cells.read_text())]
    cells.write_text(json.dumps(entries))
    found = rows_of(write_table(find_plan("some", conf), sweeps, tmp_path / "out")[0].read_text())[:4]
    differences = {row["method"]: row["difference (points)"] for row in found}
    assert (
        differences["QB-LIF, T = 4, s=2"]
        == differences["QB-LIF, T = 4, s=3"]
        == "+2.00 [−0.48, +4.48], p = 0.074, 3 pairs"
    )
    assert differences["LIF, T = 4, s=2"] == differences["LIF, T = 4, s=3"] == "–"


def test_the_documents_figures_are_copied_right():
    found = {
        key: (item.T, item.accuracy, item.energy) for key, item in published().items() if item.source == "document"
    }
    assert found == {
        "cifar10/document_ann": (None, 95.2, 100),
        "cifar10/document_lif_t4": (4, 89.5, 12), "cifar10/document_lif_t8": (8, 91.2, 24),
        "cifar10/document_qb_t4": (4, 93.8, 15), "cifar10/document_qb_t8": (8, 94.5, 28),
        "cifar100/document_lif_t4": (4, 64.2, None), "cifar100/document_qb_t4": (4, 71.5, None),
        "cifar100/document_lif_t8": (8, 68.7, None), "cifar100/document_qb_t8": (8, 75.3, None),
        "dvs128_gesture/document_lif_t20": (20, 92.1, None), "dvs128_gesture/document_qb_t10": (10, 94.7, None),
        "imagenet/document_lif_t6": (6, 56.3, None), "imagenet/document_qb_t6": (6, 62.1, None),
    }  # fmt: skip
    paper = {key: item.accuracy for key, item in published().items() if item.source == "paper"}
    assert list(paper.values()) == [96.43, 82.25, 98.28, 73.14, 81.6]


@pytest.mark.parametrize("path", sorted(CONF.glob("table_*.yaml")), ids=lambda path: path.stem)
def test_every_table_of_the_project_has_a_plan_whose_figures_are_there(path):
    plan = read_plan(path)
    assert plan.baseline in plan.published
    assert all(key in published() for keys in plan.published.values() for key in keys)


@undrawn
def test_an_integer_accuracy_of_some_images_is_not_in_the_table(tmp_path):
    # the sample's integer check has 256 images
    for images, shown in ((256, "96.88 ± 0.00"), (10_000, None)):
        data = {"samples": {"test": images}}
        row = rows_of(tables(tmp_path / str(images), data=data)[".md"])[0]
        assert row.get("integer accuracy (%)") == shown


@undrawn
def test_a_mean_over_fewer_seeds_than_are_done_says_so(tmp_path):
    text = tables(tmp_path)[".md"]
    assert "(k)" not in text
    sweeps = write_sweep(tmp_path / "fewer", BOTH)
    path = next(sweeps.glob("table_some/3_*/result.json"))
    path.write_text(json.dumps({**json.loads(path.read_text()), "integer": {"skipped": "tau = 3"}}))
    found = write_table(find_plan("some", tmp_path / "conf"), sweeps, tmp_path / "out")
    text = next(path for path in found if path.suffix == ".md").read_text()
    lif, qb = rows_of(text)[:2]
    assert lif["integer accuracy (%)"] == "96.88 ± 0.00" and qb["integer accuracy (%)"] == "96.88 ± 0.00 (2)"
    assert qb["test accuracy (%)"] == "93.00 ± 2.00 (n = 3)" and "(k): over k of the n seeds." in text
    table = make_table(read_plan(tmp_path / "conf/table_some.yaml"), cells_frame(read_cells(sweeps / "table_some")))
    assert told(Evidence(table.plan, table), "QB-LIF, T = 4", "integer/acc") == "96.88 ± 0.00 (2)"
