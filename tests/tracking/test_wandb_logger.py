"""The W&B logger: it stops no run, and a killed run goes on as the same run."""

import logging
import subprocess
import sys

import pytest

from qbsnn.tracking.loggers import close_loggers, wandb_logger
from qbsnn.tracking.wandb_file import read_history, read_records
from tests.tool import ROOT, TINY
from tests.tracking.offline import offline


@pytest.mark.parametrize("where", ["init", "log", "artifact"])
def test_an_error_of_wandb_is_one_warning(tmp_path, monkeypatch, caplog, where):
    import wandb

    offline(monkeypatch, tmp_path)

    def broken(*args: object, **kwargs: object) -> None:
        raise wandb.errors.CommError(f"{where} is broken")

    target = {"init": (wandb, "init"), "log": (wandb.Run, "log"), "artifact": (wandb.Run, "log_artifact")}[where]
    monkeypatch.setattr(*target, broken)
    (tmp_path / "result.json").write_text("{}")
    logger = wandb_logger(tmp_path / "run")
    with caplog.at_level(logging.WARNING, logger="qbsnn"):
        logger.describe("g", ["t"])
        logger.log_hyperparams({"a": 1})
        for step in range(2):
            logger.log_metrics({"x": 1.0}, step)
            logger.log_bursts({"conv1": [0, 0, 3, 4, 0]}, step)
        logger.log_files([tmp_path / "result.json"], [], {})
        close_loggers(failed=False)
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1 and "W&B failed, and the run goes on without it" in warnings[0], warnings
    assert f"{where} is broken" in warnings[0]


def test_negative_bursts_and_long_tags(tmp_path, monkeypatch):
    offline(monkeypatch, tmp_path)
    logger = wandb_logger(tmp_path, tags=["x" * 100, ""], choices=["a"], group="mine", job_type="train")
    logger.describe("g" * 200, ["T=1", "a"])
    logger.log_bursts({"signed": [1, 0, 3, 4, 0], "unsigned": [0, 0, 3, 4, 0]}, 5)
    close_loggers(failed=False)
    (path,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    (row,) = read_history(path)
    assert row["bursts/signed"]["values"] == [1, 0, 3, 4, 0]
    assert row["bursts/signed"]["bins"] == [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]
    assert row["bursts/unsigned"]["values"] == [3, 4, 0] and row["bursts/unsigned"]["bins"] == [-0.5, 0.5, 1.5, 2.5]
    run = next(record.run for record in read_records(path) if record.HasField("run"))
    assert list(run.tags) == ["a", "x" * 64, "T=1"] and run.run_group == "mine"


def test_a_disabled_wandb_leaves_nothing(tmp_path, monkeypatch, caplog):
    offline(monkeypatch, tmp_path / "wandb's own")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    (tmp_path / "result.json").write_text("{}")
    logger = wandb_logger(tmp_path / "run")
    logger.log_hyperparams({"a": 1})
    logger.log_metrics({"x": 1.0}, 0)
    logger.log_files([tmp_path / "result.json"], [], {})
    close_loggers(failed=False)
    assert not [record for record in caplog.records if record.name.startswith("qbsnn")]
    assert not (tmp_path / "run/wandb_id").exists()


RESUMED = """
import os, signal, sys, time
from pathlib import Path
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.callbacks import Callback
from omegaconf import open_dict
from qbsnn.cli.launch import register_resolvers
from qbsnn.tracking.loggers import close_loggers
from qbsnn.training.setup import build
from qbsnn.training.settings import validate
from qbsnn.tracking.wandb_file import read_history

class Kill(Callback):
    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            (path,) = Path(run).glob("wandb/offline-run-*/run-*.wandb")
            while not any("train/loss" in row for row in read_history(path)):  # wandb writes once a second
                time.sleep(0.1)
            os.kill(os.getpid(), signal.SIGKILL)

root, run, resume, *overrides = sys.argv[1:]
register_resolvers()
with initialize_config_dir(root + "/conf", version_base="1.3"):
    cfg = compose("train", [f"paths.run={run}", *overrides], return_hydra_config=True)
with open_dict(cfg):
    cfg.hydra.runtime.cwd = os.getcwd()
    HydraConfig.instance().set_config(cfg)
    del cfg["hydra"]
parts = build(validate(cfg))
if not resume:
    parts.trainer.callbacks.append(Kill())
parts.trainer.fit(parts.module, datamodule=parts.data, ckpt_path=resume or None)
close_loggers(False)
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_as_the_same_run(tmp_path, monkeypatch):
    offline(monkeypatch, tmp_path)
    run = tmp_path / "run"
    command = [sys.executable, "-c", RESUMED, str(ROOT), str(run)]
    overrides = [*TINY, "trainer.max_epochs=3", "callbacks.absorption=null", "callbacks.integer=null", "logger=wandb"]
    killed = subprocess.run([*command, "", *overrides], cwd=tmp_path, timeout=300, capture_output=True, text=True)
    assert killed.returncode == -9, killed.stderr
    first = (run / "wandb_id").read_text()
    resumed = subprocess.run(
        [*command, str(run / "checkpoints/last.ckpt"), *overrides],
        cwd=tmp_path, timeout=300, capture_output=True, text=True,
    )  # fmt: skip
    assert resumed.returncode == 0, resumed.stderr
    assert (run / "wandb_id").read_text() == first
    parts = sorted(run.glob("wandb/offline-run-*/run-*.wandb"), key=lambda path: path.stat().st_mtime_ns)
    assert len(parts) == 2 and {path.name for path in parts} == {f"run-{first.strip()}.wandb"}
    before, after = (list(read_history(path)) for path in parts)
    assert before and after
    steps = [row["_step"] for row in [*before, *after]]
    assert steps == list(range(len(steps)))
    validated = [(row["epoch"], row["trainer/global_step"]) for row in [*before, *after] if "val/acc" in row]
    assert validated == [(0, 1), (1, 3), (2, 5)]


@pytest.mark.parametrize("later", ["offline", "online"])
def test_a_later_part_goes_on_with_the_steps_of_one_that_ran_offline(tmp_path, monkeypatch, later):
    import wandb

    offline(monkeypatch, tmp_path)
    logger = wandb_logger(tmp_path / "run")
    for step in range(3):
        logger.log_metrics({"x": 1.0}, step)
    close_loggers(failed=False)
    honest, begun = wandb.init, []

    def init(**options: object) -> object:
        run = honest(**options)
        monkeypatch.setattr(type(run), "offline", later == "offline")
        monkeypatch.setattr(type(run), "log", lambda self, data, step=None: begun.append(step))
        return run

    monkeypatch.setattr(wandb, "init", init)
    logger = wandb_logger(tmp_path / "run")
    assert logger.experiment is not None and begun == [3]
    close_loggers(failed=False)
