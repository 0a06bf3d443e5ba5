"""``python train.py resume=RUN``: go on with a run, or extend it, with the settings that it has."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from qbsnn.cli.checkpoints import stored_config
from qbsnn.cli.keys import ResumeKeys
from qbsnn.errors import CheckpointError, DataError, SettingsError
from qbsnn.results.files import BEST, LAST, RESUME
from qbsnn.results.fingerprint import EPOCHS, dropped
from qbsnn.results.formatting import counted
from qbsnn.results.reading import read_result
from qbsnn.tracking.runs import chosen_loggers
from qbsnn.training import checkpoints
from qbsnn.training.building import locate
from qbsnn.training.defaults import arguments

log = logging.getLogger(__name__)


def resumed(given: ResumeKeys, conf: Path) -> DictConfig:
    """The settings of a run, to be gone on with in its directory.

    They are those of its newest checkpoint, with as many epochs as the run was last asked for.

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
    whole = _whole(found)
    checkpoint, contents = max(whole.items(), key=lambda item: item[1].get("global_step", 0))
    before = max(_epochs(one["qbsnn"]["config"]) for one in whole.values())
    for key in (override.partition("=")[0] for override in overrides):
        if key == "overwrite":
            raise SettingsError(f"{key} has no meaning beside resume=, which goes on with what is there; leave it out")
        if key != EPOCHS and not dropped(key):
            raise SettingsError(
                f"{key} would make another experiment: resume= takes all settings from the run, {EPOCHS} may be raised"
            )
    loggers = chosen_loggers(given.logger, conf, contents, "train") if given.logger else None
    words = [f"{EPOCHS}={max(before, _epochs_of_result(run))}", *overrides]
    cfg = stored_config(contents, checkpoint, words, run, loggers, same_loggers=loggers is None)
    asked = OmegaConf.select(cfg, EPOCHS, throw_on_resolution_failure=False)
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


def _whole(paths: list[Path]) -> dict[Path, dict[str, Any]]:
    """The contents of those checkpoints that can be read; raises CheckpointError for the last one if none can."""
    whole: dict[Path, dict[str, Any]] = {}
    for path in paths:
        try:
            contents = checkpoints.load(path)
            checkpoints.stored(contents, path)
        except CheckpointError:
            if path == paths[-1] and not whole:
                raise
            continue
        whole[path] = contents
    return whole


def _epochs_of_result(run: Path) -> int:
    """What the run was last asked for: a run that is made longer has a checkpoint that says so an epoch later.

    0 where no whole result says it.
    """
    try:
        return _epochs(read_result(run / "result.json").config)
    except DataError:
        return 0


def _epochs(config: Mapping[str, Any]) -> int:
    epochs = (config.get("trainer") or {}).get("max_epochs")
    return epochs if isinstance(epochs, int) else 0
