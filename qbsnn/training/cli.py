"""What the command-line tools share: one-paragraph errors, exit codes, the resolvers of ``conf/``."""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
import textwrap
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from qbsnn.errors import QBSNNError, SettingsError
from qbsnn.training.settings import nearest

log = logging.getLogger(__name__)
Value = TypeVar("Value")

_failures: list[str] | None = None  # of this process, if it is the one that the user started


def uid() -> str:
    """Eight random hexadecimal digits, so that directories named by the second never collide."""
    return uuid.uuid4().hex[:8]


def register_resolvers() -> None:
    """``${uid:}`` of ``conf/``, the same digits within a process, and ``${run_dir:...}``."""
    OmegaConf.register_new_resolver("uid", uid, use_cache=True, replace=True)
    OmegaConf.register_new_resolver("run_dir", run_dir, replace=True)


def run_dir(fresh: str) -> str:
    """``${run_dir:...}`` of ``conf/``: one directory for every start of a sweep, a fresh one for every other run."""
    name = HydraConfig.get().runtime.choices.get("sweep")
    return f"outputs/runs/{fresh}" if name is None else f"outputs/sweeps/{name}"


register_resolvers()  # a launcher's process composes its job without coming through launch()


def guarded(task: Callable[[DictConfig], Value], cfg: DictConfig) -> Value | None:
    """Run one task; an error that a user can mend is printed as one paragraph and remembered for the exit code.

    In a multirun the other jobs go on. A SettingsError leaves nothing behind: its fresh run directory is removed. In a
    process of a launcher, which has no exit code of its own, the error is raised for the launcher to carry on.
    """
    try:
        return task(cfg)
    except QBSNNError as error:
        if isinstance(error, SettingsError):
            _remove_fresh(Path(HydraConfig.get().runtime.output_dir))
        if _failures is None:
            raise
        fail(error)
    except Exception as error:
        if HydraConfig.get().mode != RunMode.MULTIRUN or _failures is None:
            raise
        log.exception("this job failed; the sweep goes on")
        _failures.append(str(error))
    return None


def sweep(cfg: DictConfig) -> None:
    """Run or list the cells of a sweep; what failed is remembered for the exit code."""
    from qbsnn.training import sweep_run  # loads torch

    states = guarded(sweep_run.run, cfg)
    if states is not None and _failures is not None and not cfg.sweep.get("list"):
        _failures.extend(f"{state.cell.label}: {state.status}" for state in states if state.status != "done")


def fail(error: Exception) -> None:
    """Print an error as one paragraph on stderr and remember it."""
    if _failures is not None:
        _failures.append(str(error))
    width = shutil.get_terminal_size().columns if sys.stderr.isatty() else 0
    text = f"error: {' '.join(str(error).split())}"
    print(textwrap.fill(text, width) if width else text, file=sys.stderr, flush=True)


def launch(main: Callable[[], object], conf: Path, config_name: str) -> None:
    """Run a Hydra main function; exit with 1 if anything failed, with one paragraph for what does not compose."""
    global _failures
    _failures = []
    sys.argv[1:] = ["++sweep.list=true" if word == "--list" else word for word in sys.argv[1:]]
    # Hydra would otherwise print its own form of an error and exit before it can be explained.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    try:
        main()
    except HydraException as error:
        fail(explain(error, conf, config_name))
    except QBSNNError as error:
        fail(error)
    if _failures:
        sys.exit(1)


def script(main: Callable[[list[str]], object], doc: str | None) -> None:
    """Run the main function of a tool that Hydra does not start; exit with 1 for an error that a user can mend."""
    if sys.argv[1:] in (["-h"], ["--help"]):
        print(doc)
        return
    try:
        main(sys.argv[1:])
    except QBSNNError as problem:
        fail(problem)
        sys.exit(1)


def explain(error: HydraException, conf: Path, config_name: str) -> SettingsError:
    """Hydra's composition error in one sentence, with the nearest name that exists."""
    text = str(error)
    missing = re.search(r"Could not find '([\w\-./]+)/([^'/]+)'", text)
    if missing:
        group, name = missing.groups()
        folder = conf / group
        options = [path.stem for path in folder.glob("*.yaml") if not path.stem.startswith("_")]
        if options:
            return SettingsError(f"{group}={name}: no such {group}; {nearest(name, options)}")
    key = re.search(r"Could not override '([\w.\-/@]+)'", text)
    if key:
        *parents, last = key.group(1).split(".")
        siblings = _keys(conf, config_name, parents)
        if siblings and last not in siblings:
            return SettingsError(f"{key.group(1)} is not a setting: {nearest(last, siblings)}")
    return SettingsError(" ".join(text.split()))


def _keys(conf: Path, config_name: str, parents: list[str]) -> list[str]:
    """The keys that a composed configuration has below ``parents``, with the group choices of this command line."""
    groups = [arg for arg in sys.argv[1:] if "=" in arg and (conf / arg.split("=", 1)[0].lstrip("+~")).is_dir()]
    try:
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(conf.resolve()), version_base="1.3"):
            cfg = compose(config_name, [arg for arg in groups if "," not in arg])
        node = OmegaConf.select(cfg, ".".join(parents)) if parents else cfg
        return [str(key) for key in node] if isinstance(node, DictConfig) else []
    except HydraException:
        return []


def _remove_fresh(folder: Path) -> None:
    """Remove a run directory that holds nothing but what Hydra put there."""
    if folder.is_dir() and {path.name for path in folder.iterdir()} <= {".hydra", "train.log"}:
        logging.shutdown()
        shutil.rmtree(folder)
