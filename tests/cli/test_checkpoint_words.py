"""What may be said beside ``ckpt=`` and ``resume=``."""

import json
import re
import shutil

import pytest
import yaml

from qbsnn.cli import checkpoints
from qbsnn.cli.keys import CheckpointKeys, read
from qbsnn.results.fingerprint import leaves
from qbsnn.training.settings import validate
from tests.tool import ROOT, TINY, Tool, one_paragraph


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a small run without deployment."""
    with pytest.MonkeyPatch.context() as patch:
        tool = Tool(patch, tmp_path_factory.mktemp("trained"))
        assert tool("train.py", *TINY, "callbacks=no_deploy", "report=false") == 0
        return tool.runs()[-1]


def test_the_folder_of_a_run_stands_for_its_best_checkpoint(tool, trained):
    assert json.loads((trained / "result.json").read_text())["integer"] is None  # debug=tiny did not switch it on again
    assert tool("evaluate.py", f"ckpt={trained}", "report=false") == 0
    assert tool.result()["metrics"]["best"].keys() >= {"test/acc", "test/loss"}


def test_the_summary_names_the_checkpoint_that_it_is_of(tool, trained, capsys):
    assert tool("evaluate.py", f"ckpt={trained}/checkpoints/last.ckpt", "report=false") == 0
    said = capsys.readouterr().out
    assert "(last.ckpt)" in said and "best by validation" not in said


def test_what_was_made_of_a_key_follows_it(tool, trained, capsys):
    assert tool("evaluate.py", f"ckpt={trained}", "report=false", "T=3", "seed=5", "model.decision=last") == 0
    assert "T = 3, seed 5" in capsys.readouterr().out
    config = tool.result()["config"]
    assert [config["T"], config["model"]["T"], config["seed"], config["data"]["seed"]] == [3, 3, 5, 5]
    assert config["optim"]["loss"]["decision"] == "last"
    assert tool("evaluate.py", f"ckpt={trained}", "model.T=3") == 1
    assert "model.T follows T, which is 4, got 3: write T=3 instead" in one_paragraph(capsys.readouterr().err)


def stored(*overrides):
    config = {
        "seed": 0,
        "paths": {"run": "/a/run", "data": "/a/data"},
        "data": {"root": "/a/data/imagenet", "seed": 7, "cache_dir": None},
    }
    return checkpoints.stored_config({"qbsnn": {"config": config}}, ROOT / "a.ckpt", overrides, ROOT)


def test_the_folder_of_the_data_is_the_one_that_is_named_now(monkeypatch):
    assert stored().data.root == "/a/data/imagenet"
    monkeypatch.setenv("QBSNN_DATA", "/b")
    assert stored().data.root == "/b/imagenet" and stored().paths.data == "/b"
    assert stored("paths.data=/c").data.root == "/c/imagenet"
    assert stored("data.root=/d", "paths.data=/c").data.root == "/d"
    assert stored("seed=3").data.seed == 7  # which the run had set itself
    assert stored("data.root=${paths.data}/x").data.root == "/b/x"


def test_a_word_may_name_another_setting_of_the_checkpoint():
    assert read(CheckpointKeys, [f"ckpt={ROOT / 'train.py'}", "deploy.bits=${neuron.num_bits}"]).overrides


def test_what_conf_makes_of_other_keys_is_known():
    made = {}
    groups = {*checkpoints.GROUPS, "optim.loss"} - {"callbacks", "logger"}
    for path in (ROOT / "conf").glob("**/*.yaml"):
        group, text = path.parent.relative_to(ROOT / "conf").as_posix().replace("/", "."), path.read_text()
        for key, value in leaves(yaml.safe_load(text) or {}) if group in groups else ():
            if source := re.match(r"\$\{([\w.]+)", str(value)):
                made.setdefault(source[1], set()).add(key if "@package _global_" in text else f"{group}.{key}")
    of_runs = {source for source in made if source in checkpoints.OF_TRAINING or source.startswith("paths.")}
    assert {source: made[source] for source in made.keys() - of_runs} == {
        source: set(followers) for source, followers in checkpoints.FOLLOWERS.items()
    }


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("paths.run=x", "paths.run is chosen by this tool; paths.outputs=DIR says below which folder"),
        (
            "~callbacks.energy",
            "nothing can be taken out of a checkpoint's settings; callbacks.energy=null switches it off",
        ),
        ("T", "T is no key=value"),
        (
            "data.batch_size=[1",
            "data.batch_size must have a value that can be read as YAML, such as 0.1 or [1,2], got [1",
        ),
        ("data.root=${", "data.root must have a value that can be read as YAML, such as 0.1 or [1,2], got ${"),
        ("deploy.bits=${", "deploy.bits must have a value that can be read as YAML, such as 0.1 or [1,2], got ${"),
        ("data.root=${nope}/x", "the settings do not resolve: Interpolation key 'nope' not found"),
        (
            "callbacks=robustness",
            "write single ones, such as +callbacks.robustness._target_=qbsnn.callbacks.Robustness",
        ),
        ("neuron=lif", "neuron=lif: a checkpoint holds the settings of neuron, not the name of a choice"),
        ("test=false", "test is a setting of training, which this tool does not do; leave it out"),
        ("init_from=x.ckpt", "init_from is a setting of training, which this tool does not do; leave it out"),
        ("optim.optimizer.lr=7", "optim.optimizer.lr is a setting of training, which this tool does not do"),
        ("budget.target=0.5", "budget.target is a setting of training, which this tool does not do; leave it out"),
        ("neuron.delta=3", "neuron.delta is a setting of training, which this tool does not do; leave it out"),
        ("trainer.max_epochs=50", "trainer.max_epochs is a setting of training, which this tool does not do"),
        ("~deploy", "~deploy: nothing can be taken out of a checkpoint's settings"),
        ("logger=", "logger has no value: write logger=VALUE, or leave it out"),
    ],
)
def test_words_that_a_checkpoint_does_not_take(tool, capsys, trained, word, message):
    assert tool("evaluate.py", f"ckpt={trained}", word) == 1
    assert message in one_paragraph(capsys.readouterr().err)
    assert tool.left_behind() == []


def test_one_trusted_package_is_a_text_or_a_list(trained, monkeypatch):
    seen = []
    monkeypatch.setattr(checkpoints, "validate", lambda cfg: seen.append(list(cfg.trust)) or validate(cfg))
    for trust in ("mine", ["mine", "yours"]):
        checkpoints.load(trained, trust)
    assert seen == [["mine"], ["mine", "yours"]]


def test_a_run_goes_on_with_another_logger(tool, trained, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    shutil.copytree(trained, tool.folder / "outputs/a")
    words = ("resume=outputs/a", "trainer.max_epochs=2", "logger=wandb")
    assert tool("train.py", *words) == 0
    config = json.loads((tool.folder / "outputs/a/result.json").read_text())["config"]
    assert config["logger"]["wandb"]["job_type"] == "train"
    assert list((tool.folder / "outputs/a").rglob("*.wandb"))


@pytest.mark.parametrize("word", ["overwrite=true", "logger=wanb", "logger=", "trainer.max_epochs=${x}"])
def test_words_that_a_run_to_go_on_with_does_not_take(tool, capsys, trained, word):
    said = {
        "overwrite=true": "overwrite has no meaning beside resume=, which goes on with what is there; leave it out",
        "logger=wanb": "logger=wanb: no such logger; did you mean wandb?",
        "logger=": "logger has no value",
        "trainer.max_epochs=${x}": "trainer.max_epochs must be at least ",
    }
    assert tool("train.py", f"resume={trained}", word) == 1
    assert said[word] in one_paragraph(capsys.readouterr().err)
