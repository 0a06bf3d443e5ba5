"""``result.json`` of a run: written when the run begins and when it ends, in whatever way it ends."""

from __future__ import annotations

import json
import logging
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from lightning.pytorch.loggers import Logger

from qbsnn.errors import BusyError, EnvironmentFault, SettingsError, VerificationError, environment_fault
from qbsnn.report.run.page import build as write_page
from qbsnn.results.files import CURVE_FILE, LOCK, from_here
from qbsnn.results.fingerprint import EPOCHS, differing
from qbsnn.results.reading import read_result
from qbsnn.results.schema import Absorption, Host, Integer, Result
from qbsnn.tracking import runs
from qbsnn.tracking.loggers import close_loggers
from qbsnn.tracking.wandb_logger import ID_FILE
from qbsnn.training.devices.host import code_digest, git_state
from qbsnn.training.resume import STEPS
from qbsnn.training.settings import for_files, identify

log = logging.getLogger(__name__)
FILES = ("result.json", "report.html", "diagnostics.npz", CURVE_FILE, STEPS, ID_FILE, "figures", "checkpoints")
"""What a run leaves in its directory."""


def begin(settings: dict[str, Any], host: Host, **facts: Any) -> Result:
    """The result of a run that begins now.

    Args:
        settings: validated.
        host: where it runs.
        facts: other fields that are known.
    """
    commit, dirty = git_state(Path(__file__).parent)
    return Result(
        command=shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        config=for_files(settings),
        seed=settings["seed"],
        host=host,
        git_commit=commit,
        git_dirty=dirty,
        code=code_digest(Path(__file__).parent),
        started=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        **facts,
    )


def continued(result: Result, before: Result | None) -> Result:
    """A result with the command that began the run, and also with its own where that makes the run longer."""
    if before is None:
        return result
    longer = result.identity.get(EPOCHS) != before.identity.get(EPOCHS)
    return replace(result, command=f"{before.command} && {result.command}" if longer else before.command)


class Record:
    """Collects the values of a run into its result.

    Args:
        result: what is known at the start.
        folder: the run directory.
    """

    def __init__(self, result: Result, folder: Path) -> None:
        self.result, self.folder = result, folder

    def keep(self, **fields: Any) -> None:
        """Take over fields of the result."""
        self.result = replace(self.result, **fields)

    def write(self) -> None:
        """Write ``result.json``."""
        self.result.write(self.folder / "result.json")


PATIENCE = 5.0  # seconds to wait for a lock, which a killed process may leave to its data workers for a moment


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a run directory: the process that writes into it has its lock, which the system frees when it ends.

    What an earlier process left that was killed within a write, a ``.part``, is removed. What :func:`claim` set aside
    is put back if the body fails before its first checkpoint.

    Raises:
        BusyError: another process has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / LOCK, timeout=PATIENCE):
            for part in folder.rglob(".*.part"):
                part.unlink()
            _settle(folder)
            try:
                yield
            except BaseException:
                _settle(folder)
                raise
            for name in FILES:
                _remove(_aside(folder / name))
    except Timeout:
        raise BusyError(
            f"another process writes into {folder}: wait for its end, or use another hydra.run.dir"
        ) from None


@contextmanager
def recorded(
    result: Result,
    folder: Path,
    loggers: Sequence[Logger],
    describe: Callable[[], dict[str, Any]],
    before: Callable[[], float],
) -> Iterator[Record]:
    """Write ``result.json`` at the start, and with the page when the body ends, with its error; open and close loggers.

    Args:
        result: what is known at the start.
        folder: the run directory.
        loggers: that keep final numbers and files.
        describe: what was read, asked at the end.
        before: seconds that earlier processes took for the same run, asked at the end.
    """
    record = Record(result, folder)
    record.write()  # with status running, so that the page over all runs shows it
    started = time.perf_counter()
    try:
        try:
            runs.open_loggers(loggers, result.config)
            yield record
            for logger in loggers:
                logger.log_metrics(runs.final_metrics(record.result))
            require_proof(record.result)
            silent = ", ".join(silent_layers(record.result))
            if record.result.status == "running" and silent:
                record.keep(status="unproven", error=f"equal engines prove nothing of layers without spikes: {silent}")
            elif record.result.status == "running":
                record.keep(status="finished")
        except BaseException as error:
            # Lightning turns Ctrl-C into SystemExit once it has shut down.
            stopped = isinstance(error, (KeyboardInterrupt, SystemExit))
            fault = None if stopped else _fault(error, folder)
            told = error if fault is None else fault
            words = "stopped by a signal" if stopped else f"{type(told).__name__}: {told}"
            record.keep(status="interrupted" if stopped else "failed", error=words)
            if fault is not None:
                raise fault from error
            if stopped:
                _say_how_to_go_on(folder)
            if isinstance(error.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from None
            raise
    finally:
        timing = replace(record.result.timing, total_seconds=before() + time.perf_counter() - started)
        record.keep(timing=timing, data=describe())
        try:
            record.write()
            if result.config["report"]:
                write_page(folder)
        finally:
            runs.log_files(loggers, folder, record.result)
            close_loggers(record.result.status in ("failed", "interrupted"))


def _say_how_to_go_on(folder: Path) -> None:
    place, begun = shlex.quote(str(from_here(folder.resolve()))), any(folder.glob("checkpoints/*.ckpt"))
    log.info("stopped; %s%s", "go on with: python train.py resume=" if begun else "no checkpoint is in ", place)


def _fault(error: BaseException, folder: Path) -> EnvironmentFault | None:
    """What the machine did not give, with the checkpoint that training can go on from."""
    fault = environment_fault(error, folder)
    if fault is None:
        return None
    files = sorted(folder.glob("checkpoints/*.ckpt"), key=lambda path: path.stat().st_mtime)
    if not files:
        return EnvironmentFault(f"{fault}. No checkpoint was written before")
    return EnvironmentFault(
        f"{fault}. The last good checkpoint is {files[-1]}; the same command with hydra.run.dir={folder} goes on"
    )


def silent_layers(result: Result) -> list[str]:
    """Layers without a spike in a check, which proves nothing of them."""
    blocks = [block for block in (result.absorption, result.integer) if isinstance(block, (Absorption, Integer))]
    return list(dict.fromkeys(layer.name for block in blocks for layer in block.layers if not layer.spikes))


def require_proof(result: Result) -> None:
    """Fail a run whose engines disagree.

    Raises:
        VerificationError: a check found a difference in a network none of whose layers is silent.
    """
    for name in ("absorption", "integer"):
        block: Absorption | Integer | dict[str, str] | None = getattr(result, name)
        if (
            isinstance(block, (Absorption, Integer))
            and not block.passed
            and all(layer.spikes for layer in block.layers)
        ):
            raise VerificationError(f"{name} check failed: {_disagreement(block)}; see result.json for every layer")


def _disagreement(block: Absorption | Integer) -> str:
    facts = [f"{block.spike_mismatches} of {block.positions} spikes differ"]
    if isinstance(block, Integer):
        facts += [
            f"{block.membrane_mismatches} membranes differ",
            f"{block.logit_mismatches} logits differ",
            f"{block.onnxruntime_mismatches} values differ in onnxruntime",
            f"{block.grid_mismatches} values differ in the grid network",
            f"{block.overflows} overflows" + (f", the first: {block.first_overflow}" if block.first_overflow else ""),
            f"a flipped weight gave {block.flip_mismatches} differences",
        ]
    return ", ".join(facts)


def claim(
    folder: Path, identity: dict[str, Any], overwrite: bool, resume: bool = False, again: bool = True
) -> Result | None:
    """See that a run directory is free for an experiment, or holds this very one.

    Args:
        folder: the run directory.
        identity: of the experiment, see :mod:`qbsnn.results.fingerprint`.
        overwrite: whether to set aside what is there and start over.
        resume: whether the experiment may have more epochs than it had.
        again: whether it may be finished.

    Returns:
        What an earlier start of this experiment left there; ``None`` if there is nothing, or not any more.

    Raises:
        BusyError: it may not and is, so another process has finished it meanwhile.
        SettingsError: it holds another experiment; the message names the settings that differ.
    """
    if overwrite:
        for path in (folder / name for name in reversed(FILES)):  # checkpoints first, see _settle
            if path.exists():
                path.replace(_aside(path))
        return None
    file = folder / "result.json"
    if not file.is_file():
        return None
    before = read_result(file)
    there = before.identity or identify(before.config)
    if keys := [key for key in differing(there, identity) if not (resume and key == EPOCHS)]:
        named = [f"{key} ({_of(there, key)} there, {_of(identity, key)} here)" for key in keys[:5]]
        rest = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
        raise SettingsError(
            f"{folder} holds another experiment, which differs in {', '.join(named)}{rest}. Use another hydra.run.dir, "
            "go on with that experiment by resume=RUN, or start over by overwrite=true"
        )
    if before.status == "finished" and not again:
        raise BusyError(f"another process has finished the run in {folder}")
    return before


def _settle(folder: Path) -> None:
    """Put back what was set aside for a run that has no checkpoint; where it has one, remove it.

    Checkpoints are put back last and set aside first, so that this can be done again after a kill in between.
    """
    begun = any(folder.glob("checkpoints/*.ckpt"))
    for path in [folder / name for name in FILES if _aside(folder / name).exists()]:
        _remove(_aside(path) if begun else path)
        if not begun:
            _aside(path).replace(path)
            log.info("%s is again what it was before this run", path)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.before")


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _of(identity: dict[str, Any], key: str) -> str:
    node = ".".join(key.split(".")[:2])  # a callback, which may not be there at all
    gone = key.endswith("._target_") or (node.startswith("callbacks.") and f"{node}._target_" not in identity)
    return json.dumps(identity[key]) if key in identity else "absent" if gone else "its default"
