"""``train.py sweep=NAME`` from the command line to the files it leaves."""

import csv
import json
import signal
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
from filelock import FileLock
from omegaconf import OmegaConf

from qbsnn.errors import VerificationError
from qbsnn.training.module import Classifier
from tests.sweeps.sweeping import SETTINGS, SMALL, Sweeping, numbers, results, steps
from tests.tool import Tool, one_paragraph


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The small sweep, run once, and what that showed."""
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as shown:
        sweep = Sweeping(Tool(patch, tmp_path_factory.mktemp("undisturbed")))
        assert sweep() == 0
    return sweep, shown.getvalue()


def test_a_sweep_trains_every_cell_once_and_then_nothing(undisturbed):
    sweep, shown = undisturbed
    assert "cell 4/4  QB, seed 1  done in" in shown and "4 cells: 4 done, 0 running, 0 failed, 0 missing" in shown
    assert "epoch 1/2" not in shown and "test samples" not in shown
    found = results(sweep.folder)
    assert len(found) == 4
    for cell in sweep.cells():
        _, run = found[cell["fingerprint"]]
        assert cell["status"] == "done" and cell["error"] is None and cell["run"] == str(run)
        assert run.name.endswith(cell["fingerprint"]) and f"seed-{cell['seed']}" in run.name
        config = json.loads((run / "result.json").read_text())["config"]
        assert config["seed"] == cell["seed"] and config["paths"]["run"] == str(run)
        assert config["neuron"]["_target_"] == {"LIF": "qbsnn.neurons.LIF", "QB": "qbsnn.neurons.QBLIF"}[cell["row"]]
        assert cell["seconds"] > 0 and cell["label"] == cell["row"]
        assert steps(run) == [[(0, 0), (1, 4)]]
        with (run / "metrics.csv").open() as file:
            assert {row["epoch"] for row in csv.DictReader(file) if row["train/acc"]} == {"0", "1"}
    before = {path: path.stat().st_mtime_ns for path in sweep.folder.rglob("*") if "seed-" in str(path)}
    assert sweep() == 0
    assert before == {path: path.stat().st_mtime_ns for path in sweep.folder.rglob("*") if "seed-" in str(path)}


def test_overrides_of_the_command_line_make_other_cells_and_finished_runs_count_wherever_they_lie(tool, sweep, capsys):
    alone = [word.strip('"') for word in SETTINGS]
    assert tool("train.py", *alone, "neuron=lif", "trainer.max_epochs=1", "seed=5", "name=elsewhere") == 0
    run = tool.runs()[-1]
    assert sweep("trainer.max_epochs=1", "sweep.seeds=[5]", "--list") == 0
    assert "2 cells: 1 done, 0 running, 0 failed, 1 missing" in capsys.readouterr().out
    assert [(cell["status"], cell["run"]) for cell in sweep.cells()] == [("done", str(run)), ("missing", None)]
    assert sweep("trainer.max_epochs=1", "sweep.seeds=[5]") == 0
    lif, qb = sweep.cells()
    assert lif["run"] == str(run) and Path(qb["run"]).parent == sweep.folder
    assert "trainer.max_epochs=1" in qb["overrides"] and "trainer.max_epochs=2" not in qb["overrides"]


def test_failures_are_recorded_and_do_not_stop_the_others(tool, sweep, capsys):
    wrong = {
        "value": "neuron.s_max=0",
        "name": "neuron=qb_lift",
        "key": "neuron.nope=1",
        "teacher": "teacher=nope.ckpt",
    }
    rows = "\n".join(f"  - {{label: {label}, overrides: [{override}]}}" for label, override in wrong.items())
    sweep.write(SMALL.replace("rows:\n", f"rows:\n{rows}\n").replace("[0, 1]", "[0]"))
    assert sweep() == 1
    shown, errors = capsys.readouterr()
    assert "6 cells: 2 done, 0 running, 4 failed, 0 missing" in shown
    assert "Traceback" not in shown + errors
    reasons = {cell["row"]: cell["error"] for cell in sweep.cells()}
    assert reasons["value"] == "neuron.s_max must be an integer from 1 to 127, got 0"
    assert reasons["name"] == "neuron=qb_lift: no such neuron; did you mean qb_lif?"
    assert "Could not override 'neuron.nope'" in reasons["key"]
    assert reasons["teacher"] == "teacher: checkpoint nope.ckpt does not exist"
    assert reasons["LIF"] is reasons["QB"] is None
    for reason in reasons.values():
        assert reason is None or reason in errors
    assert sweep("--list") == 0
    listed = capsys.readouterr().out
    assert "6 cells: 2 done, 0 running, 4 failed, 0 missing; about 0:00:" in listed
    assert "neuron.s_max must be an integer" in listed


def test_an_error_of_the_program_is_one_failure_with_its_trace_in_the_log(sweep, monkeypatch, capsys):
    honest = Classifier.training_step
    errors = {"qbsnn.neurons.LIF": ZeroDivisionError, "qbsnn.neurons.QBLIF": VerificationError}

    def broken(self, batch, batch_idx):
        if self.config["seed"] == 1:
            raise errors[self.config["neuron"]["_target_"]]("by the test")
        return honest(self, batch, batch_idx)

    monkeypatch.setattr(Classifier, "training_step", broken)
    assert sweep() == 1
    assert "Traceback" not in "".join(capsys.readouterr())
    failed = [cell for cell in sweep.cells() if cell["status"] == "failed"]
    assert [cell["seed"] for cell in failed] == [1, 1]
    assert [cell["error"] for cell in failed] == [f"{error.__name__}: by the test" for error in errors.values()]
    for cell in failed:
        assert "Traceback" in next(sweep.folder.glob(f"*{cell['fingerprint']}/train.log")).read_text()
    monkeypatch.setattr(Classifier, "training_step", honest)
    assert sweep() == 0
    assert {cell["status"] for cell in sweep.cells()} == {"done"}


def test_a_stopped_sweep_goes_on_where_it_stopped(sweep, monkeypatch, undisturbed):
    whole = numbers(undisturbed[0].folder)
    honest = Classifier.training_step
    left = [14]  # in the second epoch of the second cell

    def step(self, batch, batch_idx):
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        return honest(self, batch, batch_idx)

    monkeypatch.setattr(Classifier, "training_step", step)
    before = signal.getsignal(signal.SIGINT)
    try:
        assert sweep() == 128 + signal.SIGINT
    finally:
        signal.signal(signal.SIGINT, before)  # Lightning ignores further ones while it shuts down
    assert [cell["status"] for cell in sweep.cells()] == ["done", "missing", "missing", "missing"]
    assert sweep() == 0
    assert numbers(sweep.folder) == whole
    runs = [Path(cell["run"]) for cell in sweep.cells()]
    texts = [(run / "steps.jsonl").read_text().splitlines() for run in runs]
    lines = [[json.loads(line)["step"] for line in text] for text in texts]
    assert lines == [[0, 4], [0, 4, 4], [0, 4], [0, 4]]


def test_a_cell_that_another_process_holds_is_left_to_it(sweep, monkeypatch, capsys):
    from qbsnn.sweeps import running as sweep_run

    sweep.write(SMALL.replace("[0, 1]", "[0]"))
    assert sweep("--list") == 0
    monkeypatch.setattr("qbsnn.training.record.PATIENCE", 0.0)
    monkeypatch.setattr(sweep_run, "PASSES", 1)
    left_to_others = []
    honest = sweep_run.CellTask.__call__

    def held(self, cfg):
        folder = Path(cfg.paths.run)
        if "lif" not in folder.name:
            return honest(self, cfg)
        left_to_others.append(folder)
        with FileLock(folder / ".lock"):
            return honest(self, cfg)

    monkeypatch.setattr(sweep_run.CellTask, "__call__", held)
    assert sweep() == 1
    assert [cell["status"] for cell in sweep.cells()] == ["missing", "done"]
    assert not (left_to_others[0] / "steps.jsonl").exists()
    capsys.readouterr()
    with FileLock(left_to_others[0] / ".lock"):
        assert sweep("--list") == 0
        assert "2 cells: 1 done, 1 running, 0 failed, 0 missing" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["sweep=smal"], "sweep=smal: no such sweep; did you mean"),
        (["sweep=s_max", "-m"], "sweep=s_max runs its cells by itself: leave out -m"),
        (["sweep=s_max", "neuron.s_max=3"], "neuron.s_max=3: the sweep varies this setting; change sweep.grid instead"),
        (["sweep=table_digits", "T=3"], "T=3: the sweep varies this setting; change its rows instead"),
        (["sweep=s_max", "seed=3"], "use sweep.seeds=[3] instead"),
        (["sweep=s_max", "sweep.seeds=[]"], "sweep.seeds"),
        (["sweep=s_max", "sweep.seeds=[1,1]"], "seeds must differ, got [1, 1]"),
        (["sweep=s_max", "+sweep.gird={T: [1]}"], "sweep.gird is not a key; there are title, overrides, grid"),
        (["sweep=s_max", "+sweep.baseline=LIF"], "baseline must be the label of a row"),
        (["sweep=s_max", "sweep.figure=nofig"], "sweep=s_max: sweep.figure must be one of timesteps, s_max,"),
        (["--list"], "listing the cells needs a sweep: sweep=NAME"),
    ],
)
def test_a_bad_sweep_is_one_paragraph_and_leaves_nothing(tool, capsys, arguments, words):
    assert tool("train.py", *arguments) == 1
    assert words in one_paragraph(capsys.readouterr().err)
    assert [path for path in tool.left_behind() if path.name != "multirun.yaml"] == []


def test_rows_that_come_to_the_same_run_are_refused(sweep, capsys):
    sweep.write(SMALL.replace("[neuron.s_max=4]", "[neuron=lif, name=other]"))  # a name makes no other run
    assert sweep() == 1
    assert "LIF and QB (seed 0) are the same run" in one_paragraph(capsys.readouterr().err)


def test_a_file_that_is_no_yaml_is_named_with_its_line(sweep, capsys):
    sweep.write("title: t\nrows: [\n")
    assert sweep() == 1
    text = one_paragraph(capsys.readouterr().err)
    assert "conf/sweep/small.yaml, line 3, column 1 is no YAML: " in text


def test_a_cell_whose_folder_cannot_be_opened_does_not_stop_the_others(sweep, capsys):
    sweep.write(SMALL.replace("[0, 1]", "[0]"))
    assert sweep("--list") == 0
    marks = {cell["row"]: cell["fingerprint"] for cell in sweep.cells()}
    blocked = sweep.folder / f"anything_{marks['LIF']}"
    blocked.write_text("in the way")
    assert sweep() == 1
    lif, qb = sweep.cells()
    assert (lif["status"], qb["status"]) == ("failed", "done")
    assert lif["error"] == f"{blocked} cannot be written: File exists"
    assert f"failed: LIF, seed 0: {blocked} cannot be written" in capsys.readouterr().err
    blocked.unlink()
    assert sweep() == 0


def test_finished_cells_that_vanish_from_the_list_are_told(sweep, capsys):
    one = ("trainer.max_epochs=1", "sweep.seeds=[0]")
    assert sweep(*one) == 0 and sweep(*one, "--list") == 0
    assert "no longer lists" not in capsys.readouterr().out
    assert sweep("trainer.max_epochs=1", "sweep.seeds=[0,1]", "--list") == 0
    assert "no longer lists" not in capsys.readouterr().out
    assert sweep("trainer.max_epochs=1", "sweep.seeds=[1]", "--list") == 0
    assert "cells.json no longer lists 2 finished cells of other settings" in capsys.readouterr().out


def test_a_cell_that_another_process_has_just_finished_is_left_as_it_is(sweep, monkeypatch):
    from qbsnn.sweeps import running as sweep_run

    sweep.write(SMALL.replace("[0, 1]", "[0]"))
    assert sweep() == 0
    before = {path: path.read_bytes() for path in sweep.folder.rglob("result.json")}
    (path, *_) = before
    cfg = OmegaConf.create(json.loads(path.read_text())["config"])
    monkeypatch.setattr(sweep_run.files, "finished", lambda *_: None)  # not when it was looked at
    assert not sweep_run._trained(cfg, path.parent)
    assert before == {path: path.read_bytes() for path in before}
    monkeypatch.setattr(sweep_run, "validate", None)  # nothing is built where another process has the folder
    with FileLock(path.parent / ".lock"):
        assert not sweep_run._trained(cfg, path.parent)
    assert not list(sweep.folder.rglob("failed.json"))
