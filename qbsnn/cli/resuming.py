"""``python train.py resume=RUN``: go on with a run, or extend it, with the settings that it has."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from qbsnn.cli.checkpoints import stored_config
from qbsnn.cli.keys import ResumeKeys
from qbsnn.errors import CheckpointError, SettingsError
from qbsnn.results.files import BEST, LAST, RESUME
from qbsnn.results.fingerprint import EPOCHS, dropped
from qbsnn.results.formatting import counted
from qbsnn.tracking.runs import chosen_loggers
from qbsnn.training import checkpoints
from qbsnn.training.building import locate
from qbsnn.training.defaults import arguments

log = logging.getLogger(__name__)


def resumed(given: ResumeKeys, conf: Path) -> DictConfig:
    """The settings of a run, to be gone on with in its directory.

    Args:
        given: the run directory, and overrides: a larger ``trainer.max_epochs``, or keys that change no result.
        conf: the folder of the choices of ``logger``.

    Raises:
        CheckpointError: there is no checkpoint, or none that can be read.
        SettingsError: another key would make another experiment, or fewer epochs are asked for than were.
    """
    run, overrides = given.resume, given.overrides
    folder = run.resolve() / "checkpoints"
    found = [folder / name for name in (LAST, RESUME, BEST) if (folder / name).is_file()]
    if not found:
        raise CheckpointError(f"{run} has no checkpoint to go on from: {folder} holds none of {LAST}, {RESUME}, {BEST}")
    checkpoint, contents = _first_whole(found)
    for key in (override.partition("=")[0] for override in overrides):
        if key == "overwrite":
            raise SettingsError(f"{key} has no meaning beside resume=, which goes on with what is there; leave it out")
        if key != EPOCHS and not dropped(key):
            raise SettingsError(
                f"{key} would make another experiment: resume= takes all settings from the run, {EPOCHS} may be raised"
            )
    loggers = chosen_loggers(given.logger, conf, contents, "train") if given.logger else None
    cfg = stored_config(contents, checkpoint, overrides, run, loggers, same_loggers=loggers is None)
    before = contents["qbsnn"]["config"]["trainer"]["max_epochs"]
    asked = OmegaConf.select(cfg, EPOCHS)
    if not isinstance(asked, int) or asked < before:
        raise SettingsError(f"{EPOCHS} must be at least {before}, what the run was started with, got {asked}")
    schedule = str((cfg.optim.get("scheduler") or {}).get("_target_", ""))
    if asked > before and schedule and "steps" not in arguments(locate("optim.scheduler", schedule, given.trust)):
        log.warning(
            "%s was made for %s and goes on by its own rule beyond them: the learning rate may be 0, or rise "
            "(the column lr of metrics.csv). A schedule per step, such as optim=one_cycle, is stretched instead",
            schedule.rpartition(".")[2], counted(before, "epoch"),
        )  # fmt: skip
    with open_dict(cfg):
        cfg.resume, cfg.overwrite = True, False
        cfg.trust = list(given.trust) or None
    return cfg


def _first_whole(paths: list[Path]) -> tuple[Path, dict[str, Any]]:
    for path in paths[:-1]:
        try:
            return path, checkpoints.load(path)
        except CheckpointError:
            continue
    return paths[-1], checkpoints.load(paths[-1])
