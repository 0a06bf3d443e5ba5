"""What the command-line tools share: one-paragraph errors, exit codes, the resolvers of ``conf/``."""

from __future__ import annotations

import gc
import hashlib
import io
import logging
import os
import re
import shutil
import signal
import sys
import textwrap
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from qbsnn.checks import readable
from qbsnn.cli import guarding
from qbsnn.cli.composition import explained, group_options
from qbsnn.cli.keys import Given, help_text, read
from qbsnn.errors import QBSNNError, SettingsError, environment_fault
from qbsnn.results.schema import Result
from qbsnn.sweeps.plan import folder_name
from qbsnn.training.devices.signals import SIGNALS

log = logging.getLogger(__name__)
Value = TypeVar("Value")
INDENT = " " * 14
LONGEST = 1000  # characters of an error
CTRL_C = 128 + signal.SIGINT  # exit code
TRACE = "QBSNN_TRACE"
"""Environment variable: when it is set, errors that are told in a paragraph are shown with their stack traces too."""

_failures: list[str] | None = None  # of this process, if it is the one that the user started


def uid() -> str:
    """Eight random hexadecimal digits, so that directories named by the second never collide."""
    return uuid.uuid4().hex[:8]


def register_resolvers() -> None:
    """``${uid:}`` of ``conf/``, the same digits within a process; ``outputs``, ``run_dir``, ``job_dir``, ``options``.

    See :func:`run_dir`, :func:`job_dir` and :func:`described`.
    """

    def options(group: str, words: str, *, _root_: DictConfig) -> str:
        conf = next(source.path for source in _root_.hydra.runtime.config_sources if source.provider == "main")
        return described(Path(conf), group, words, _root_.hydra.runtime.choices)

    def job(*, _root_: DictConfig) -> str:
        return job_dir(_root_.hydra.job.num, list(_root_.hydra.overrides.task))

    def outputs(*, _root_: DictConfig) -> str:
        # ${hydra:...} is not there yet where -m asks for its directory.
        raw = str(OmegaConf.to_container(_root_.paths, resolve=False)["outputs"])  # type: ignore[call-overload, index]
        return str(OmegaConf.create({"outputs": raw.replace("${hydra:runtime.cwd}", _root_.hydra.runtime.cwd)}).outputs)

    OmegaConf.register_new_resolver("uid", uid, use_cache=True, replace=True)
    OmegaConf.register_new_resolver("outputs", outputs, replace=True)
    OmegaConf.register_new_resolver("run_dir", run_dir, replace=True)
    OmegaConf.register_new_resolver("job_dir", job, replace=True)
    OmegaConf.register_new_resolver("options", options, replace=True)


def run_dir(outputs: str, fresh: str) -> str:
    """``${run_dir:...}`` of ``conf/``: one directory for every start of a sweep, a fresh one for every other run."""
    name = HydraConfig.get().runtime.choices.get("sweep")
    return f"{outputs}/runs/{fresh}" if name is None else f"{outputs}/sweeps/{name}"


def job_dir(number: int, overrides: Sequence[str]) -> str:
    """``${job_dir:}`` of ``conf/``: the directory of a job of ``-m`` below that of all, another one for each job.

    >>> job_dir(0, ["neuron.s_max=1", "paths.data=../../data"])
    '0_neuron.s_max-1_paths.data-data_e260866f'
    """
    digest = hashlib.sha256("\n".join(overrides).encode()).hexdigest()[:8]
    return f"{number}_{folder_name(overrides, digest)}"


# a launcher's process composes its job without coming through launch()
register_resolvers()
guarding.guard()


@contextmanager
def heavy_imports() -> Iterator[None]:
    """Import PyTorch and Lightning without the garbage collector, which would take a fifth of these seconds.

    What they made stays as long as the process, so later collections leave it out. If PyTorch is already there, nothing
    is changed: by then there may be garbage, which would never be collected.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


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


def conclude(result: Result) -> None:
    """Print the summary of a run; say what is wrong with one that did not end as asked, and remember it."""
    from qbsnn.cli.summary import summarise

    summarise(result)
    if result.status != "finished":
        fail(QBSNNError(f"{result.status}: {result.error}"))


def sweep(cfg: DictConfig) -> None:
    """Run or list the cells of a sweep; what failed is remembered for the exit code."""
    from qbsnn.sweeps import running as sweep_run

    states = guarded(sweep_run.run, cfg)
    if states is not None and _failures is not None and not cfg.sweep.get("list"):
        _failures.extend(f"{state.cell.label}: {state.status}" for state in states if state.status != "done")


def _print_what_can_be_printed() -> None:
    """Let a character that standard output has no code for become a question mark instead of an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def log_to_stdout() -> None:
    """Say what a run says, as Hydra has it said."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(logging.INFO)


def fail(error: Exception) -> None:
    """Print an error as one paragraph on stderr and remember it; with its stack trace where ``QBSNN_TRACE`` is set."""
    if _failures is not None:
        _failures.append(str(error))
    width = shutil.get_terminal_size().columns if sys.stderr.isatty() else 0
    if os.environ.get(TRACE):
        traceback.print_exception(error)
    text = textwrap.shorten(f"error: {error}", LONGEST, placeholder=" ...")
    print(textwrap.fill(text, width) if width else text, file=sys.stderr, flush=True)


def fail_for_the_machine(error: Exception) -> None:
    """Print what the machine did not give; an error of another kind is raised again."""
    settings: Any = HydraConfig.instance().cfg  # a DictConfig, declared as what it holds
    place = None if settings is None else OmegaConf.select(settings, "hydra.runtime.output_dir")
    fault = environment_fault(error, place or Path.cwd())
    if fault is None:
        raise error
    fault.__cause__ = None if fault is error else error
    fail(fault)


def launch(main: Callable[[], object], conf: Path, config_name: str) -> None:
    """Run a Hydra main function; exit with 1 if anything failed, with one paragraph for what does not compose."""
    global _failures
    _failures = []
    _print_what_can_be_printed()
    sys.argv[1:] = ["++sweep.list=true" if word == "--list" else word for word in sys.argv[1:]]
    # Hydra would otherwise print its own form of an error and exit before it can be explained.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    try:
        _check_subdir(sys.argv[1:])
        with readable(), explained(conf, config_name, sys.argv[1:]):
            if {"-h", "--help"} & set(sys.argv[1:]):
                print(_help(conf, config_name, [word for word in sys.argv[1:] if not word.startswith("-")]))
            else:
                main()
    except KeyboardInterrupt:
        sys.exit(CTRL_C)
    except QBSNNError as error:
        fail(error)
    except Exception as error:  # Hydra could not make the run directory, or write into it
        fail_for_the_machine(error)
    if _failures:
        sys.exit(1)


def script(main: Callable[[Given], object], keys: type[Given], doc: str | None) -> None:
    """Run the main function of a tool that Hydra does not start.

    An error that a user can mend is printed as one paragraph, and the process exits with 1.

    Args:
        main: takes what the command line says.
        keys: the model of the tool's keys.
        doc: the tool's docstring, the head of its help.
    """
    _print_what_can_be_printed()
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(help_text(keys, doc))
        return
    try:
        with SIGNALS.listening():  # so that what was begun is cleared away
            main(read(keys, sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(CTRL_C)
    except QBSNNError as problem:
        fail(problem)
        sys.exit(1)
    except Exception as problem:
        fail_for_the_machine(problem)
        sys.exit(1)


def described(conf: Path, group: str, words: str, choices: Mapping[str, Any]) -> str:
    """A group as ``--help`` lists it: its name, what it decides, its options with the chosen one in brackets."""
    chosen = choices.get(group)
    options = [f"[{name}]" if name == chosen else name for name in group_options(conf, group)]
    listed = textwrap.fill(", ".join(options), 96, initial_indent=INDENT, subsequent_indent=INDENT)
    return f"  {group:11} {words}\n{listed}"


def _help(conf: Path, config_name: str, words: Sequence[str]) -> str:
    """The text of ``conf/hydra/_help.yaml`` for these overrides.

    Hydra prints it too, and first lists all groups for a template of its own, which takes as long as all else together.
    """
    with initialize_config_dir(str(conf.resolve()), version_base="1.3"):
        cfg = compose(config_name, list(words), return_hydra_config=True)
    return str(cfg.hydra.help.template).replace("$$", "$")


def _check_subdir(words: Sequence[str]) -> None:
    """Refuse a folder of Hydra's own files that is not right below the run directory, before Hydra writes there."""
    for word in words:
        key, _, value = word.lstrip("+").partition("=")
        if key == "hydra.output_subdir" and not re.fullmatch(r"[\w\-]*|\.hydra", value):
            raise SettingsError(f"{word}: Hydra's own files go to a folder right below the run directory: a plain name")


def _remove_fresh(folder: Path) -> None:
    """Remove a run directory that holds nothing but what Hydra put there."""
    if folder.is_dir() and {path.name for path in folder.iterdir()} <= {".hydra", "train.log"}:
        logging.shutdown()
        shutil.rmtree(folder)
