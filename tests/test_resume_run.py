"""``train.py resume=RUN``: all settings from the run itself."""

import json
import os
import shutil
import signal

import pytest
import torch

from qbsnn.cli.checkpoints import stored_config
from qbsnn.errors import DataError
from qbsnn.training.module import Classifier
from tests.tool import Tool, one_paragraph

SMALL = ("report=false", "data.limit_train=128", "data.limit_val=32", "data.limit_test=64", "callbacks.integer=null",
         "callbacks.absorption=null", "model.width=0.25", "data.batch_size=32", "neuron.s_max=4",
         "optim=sgd", "optim.scheduler=null")  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of two epochs."""
    with pytest.MonkeyPatch.context() as patch:
        tool = Tool(patch, tmp_path_factory.mktemp("finished"))
        assert tool("train.py", *SMALL, "trainer.max_epochs=2", "hydra.run.dir=outputs/a") == 0
        return tool.folder / "outputs/a"


@pytest.fixture
def trained(tool, finished):
    """The tools, and a copy of that run in ``outputs/a``."""
    shutil.copytree(finished, tool.folder / "outputs/a")
    return tool


def last(tool, name):
    return torch.load(tool.folder / f"outputs/{name}/checkpoints/last.ckpt", weights_only=True)


def test_an_extended_run_is_the_longer_one(trained):
    assert trained("train.py", "resume=outputs/a", "trainer.max_epochs=4") == 0
    result = json.loads((trained.folder / "outputs/a/result.json").read_text())
    assert result["status"] == "finished" and result["timing"]["epochs"] == 4
    assert result["config"]["neuron"]["s_max"] == 4
    assert trained("train.py", *SMALL, "trainer.max_epochs=4", "hydra.run.dir=outputs/b") == 0
    ours, theirs = (last(trained, name)["state_dict"] for name in "ab")
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert result["command"].endswith("hydra.run.dir=outputs/a && train.py resume=outputs/a trainer.max_epochs=4")
    rows = (trained.folder / "outputs/a/metrics.csv").read_text().splitlines()
    assert len(rows) == 1 + 4


def ended(self):
    raise DataError("stopped by the test")


def terminated(self):
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(("stop", "at"), [(ended, 8), (terminated, 9)], ids=["before a step", "within an epoch"])
def test_an_extended_run_that_is_stopped_goes_on_to_the_longer_one(trained, monkeypatch, stop, at):
    honest = Classifier.training_step

    def step(self, batch, batch_idx):
        if self.trainer.global_step == at:
            stop(self)
        return honest(self, batch, batch_idx)

    monkeypatch.setattr(Classifier, "training_step", step)
    assert trained("train.py", "resume=outputs/a", "trainer.max_epochs=3") != 0
    assert last(trained, "a")["qbsnn"]["config"]["trainer"]["max_epochs"] == 2
    assert (trained.folder / "outputs/a/checkpoints/resume.ckpt").exists() == (stop is terminated)
    monkeypatch.setattr(Classifier, "training_step", honest)
    assert trained("train.py", "resume=outputs/a") == 0
    result = json.loads((trained.folder / "outputs/a/result.json").read_text())
    assert result["status"] == "finished" and result["timing"]["epochs"] == 3
    assert result["command"].endswith("&& train.py resume=outputs/a trainer.max_epochs=3")
    assert last(trained, "a")["global_step"] == 12 and last(trained, "a")["epoch"] == 2


def test_a_run_whose_extension_no_file_but_a_checkpoint_tells_is_not_made_shorter(trained, capsys):
    checkpoints = trained.folder / "outputs/a/checkpoints"
    before = (checkpoints / "last.ckpt").read_bytes()
    assert trained("train.py", "resume=outputs/a", "trainer.max_epochs=3") == 0
    (trained.folder / "outputs/a/result.json").unlink()
    (checkpoints / "best.ckpt").unlink()
    (checkpoints / "last.ckpt").rename(checkpoints / "resume.ckpt")
    (checkpoints / "last.ckpt").write_bytes(before)
    capsys.readouterr()
    assert trained("train.py", "resume=outputs/a", "trainer.max_epochs=2") == 1
    assert "trainer.max_epochs must be at least 3" in one_paragraph(capsys.readouterr().err)


def test_a_finished_run_is_only_tested_again_and_keeps_its_command(trained, capsys):
    before = json.loads((trained.folder / "outputs/a/result.json").read_text())
    assert trained("train.py", "resume=outputs/a") == 0
    assert "INFO: all epochs had been trained before; the network is tested again\n" in capsys.readouterr().out
    assert json.loads((trained.folder / "outputs/a/result.json").read_text())["command"] == before["command"]


def test_a_moved_run_goes_on_where_it_lies(trained):
    (trained.folder / "outputs/a").rename(trained.folder / "elsewhere")
    assert trained("train.py", "resume=elsewhere", "trainer.max_epochs=3") == 0
    assert json.loads((trained.folder / "elsewhere/result.json").read_text())["timing"]["epochs"] == 3
    assert not (trained.folder / "outputs/a").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["resume=outputs/a", "neuron.s_max=8"], "neuron.s_max would make another experiment"),
        (["resume=outputs/a", "trainer.max_epochs=1"], "trainer.max_epochs must be at least 2"),
        (["resume=outputs/nothing"], "has no checkpoint to go on from"),
        (["resume=outputs/a", "trainer.max_epochs=many"], "trainer.max_epochs must be at least 2"),
    ],
)
def test_what_is_refused(trained, capsys, words, said):
    before = (trained.folder / "outputs/a/result.json").read_bytes()
    capsys.readouterr()
    assert trained("train.py", *words) == 1
    assert said in one_paragraph(capsys.readouterr().err)
    assert (trained.folder / "outputs/a/result.json").read_bytes() == before


def test_another_experiment_in_its_directory_is_told_of_resume(trained, capsys):
    assert trained("train.py", *SMALL, "trainer.max_epochs=3", "hydra.run.dir=outputs/a") == 1
    assert "resume=RUN" in capsys.readouterr().err


def test_the_loggers_of_a_moved_run_write_where_it_lies(tmp_path):
    logger = {"wandb": {"_target_": "qbsnn.tracking.loggers.wandb_logger", "save_dir": "/old/run/wandb"}}
    contents = {"qbsnn": {"config": {"paths": {"run": "/old/run"}, "logger": logger}}}
    cfg = stored_config(contents, tmp_path / "last.ckpt", [], tmp_path, same_loggers=True)
    assert cfg.logger.wandb.save_dir == f"{tmp_path}/wandb"
    assert stored_config(contents, tmp_path / "last.ckpt", [], tmp_path).logger is None


def test_a_schedule_that_ends_with_the_first_epochs_is_said(trained, caplog):
    words = [word for word in SMALL if "scheduler" not in word]
    assert trained("train.py", *words, "trainer.max_epochs=1", "hydra.run.dir=outputs/c") == 0
    assert trained("train.py", "resume=outputs/c", "trainer.max_epochs=2") == 0
    assert "CosineAnnealingLR was made for 1 epoch and" in caplog.text and "the learning rate may be 0" in caplog.text
