"""What the command-line tools share: one-paragraph errors, exit codes, the resolvers of ``conf/``."""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
import textwrap
import traceback
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from qbsnn.checks import nearest
from qbsnn.cli import composition
from qbsnn.errors import QBSNNError, SettingsError, environment_fault
from qbsnn.results.schema import Result

log = logging.getLogger(__name__)
Value = TypeVar("Value")
INDENT = " " * 14
TRACE = "QBSNN_TRACE"
"""Environment variable: when it is set, errors that are told in a paragraph are shown with their stack traces too."""

_failures: list[str] | None = None  # of this process, if it is the one that the user started


def uid() -> str:
    """Eight random hexadecimal digits, so that directories named by the second never collide."""
    return uuid.uuid4().hex[:8]


def register_resolvers() -> None:
    """``${uid:}`` of ``conf/``, the same digits within a process; ``${run_dir:...}`` and ``${options:...}``.

    See :func:`run_dir` and :func:`described`.
    """

    def options(group: str, words: str, *, _root_: DictConfig) -> str:
        conf = next(source.path for source in _root_.hydra.runtime.config_sources if source.provider == "main")
        return described(Path(conf), group, words, _root_.hydra.runtime.choices)

    OmegaConf.register_new_resolver("uid", uid, use_cache=True, replace=True)
    OmegaConf.register_new_resolver("run_dir", run_dir, replace=True)
    OmegaConf.register_new_resolver("options", options, replace=True)


def run_dir(fresh: str) -> str:
    """``${run_dir:...}`` of ``conf/``: one directory for every start of a sweep, a fresh one for every other run."""
    name = HydraConfig.get().runtime.choices.get("sweep")
    return f"outputs/runs/{fresh}" if name is None else f"outputs/sweeps/{name}"


# a launcher's process composes its job without coming through launch()
register_resolvers()
composition.guard()


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
        if _failures is not None and environment_fault(error):
            fail_for_the_machine(error)
            return None
        if HydraConfig.get().mode != RunMode.MULTIRUN or _failures is None:
            raise
        log.exception("this job failed; the sweep goes on")
        _failures.append(str(error))
    return None


def unless_finished(result: Result) -> None:
    """Say of a run that did not end as asked what it is, and remember it for the exit code."""
    if result.status != "finished":
        fail(QBSNNError(f"{result.status}: {result.error}"))


def sweep(cfg: DictConfig) -> None:
    """Run or list the cells of a sweep; what failed is remembered for the exit code."""
    from qbsnn.sweeps import running as sweep_run

    states = guarded(sweep_run.run, cfg)
    if states is not None and _failures is not None and not cfg.sweep.get("list"):
        _failures.extend(f"{state.cell.label}: {state.status}" for state in states if state.status != "done")


def fail(error: Exception) -> None:
    """Print an error as one paragraph on stderr and remember it; with its stack trace where ``QBSNN_TRACE`` is set."""
    if _failures is not None:
        _failures.append(str(error))
    width = shutil.get_terminal_size().columns if sys.stderr.isatty() else 0
    if os.environ.get(TRACE):
        traceback.print_exception(error)
    text = f"error: {' '.join(str(error).split())}"
    print(textwrap.fill(text, width) if width else text, file=sys.stderr, flush=True)


def fail_for_the_machine(error: Exception) -> None:
    """Print what the machine did not give; an error of another kind is raised again."""
    fault = environment_fault(error)
    if fault is None:
        raise error
    fault.__cause__ = None if fault is error else error
    fail(fault)


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
    except Exception as error:  # Hydra could not make the run directory, or write into it
        fail_for_the_machine(error)
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
    except Exception as problem:
        fail_for_the_machine(problem)
        sys.exit(1)


def number(key: str, text: Any, kind: Callable[[Any], Value]) -> Value:
    """``kind(text)`` for ``int`` or ``float``; raises SettingsError for a text that is none."""
    try:
        return kind(text)
    except ValueError:
        raise SettingsError(f"{key} must be {'an integer' if kind is int else 'a number'}, got {text}") from None


def explain(error: HydraException, conf: Path, config_name: str) -> SettingsError:
    """Hydra's composition error in one sentence, with the nearest name that exists."""
    text = " ".join(str(error).split())
    missing = re.search(r"Could not find '([\w\-./]+)/([^'/]*)'", text)
    if missing and (options := group_options(conf, missing[1])):
        group, name = missing.groups()
        return SettingsError(f"{group}={name}: no such {group}; {nearest(name, options)}")
    bare = re.search(r"Error parsing override '([^'=]+)' missing EQUAL", text)
    if bare:
        return SettingsError(f"{bare[1]} has no value: write {bare[1]}=VALUE")
    twice = re.search(r"Multiple values for ([\w/@.]+)\.", text)
    if twice:
        return SettingsError(f"{twice[1]} is chosen already: write {twice[1]}=OPTION once, without +")
    key = re.search(r"Could not override '([\w.\-/@]+)'|Could not delete from config\. '([\w.\-/@]+)'", text)
    if key:
        return SettingsError(_no_setting(key[1] or key[2], conf, config_name) or text)
    return SettingsError(text)


def group_options(conf: Path, group: str) -> list[str]:
    """The names that ``group=`` takes, sorted; empty where ``conf`` has no such group."""
    return sorted(path.stem for path in (conf / group).glob("*.yaml") if not path.stem.startswith("_"))


def described(conf: Path, group: str, words: str, choices: Mapping[str, Any]) -> str:
    """A group as ``--help`` lists it: its name, what it decides, its options with the chosen one in brackets."""
    chosen = choices.get(group)
    options = [f"[{name}]" if name == chosen else name for name in group_options(conf, group)]
    listed = textwrap.fill(", ".join(options), 96, initial_indent=INDENT, subsequent_indent=INDENT)
    return f"  {group:11} {words}\n{listed}"


def _no_setting(key: str, conf: Path, config_name: str) -> str | None:
    """The sentence for a key that does not exist, about the first of its parts that does not."""
    if "/" in key:
        groups = [path.relative_to(conf).as_posix() for path in conf.rglob("*") if path.is_dir()]
        return f"{key} is no group: {nearest(key, groups)}"
    node = _composed(conf, config_name)
    for part in key.split("."):
        if not isinstance(node, DictConfig):
            return None
        if part not in node:
            return f"{key} is not a setting: {nearest(part, [str(name) for name in node])}"
        node = node[part]
    return None


def _composed(conf: Path, config_name: str) -> Any:
    """The configuration with nothing but the group choices of this command line; ``None`` where that fails too."""
    groups = [arg for arg in sys.argv[1:] if "=" in arg and (conf / arg.split("=", 1)[0].lstrip("+~")).is_dir()]
    try:
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(conf.resolve()), version_base="1.3"):
            return compose(config_name, [arg for arg in groups if "," not in arg])
    except HydraException:
        return None


def _remove_fresh(folder: Path) -> None:
    """Remove a run directory that holds nothing but what Hydra put there."""
    if folder.is_dir() and {path.name for path in folder.iterdir()} <= {".hydra", "train.log"}:
        logging.shutdown()
        shutil.rmtree(folder)
