"""The first answer: what is wrong is said, and the help shown, before the libraries that take seconds are imported."""

import os
import re
import subprocess
import sys

import pytest
import yaml
from hydra import compose, initialize_config_dir

from qbsnn.bounds import BOUNDS
from qbsnn.deploy.export.write import FORMATS
from qbsnn.errors import SettingsError
from qbsnn.training.building import RULES, locate
from qbsnn.training.defaults import arguments
from qbsnn.training.settings import screen
from tests.tool import ROOT, one_paragraph

CONF = ROOT / "conf"

HEAVY = ("numpy", "torch", "lightning", "torchmetrics", "torchvision", "scipy", "pandas", "matplotlib", "sklearn")

RUN = f"""
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print("imported:", *(name for name in {HEAVY} if name in sys.modules))
"""


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["train.py", "neuron.s_max=0"], 1, "error: neuron.s_max must be an integer from 1 to 127, got 0"),
        (["train.py", "neuron.smax=3"], 1, "error: neuron.smax is not a setting: did you mean neuron.s_max?"),
        (["train.py", "--help"], 0, "trainer.max_epochs="),
        (["train.py", "resume=absent"], 1, "absent has no checkpoint to go on from"),
        (["evaluate.py", "ckpt=absent.ckpt"], 1, "absent.ckpt does not exist"),
        (["evaluate.py", "ckpt=.", "deploy.bits=9"], 1, "error: deploy.bits must be an integer from 2 to 8, got 9"),
        (
            ["scripts/export.py", "ckpt=a.ckpt", "format=c", "out=."],
            1,
            ". exists already; name another path",
        ),
        (["scripts/export.py", "ckpt=a.ckpt", "fromat=c"], 1, "does not exist; format is missing: write format="),
    ],
)
def test_nothing_heavy_is_imported_for_it(tmp_path, words, code, said):
    script, *others = words
    command = [sys.executable, "-c", RUN, str(ROOT / script), *others]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == code and said in done.stdout + done.stderr, done.stderr
    assert done.stdout.splitlines()[-1] == "imported:"


WRONG = {
    "T=0": "T must be an integer from 1 to 1024, got 0",
    "seed=-1": "seed must be an integer from 0 to 4294967295, got -1",
    "neuron.s_max=128": "neuron.s_max must be an integer from 1 to 127, got 128",
    "neuron.s_max=2.5": "neuron.s_max must be an integer from 1 to 127, got 2.5",
    "neuron.tau=0.5": "neuron.tau must be a number of at least 1, got 0.5",
    "neuron.delta=0": "neuron.delta must be a number above 0, got 0",
    "neuron.percentile=101": "neuron.percentile must be a number above 0 and at most 100, got 101",
    "neuron.output=nope": "neuron.output must be one of counts, graded, got 'nope'",
    "neuron.learn_tau=1": "neuron.learn_tau must be true or false, got 1",
    "neuron._target_=os.system": "neuron._target_ may not be 'os.system'",
    "+model.neurons={conv1:{_target_:qbsnn.neurons.QBLIF,s_max:0}}": "model.neurons.conv1.s_max must be an integer",
    "model.width=x": "model.width must be a number above 0, got 'x'",
    "model.readout=nope": "model.readout must be one of current, membrane, rate, got 'nope'",
    "data.batch_size=0": "data.batch_size must be an integer from 1 to 2147483648, got 0",
    "data.val_fraction=2": "data.val_fraction must be a number above 0 and below 1, got 2",
    "data.limit_train=0": "data.limit_train must be an integer from 1 to 2147483648 or null, got 0",
    "optim.optimizer.lr=-1": "optim.optimizer.lr must be a number of at least 0, got -1",
    "optim.optimizer.lr=null": "optim.optimizer.lr must be a number of at least 0, got None",
    "optim.scheduler.T_max=0": "optim.scheduler.T_max must be an integer of at least 1, got 0",
    "optim.loss.label_smoothing=7": "optim.loss.label_smoothing must be a number of at least 0 and at most 1, got 7",
    "trainer.max_epochs=0": "trainer.max_epochs must be an integer of at least 1, got 0",
    "trainer.limit_train_batches=-3": "trainer.limit_train_batches must be a number of at least 0 or null, got -3",
    "trainer.val_check_interval=0": "trainer.val_check_interval must be a number above 0 or null, got 0",
    "trainer.gradient_clip_val=x": "trainer.gradient_clip_val must be a number of at least 0 or null, got 'x'",
    "trainer.devices=null": "trainer.devices must be an integer or a text or a list, got None",
    "init_from=3": "init_from must be a text or null, got 3",
    "budget={_target_:qbsnn.energy.budget.EnergyBudget,target:15}": "budget.target must be a share of at most 2 of the",
    "deploy.bits=9": "deploy.bits must be an integer from 2 to 8, got 9",
    "callbacks.checkpoint.dirpath=/tmp": "callbacks.checkpoint.dirpath must be a folder in the run directory",
}


@pytest.mark.parametrize("override", WRONG)
def test_the_first_stage_refuses(tmp_path, override):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        places = [f"paths.{name}={tmp_path}" for name in ("run", "data", "outputs")]
        cfg = compose("train", ["name=x", *places, "++" + override.lstrip("+")])
    with pytest.raises(SettingsError) as refused:
        screen(cfg)
    assert str(refused.value).startswith(WRONG[override])


@pytest.mark.parametrize("group", ["neuron", "model", "data"])
def test_every_bound_is_of_an_argument_that_something_takes(group):
    taken = set()
    for file in (CONF / group).glob("[!_]*.yaml"):
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        if target := content.get(group, content).get("_target_"):  # some files also set more than their group
            taken |= set(arguments(locate(group, target)))
    assert set(BOUNDS[group].model_fields) <= taken
    assert set(BOUNDS) <= set(RULES)


@pytest.mark.parametrize("data", ["image_folder", "event_folder"])
def test_files_of_ones_own_are_not_sought_among_the_sets(tool, capsys, data):
    (tool.folder / "data/MNIST/raw").mkdir(parents=True)
    (tool.folder / "data/NMNIST/Test").mkdir(parents=True)
    assert tool("train.py", f"data={data}") == 1
    assert "data.root is not set: write data.root=FOLDER" in one_paragraph(capsys.readouterr().err)
    assert tool.left_behind() == []


@pytest.mark.parametrize(
    ("script", "key"), [("evaluate.py", "ckpt"), ("train.py", "resume"), ("train.py", "init_from")]
)
def test_the_folder_of_all_runs_is_no_run(tool, capsys, script, key):
    for name in "abcd":
        (tool.folder / f"outputs/runs/{name}/checkpoints").mkdir(parents=True)
    assert tool(script, f"{key}=outputs") == 1
    message = one_paragraph(capsys.readouterr().err)
    assert "; runs below it: outputs/runs/b, outputs/runs/c, outputs/runs/d" in message


def test_a_first_checkpoint_that_is_absent_is_missed_at_once(tool, capsys):
    assert tool("train.py", "init_from=absent.ckpt") == 1
    assert "init_from: checkpoint absent.ckpt does not exist" in capsys.readouterr().err
    assert tool.left_behind() == []


def test_the_key_of_export_names_the_formats_that_there_are(tool, capsys):
    assert tool("scripts/export.py", "--help") == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  format=")]
    assert re.findall(r"\w+", line.partition("what to write:")[2].replace(" or ", " ")) == list(FORMATS)


def test_imports_without_the_garbage_collector():
    """It rests while they last, whatever happens, and never freezes what stood there before PyTorch came."""
    code = """
import gc
from qbsnn.cli import launch
try:
    with launch.heavy_imports():
        assert not gc.isenabled()
        raise ImportError
except ImportError:
    assert gc.isenabled() and gc.get_freeze_count() == 0
with launch.heavy_imports():
    import torch
assert gc.isenabled() and (frozen := gc.get_freeze_count()) > 0
with launch.heavy_imports():
    assert gc.isenabled()
assert gc.get_freeze_count() == frozen
"""
    subprocess.run([sys.executable, "-c", code], check=True)
