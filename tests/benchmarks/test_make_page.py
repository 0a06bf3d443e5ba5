"""The page holds what the result files hold, and refuses files that do not belong together."""

import json
import re

import pytest

from benchmarks import make_page
from benchmarks.harness import Goal, Result
from qbsnn.cli import launch as cli
from tests.tool import ROOT

GOALS = {"neuron": "neuron, forward + backward, T = 4, in copies", "train_step": "training step time ÷ ReLU twin"}
POINTS = [
    {"T": t, "seconds": {"QB-LIF": 0.1 * t, "ReLU twin": 0.1 * t}, "bytes": {"QB-LIF": 2**20 * t}} for t in (1, 2, 4)
]


def result_of(name: str) -> dict:
    result = Result(name, {"T": 4})
    result.add("Time", "twin", [2.0, 4.0, 3.0], "s", to="twin")
    goal = Goal(GOALS[name], "≤ 1.05") if name in GOALS else None
    result.add("Time", "ours", [6.0 if name == "neuron" else 3.0], "s", to="twin", goal=goal)
    result.skip("peer", "not installed")
    return {**result.as_dict(), **({"curves": {"T": POINTS}} if name == "scaling" else {})}


@pytest.fixture
def results(tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    for name in make_page.TITLES:
        change(folder, name, result_of(name))
    (tmp_path / "docs").mkdir()
    return folder


def change(folder, name, content):
    (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")


def changed(folder, name, **keys):
    change(folder, name, {**json.loads((folder / f"{name}.json").read_text(encoding="utf-8")), **keys})


def run(monkeypatch, folder, *arguments, notes=None):
    page = folder.parent / "docs/benchmarks.md"
    reasons = folder.parent / "notes.yaml"
    reasons.write_text("# none\n" if notes is None else notes, encoding="utf-8")
    words = [f"results={folder}", f"page={page}", f"notes={reasons}", *arguments]
    monkeypatch.setattr("sys.argv", ["make_page.py", *words])
    try:
        cli.script(make_page.main, make_page.PageKeys, make_page.__doc__)
    except SystemExit as stop:
        return stop.code, page
    return 0, page


def test_the_page(monkeypatch, results, capsys):
    code, page = run(monkeypatch, results, notes=f'"{GOALS["neuron"]}": kernels differ\n')
    assert code == 0
    text = page.read_text(encoding="utf-8")
    lines = text.splitlines()
    assert f"| {GOALS['neuron']} | 2 × | ≤ 1.05 | no | kernels differ |" in lines
    assert f"| {GOALS['train_step']} | 1 × | ≤ 1.05 | yes |  |" in lines
    assert "| twin | 3 s | 2 to 4 | 1 |  |" in lines
    assert "| ours | 6 s |  | 2 | ≤ 1.05, not met |" in lines
    host = result_of("neuron")["host"]
    assert host["cpu"] in text and f"torch {host['versions']['torch']}" in text
    assert "- peer: not installed" in lines
    assert "`python -m benchmarks.train_step`: T 4." in lines
    assert "![Scaling in T](images/bench_T.png)" in text
    images = page.parent / "images"
    assert (images / "bench_T.png").read_bytes()[:4] == b"\x89PNG"
    assert "<svg" in (images / "bench_T.svg").read_text(encoding="utf-8")
    assert "NOT met" in capsys.readouterr().out


def test_a_goal_beside_what_failed_has_no_value():
    result = Result("trial", {})
    result.add("t", "failed", [], "s")
    result.add("t", "ours", [2.0], "s", to="failed", goal=Goal("ours ÷ failed", "≤ 3"))
    assert make_page.goals({"trial": result.as_dict()}) == [("ours ÷ failed", "≤ 3", None, "×", False)]


def test_writing_twice_gives_the_same_files(monkeypatch, results):
    _, page = run(monkeypatch, results)
    files = [page, page.parent / "images/bench_T.svg"]
    first = [path.read_bytes() for path in files]
    run(monkeypatch, results)
    assert [path.read_bytes() for path in files] == first


CASES = {
    "small": ({"small": True}, "data: made with small=true"),
    "commit": ({"git_commit": "0" * 40}, "results of different commit"),
    "versions": ({"versions": {"torch": "0.1"}}, "results of different version of torch"),
    "stale": ({"started": "2020-01-01T00:00:00+00:00"}, "data is stale"),
    "no rows": ({"rows": [{"name": "x"}]}, "is no result of benchmarks.harness"),
}


@pytest.mark.parametrize("case", CASES)
def test_files_that_do_not_belong_together(monkeypatch, results, capsys, case):
    keys, message = CASES[case]
    changed(results, "data", **keys)
    code, page = run(monkeypatch, results)
    assert code == 1 and not page.exists()
    assert message in capsys.readouterr().err


def test_results_of_two_machines_are_refused(monkeypatch, results, capsys):
    changed(results, "scaling", host={**result_of("scaling")["host"], "cpu": "another"})
    code, page = run(monkeypatch, results)
    assert code == 1 and not page.exists()
    assert "results of different cpu" in capsys.readouterr().err


def test_absent_results(monkeypatch, results, capsys):
    (results / "inference.json").unlink()
    code, page = run(monkeypatch, results)
    assert code == 1 and not page.exists()
    assert "inference; run python -m benchmarks.inference" in capsys.readouterr().err
    code, page = run(monkeypatch, results, "partial=true")
    text = page.read_text(encoding="utf-8")
    assert code == 0 and text.endswith("\n\nNot measured: `python -m benchmarks.inference`.\n")
    assert text.startswith("# First answer, Neuron, Training step, Time to an accuracy, Scaling, Event pipeline\n")


def test_only_the_goals(monkeypatch, results, capsys):
    changed(results, "data", small=True)
    code, page = run(monkeypatch, results, "goals=true")
    assert code == 0 and not page.exists()
    assert GOALS["train_step"] in capsys.readouterr().out


def test_a_note_on_a_goal_that_was_not_measured_is_named(monkeypatch, results, capsys):
    code, page = run(monkeypatch, results, notes='"training step in bf16": slow\n')
    assert code == 0 and "slow" not in page.read_text(encoding="utf-8")
    assert "not measured here, so its note is left out: training step in bf16" in capsys.readouterr().out


def test_notes_of_another_form_are_refused(monkeypatch, results, capsys):
    assert run(monkeypatch, results, notes="- slow\n")[0] == 1
    assert "must hold lines 'goal: reason'" in capsys.readouterr().err


@pytest.mark.parametrize("page", sorted(path.name for path in (ROOT / "docs/checks").iterdir() if path.is_dir()))
def test_a_page_is_that_of_the_files_kept_beside_it(page, tmp_path):
    published = ROOT / f"docs/{page}.md"
    copy = tmp_path / published.name
    found = make_page.load(make_page.kept(published), partial=True)
    make_page.check(found)
    make_page.write(found, make_page.notes(ROOT / "benchmarks/notes.yaml"), copy)
    assert copy.read_text(encoding="utf-8") == published.read_text(encoding="utf-8")
    for name in found:
        kept = [make_page.kept(path) / f"{name}.json" for path in (copy, published)]
        assert json.loads(kept[0].read_text(encoding="utf-8")) == json.loads(kept[1].read_text(encoding="utf-8"))


def test_make_bench_measures_what_the_page_shows():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    listed = re.search(r"^BENCHMARKS := (.*)$", makefile, re.M).group(1).split()
    assert listed == list(make_page.TITLES)
