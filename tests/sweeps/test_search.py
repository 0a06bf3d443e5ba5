"""A search runs its trials once, goes on where it stopped, prunes, survives trials that fail, and never tests."""

import json
import sqlite3
from contextlib import closing, suppress
from types import SimpleNamespace

import optuna
import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from qbsnn.cli.launch import register_resolvers
from qbsnn.sweeps.search import composed
from tests.test_configs import CONF
from tests.tool import one_paragraph

RUN = ("model.width=0.25", "data.limit_train=64", "data.limit_val=16", "trainer.max_epochs=2", "callbacks=no_deploy",
       "data.batch_size=32")  # fmt: skip


def study(tool, name="default"):
    return optuna.load_study(study_name=name, storage=f"sqlite:///{tool.folder}/outputs/search/{name}.db")


def test_a_search_that_was_stopped_ends_as_one_that_was_not(tool, capsys):
    assert tool("scripts/search.py", *RUN, "search.n_trials=2") == 0
    first = [trial.params for trial in study(tool).trials]
    capsys.readouterr()
    assert tool("scripts/search.py", *RUN, "search.n_trials=3") == 0
    shown = capsys.readouterr().out
    again = study(tool)
    assert [trial.state.name for trial in again.trials if trial.state.name == "FAIL"] == []
    assert len(again.trials) == len(tool.runs()) == 3 and [trial.params for trial in again.trials[:2]] == first
    assert len({json.dumps(trial.params) for trial in again.trials}) == 3
    assert "3 complete" in shown and "trial 2 (3 of 3)" in shown and "trial 0" not in shown.split("best:")[0]
    assert tool("scripts/search.py", *RUN, "search.n_trials=3", "search.name=straight") == 0
    assert [trial.params for trial in study(tool, "straight").trials] == [trial.params for trial in again.trials]
    assert [trial.value for trial in study(tool, "straight").trials] == [trial.value for trial in again.trials]

    # each is a run with what was proposed, judged by its best validation accuracy; test data were not read
    for trial in again.trials:
        run = tool.folder / f"outputs/search/default/trial_{trial.number:04d}"
        result = json.loads((run / "result.json").read_text())
        assert result["config"]["neuron"]["beta"] == trial.params["neuron.beta"]
        assert result["config"]["optim"]["optimizer"]["lr"] == trial.params["optim.optimizer.lr"]
        assert result["metrics"]["best"] == {"val/acc": trial.value}
        assert set(result["data"]["samples"]) == {"train", "val"}
        assert len(trial.intermediate_values) == 2 and max(trial.intermediate_values.values()) == trial.value
    best = max(again.trials, key=lambda trial: trial.value)
    assert f"best: trial {best.number}, val/acc {best.value:.4f}" in shown
    (command,) = [line for line in shown.splitlines() if line.startswith("train it: ")]
    assert command.startswith("train it: python train.py -m model.width=0.25") and command.endswith("seed=0,1,2")
    assert f"neuron.s_max={best.params['neuron.s_max']} " in command

    # what was begun with other settings is not gone on with
    assert tool("scripts/search.py", *RUN, "T=2", "search.n_trials=4") == 1
    assert "search default was begun with other settings: fixed was" in one_paragraph(capsys.readouterr().err)
    assert len(study(tool).trials) == 3


class Killed(BaseException):
    """Ends a trial as the end of its process does: nobody tells the study."""


def proposed(tool, name="default"):
    """What was proposed by each draw whose trial came to its end."""
    found = [trial for trial in study(tool, name).trials if trial.state.name == "COMPLETE"]
    assert len({trial.user_attrs["draw"] for trial in found}) == len(found)
    return {trial.user_attrs["draw"]: trial.params for trial in found}


@pytest.mark.parametrize("end", [SystemExit, KeyboardInterrupt, Killed])
def test_a_trial_that_ended_with_its_process_is_repeated_with_its_own_proposals(tool, monkeypatch, end):
    ends = [None, end]

    def train(cfg, callbacks):
        if ends and (error := ends.pop(0)):
            raise error
        return SimpleNamespace(metrics=SimpleNamespace(best={"val/acc": 0.5}))

    monkeypatch.setattr("qbsnn.sweeps.search.train", train)
    with suppress(KeyboardInterrupt, Killed):
        tool("scripts/search.py", *RUN, "search.n_trials=4")
    (_, broken) = study(tool).trials
    assert broken.state.name == ("RUNNING" if end is Killed else "FAIL") and broken.user_attrs["draw"] == 1
    assert tool("scripts/search.py", *RUN, "search.n_trials=4") == 0
    if end is Killed:  # it may still run for all that the study knows
        assert set(proposed(tool)) == {0, 2, 3}
        with closing(sqlite3.connect(tool.folder / "outputs/search/default.db")) as database, database:
            database.execute("update trial_heartbeats set heartbeat = '2000-01-01 00:00:00'")
        assert tool("scripts/search.py", *RUN, "search.n_trials=4") == 0
    assert tool("scripts/search.py", *RUN, "search.n_trials=4", "search.name=straight") == 0
    assert proposed(tool) == proposed(tool, "straight") and set(proposed(tool)) == {0, 1, 2, 3}


def test_a_trial_below_the_threshold_is_pruned_in_its_first_epoch(tool, capsys):
    pruner = ["search.pruner={_target_: optuna.pruners.ThresholdPruner, lower: 1.1}"]
    assert tool("scripts/search.py", *RUN, "search.n_trials=1", *pruner) == 0
    assert "1 pruned" in (shown := capsys.readouterr().out) and "nothing to recommend" in shown
    (trial,) = study(tool).trials
    assert trial.state.name == "PRUNED" and list(trial.intermediate_values) == [0]
    assert tool.result()["error"] == "TrialPruned: given up after epoch 1"


def test_a_trial_above_its_budget_ranks_behind_all_that_keep_theirs(tool, capsys):
    (tool.folder / "mine.yaml").write_text(
        "n_trials: 2\nseed: 0\nsampler: {_target_: optuna.samplers.BruteForceSampler}\n"
        "space: {budget.target: [0.001, 2.0]}\n"
    )
    assert tool("scripts/search.py", *RUN, "budget=energy", "budget.every=1", "search=mine.yaml") == 0
    found = {trial.params["budget.target"]: trial for trial in study(tool, "mine").trials}
    assert found[0.001].value < 0 < found[2.0].value
    # in the first epoch the target still falls
    assert all(list(trial.intermediate_values) == [1] for trial in found.values())
    shown = capsys.readouterr().out
    assert f": over its budget by {-found[0.001].value:.0%}".replace("%", " %") in shown
    assert f"best: trial {found[2.0].number}, val/acc" in shown


def test_a_trial_that_fails_does_not_stop_the_search(tool, capsys):
    file = tool.folder / "mine.yaml"
    file.write_text(
        "n_trials: 4\nseed: 0\nsampler: {_target_: optuna.samplers.RandomSampler}\n"
        "space: {neuron.delta: {low: 0.1, high: 1.0}, optim.optimizer.lr: [1e-3, 1e30], T: [1, 2]}\n"
    )
    arguments = [*RUN, "trainer.gradient_clip_val=null", f"search={file}", "search.space.T=null"]
    assert tool("scripts/search.py", *arguments) == 0
    shown = capsys.readouterr()
    assert "fail  neuron.delta=" in shown.out and "Error: " in shown.out and "Traceback" not in shown.err
    found = study(tool, "mine")
    assert len(found.trials) == 4 and all(set(t.params) == {"neuron.delta", "optim.optimizer.lr"} for t in found.trials)
    states = {trial.params["optim.optimizer.lr"]: trial.state.name for trial in found.trials}
    assert states == {1e-3: "COMPLETE", 1e30: "FAIL"}
    assert all("error" in trial.user_attrs for trial in found.trials if trial.state.name == "FAIL")
    assert found.best_trial.params["optim.optimizer.lr"] == 1e-3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["search=nope"], "search=nope: no such search; there are: default"),
        (["search.n_trials=0"], "search.n_trials must be an integer of at least 1, got 0"),
        (["search.trials=3"], "search.trials is not a setting: did you mean n_trials?"),
        (["search.foo=0"], "search.foo is not a setting: there are: n_trials, name, pruner, sampler, seed, space"),
        (
            ["search.space.T=[1,2"],
            "search.space.T must have a value that can be read as YAML, such as 0.1 or [1,2], got",
        ),
        (["search.n_trials=${nope}"], "the settings of the search do not resolve: Interpolation key 'nope' not found"),
        (["search.space.T=5"], "search.space.T must be a list of values, or {low: 1, high: 4}; got 5"),
        (
            ["search.space.neuron.beta={low: 3, high: 2}"],
            "search.space.neuron.beta: low must be below high, got 3 and 2",
        ),
        (["search.space.neuron.beta={low: 0, high: 2, log: true}"], "a logarithmic scale needs low above 0, got 0"),
        (["search.space.neuron.beta=[1]"], "space.neuron.beta must list two values or more, got [1]"),
        (["search.space.neuron.betta=[1, 2]"], "neuron.betta"),
        (["search.pruner._target_=optuna.pruners.Nope"], "search.pruner"),
        (["trainer=ddp_cpu"], "a trial of a search runs in one process"),
        (
            ["trainer.limit_val_batches=0"],
            "trials by val/acc: trainer.limit_val_batches must not be 0",
        ),
        (["callbacks.checkpoint=null"], "by the best val/acc, which callbacks.checkpoint finds: it must not be null"),
        (["~callbacks.checkpoint"], "by the best val/acc, which callbacks.checkpoint finds: it must not be null"),
        (["++paths.outputs='a %b'"], "/a %b/search/default: the path has %"),
        (["T=0"], "T must be an integer from 1 to 1024, got 0"),
    ],
)
def test_a_search_that_cannot_be_made_is_explained_and_leaves_no_trial(tool, capsys, arguments, words):
    assert tool("scripts/search.py", *arguments) == 1
    assert words in one_paragraph(capsys.readouterr().err)
    assert not [path for path in tool.left_behind() if path.suffix != ".db"]


def test_without_optuna_the_extra_is_named(tool, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    assert tool("scripts/search.py") == 1
    assert "pip install 'qbsnn[search]'" in one_paragraph(capsys.readouterr().err)
    assert tool.left_behind() == []


def test_a_search_file_that_is_no_yaml_is_named_with_its_line(tool, capsys):
    (tool.folder / "mine.yaml").write_text("n_trials: 4\nspace: {\n")
    assert tool("scripts/search.py", "search=mine.yaml") == 1
    assert "mine.yaml, line 3, column 1 is no YAML: " in one_paragraph(capsys.readouterr().err)


def test_a_folder_with_an_apostrophe_is_no_end_of_a_setting(tmp_path):
    register_resolvers()
    before = HydraConfig.instance().cfg
    try:
        cfg = composed(CONF, ["T=2"], tmp_path / "o'brien" / "a b")
    finally:
        GlobalHydra.instance().clear()
        HydraConfig.instance().cfg = before
    assert cfg.paths.run == f"{tmp_path}/o'brien/a b"
