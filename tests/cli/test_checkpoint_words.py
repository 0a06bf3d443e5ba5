"""What may be said beside ``ckpt=`` and ``resume=``."""

import json
import shutil

import pytest

from qbsnn.cli import checkpoints
from qbsnn.training.settings import validate
from tests.tool import TINY, Tool, one_paragraph


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


@pytest.mark.parametrize(
    ("word", "message"),
    [
        (
            "~callbacks.energy",
            "nothing can be taken out of a checkpoint's settings; callbacks.energy=null switches it off",
        ),
        ("T", "T is no key=value"),
        (
            "data.batch_size=[1",
            "data.batch_size must have a value that can be read as YAML, such as 0.1 or [1,2], got [1",
        ),
        (
            "callbacks=robustness",
            "write single ones, such as +callbacks.robustness._target_=qbsnn.callbacks.Robustness",
        ),
        ("neuron=lif", "neuron=lif: a checkpoint holds the settings of neuron, not the name of a choice"),
        ("test=false", "test is a setting of training, which this tool does not do; leave it out"),
        ("init_from=x.ckpt", "init_from is a setting of training, which this tool does not do; leave it out"),
        ("optim.optimizer.lr=7", "optim.optimizer.lr is a setting of training, which this tool does not do"),
        ("budget.target=0.5", "budget.target is a setting of training, which this tool does not do; leave it out"),
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


@pytest.mark.parametrize("word", ["overwrite=true", "logger=wanb", "logger="])
def test_words_that_a_run_to_go_on_with_does_not_take(tool, capsys, trained, word):
    said = {
        "overwrite=true": "overwrite has no meaning beside resume=, which goes on with what is there; leave it out",
        "logger=wanb": "logger=wanb: no such logger; did you mean wandb?",
        "logger=": "logger has no value",
    }
    assert tool("train.py", f"resume={trained}", word) == 1
    assert said[word] in one_paragraph(capsys.readouterr().err)
