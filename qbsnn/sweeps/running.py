"""Running a sweep: compose all cells, leave out those that are done, hand the rest to Hydra's launcher."""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.conf import HydraConf
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from qbsnn.checks import nearest, readable
from qbsnn.errors import BusyError, QBSNNError, SettingsError, VerificationError
from qbsnn.results.fingerprint import fingerprint
from qbsnn.sweeps import state as files
from qbsnn.sweeps.plan import Cell, cells, folder_name, read, refuse_twins, written
from qbsnn.sweeps.state import State
from qbsnn.sweeps.view import Watch, counts, listing
from qbsnn.training.devices.signals import end_with
from qbsnn.training.run import train
from qbsnn.training.settings import identify, validate

log = logging.getLogger(__name__)

LOOK_AGAIN = 2.0  # seconds
PASSES = 3  # over cells that another process held, or whose process died


def run(cfg: DictConfig) -> list[State]:
    """Run what is missing of ``sweep=NAME``; returns the state of every cell.

    The cells' directories and ``cells.json`` lie in Hydra's run directory, which is the same for every start of a
    sweep. Raises SettingsError for a bad sweep file, for overrides of what it varies, and under ``-m``.
    """
    here = HydraConfig.get()
    name = here.runtime.choices.get("sweep")
    if name is None:
        raise SettingsError("listing the cells needs a sweep: sweep=NAME")
    if here.mode == RunMode.MULTIRUN:
        raise SettingsError(f"sweep={name} runs its cells by itself: leave out -m; hydra/launcher=joblib runs several")
    sweep = read(OmegaConf.to_container(cfg.sweep, resolve=True), name)  # type: ignore[arg-type]
    given = [text for text in here.overrides.task if text.lstrip("+~").split("=")[0].split(".")[0] != "sweep"]
    folder, outputs = Path(here.runtime.output_dir), Path(cfg.paths.outputs)
    _check_figure(sweep.figure, name)
    states = [_state(here, cell, folder) for cell in cells(sweep, given)]
    refuse_twins((state.fingerprint, state.cell) for state in states if state.fingerprint)
    files.reuse(states, outputs)
    if sweep.list_only:
        files.write_cells(folder / "cells.json", states)
        listing(f"{name}: {sweep.title}", states)
        return states
    start = [*here.overrides.hydra, f"hydra.sweep.dir={written(str(folder))}"]
    master = compose(here.job.config_name, start, return_hydra_config=True)
    _launch(master, states, folder, f"{name}: {sweep.title}")
    return states


def _check_figure(figure: str | None, name: str) -> None:
    if figure is None:
        return
    from qbsnn.report.tables.figures import FIGURES  # imports matplotlib, which only a figure needs

    if figure not in FIGURES:
        raise SettingsError(f"sweep={name}: sweep.figure must be one of {', '.join(FIGURES)}, got {figure!r}")


@dataclass(frozen=True)
class CellTask:
    """What a launcher runs for one cell, in this or another process: train it, unless another process does or has.

    wait: whether to wait for that other process, or to leave the cell to it. launcher: the process that made this task;
    another one that runs it ends with its parent.
    """

    wait: bool
    launcher: int = field(default_factory=os.getpid)

    def __call__(self, cfg: DictConfig) -> None:
        """Train; whatever goes wrong is left in ``failed.json`` and does not reach the launcher."""
        if os.getpid() != self.launcher:
            end_with(os.getppid())
        folder = Path(cfg.paths.run)
        _quieten(cfg)
        while not _trained(cfg, folder) and self.wait:
            time.sleep(LOOK_AGAIN)


def _trained(cfg: DictConfig, folder: Path) -> bool:
    """Train a cell unless it is done; false where another process is at it."""
    if files.locked(folder):
        return False
    try:
        if files.finished(folder, fingerprint(identify(validate(cfg)))) is None:
            (folder / files.FAILED).unlink(missing_ok=True)
            result = train(cfg, again=False)
            if result is not None and result.status != "finished":
                files.write_failure(folder, f"{result.status}: {result.error}")
    except BusyError:
        log.info("another process trains this cell")
        return False
    except Exception as error:
        text = " ".join(str(error).split())
        if isinstance(error, VerificationError) or not isinstance(error, QBSNNError):
            log.exception("this cell failed")
            text = f"{type(error).__name__}: {text}"
        try:
            files.write_failure(folder, text)
        except OSError as full:
            log.error("%s cannot be written (%s): %s", folder / files.FAILED, full.strerror, text)
    return True


def _quieten(cfg: DictConfig) -> None:
    """A cell's own messages go to its log file alone, and its progress nowhere: the sweep shows its own."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            handler.setLevel(logging.CRITICAL)
    with open_dict(cfg):
        cfg.trainer.enable_progress_bar = False
        if cfg.get("callbacks") and cfg.callbacks.get("progress"):
            cfg.callbacks.progress = None


def _state(here: HydraConf, cell: Cell, folder: Path) -> State:
    """Compose a cell, without building anything; one that does not compose has failed."""
    try:
        identity = identify(_composed(here, cell))
    except (HydraException, OmegaConfBaseException, QBSNNError, ValueError) as error:
        return State(cell, {}, folder, "failed", _reason(error))
    mark = fingerprint(identity)
    known = sorted(folder.glob(f"*_{mark}"))
    return State(cell, identity, known[0] if known else folder / folder_name(cell.axes, mark))


def _reason(error: Exception) -> str:
    """Why a cell does not compose, in a sentence; Hydra lists its search path too."""
    text = " ".join(str(error).split())
    absent = re.search(r"Could not find '([^']+)/([^'/]+)' Available options in '[^']+': (.*?) Config search", text)
    if absent is None:
        return text
    group, name, options = absent.groups()
    return f"{group}={name}: no such {group}; {nearest(name, options.split())}"


def _composed(here: HydraConf, cell: Cell) -> dict[str, Any]:
    with readable():
        cfg = compose(here.job.config_name, [*here.overrides.hydra, *cell.overrides], return_hydra_config=True)
    before = HydraConfig.instance().cfg
    with open_dict(cfg):
        cfg.hydra.runtime.output_dir = "."  # not known yet, and without effect on the result
    HydraConfig.instance().set_config(cfg)
    try:
        with open_dict(cfg):
            del cfg["hydra"]
        return validate(cfg)
    finally:
        HydraConfig.instance().cfg = before


def _launch(master: DictConfig, states: Sequence[State], folder: Path, title: str) -> None:
    """Launch what is not done, again for cells that another process held or whose process died."""
    for noisy in ("hydra", "hydra_plugins"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    save = lambda: files.write_cells(folder / "cells.json", states)  # noqa: E731
    save()
    print(f"{title}: {counts(states)}", flush=True)
    todo, died = [state for state in states if state.fingerprint and state.status != "done"], ""
    try:
        for attempt in range(PASSES):
            todo = [state for state in todo if state.opens()]
            if not todo:
                break
            died = _pass(master, states, todo, CellTask(wait=attempt > 0), save)
            todo = [state for state in todo if state.status in ("missing", "running")]
    finally:
        for state in states:
            state.look()
            if state.status == "missing":
                state.error = died or None
        save()
        _summary(states, folder)


def _pass(master: DictConfig, states: Any, todo: Sequence[State], task: CellTask, save: Any) -> str:
    """One launch; returns the launcher's own error, which a killed process causes."""
    jobs = [[*state.cell.overrides, f"hydra.sweep.subdir={written(state.folder.name)}"] for state in todo]
    # The base class of Hydra's callbacks does nothing on any of its events.
    context = HydraContext(GlobalHydra.instance().config_loader(), Callback())  # type: ignore[arg-type]
    launcher = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=task, config=master)
    with Watch(states, todo, save):
        try:
            launcher.launch(jobs, initial_job_idx=0)
        except Exception as error:
            text = " ".join(str(error).split())
            log.warning("a job ended without a result: %s: %s", type(error).__name__, text[:300])
            return f"its process ended without a result ({type(error).__name__})"
    return ""


def _summary(states: Sequence[State], folder: Path) -> None:
    for state in states:
        if state.status == "failed":
            print(f"failed: {state.cell.label}, seed {state.cell.seed}: {state.error}", file=sys.stderr)
    print(f"{counts(states)}; {folder / 'cells.json'}", flush=True)
