"""``result.json`` of a run: written when the run begins and when it ends, in whatever way it ends."""

from __future__ import annotations

import logging
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.exceptions import SIGTERMException

from qbsnn.errors import VerificationError
from qbsnn.report.run.page import build as write_page
from qbsnn.results.schema import Absorption, Host, Integer, Result
from qbsnn.tracking import runs
from qbsnn.tracking.loggers import close_loggers
from qbsnn.training.devices.host import git_state

log = logging.getLogger(__name__)


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
        config=settings,
        seed=settings["seed"],
        host=host,
        git_commit=commit,
        git_dirty=dirty,
        started=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        **facts,
    )


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


@contextmanager
def recorded(
    result: Result,
    folder: Path,
    loggers: Sequence[Logger],
    describe: Callable[[], dict[str, Any]],
    before: Callable[[], float],
) -> Iterator[Record]:
    """Write ``result.json`` at the start, and with the page when the body ends, with its error; close all loggers.

    Args:
        result: what is known at the start.
        folder: the run directory.
        loggers: that keep final numbers and files.
        describe: what was read, asked at the end.
        before: seconds that earlier processes took for the same run, asked at the end.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record = Record(result, folder)
    record.write()  # with status running, so that the page over all runs shows it
    started = time.perf_counter()
    failed = True
    try:
        try:
            yield record
            for logger in loggers:
                logger.log_metrics(runs.final_metrics(record.result))
            require_proof(record.result)
            record.keep(status="finished")
            failed = False
        except BaseException as error:
            # Lightning turns Ctrl-C into SystemExit once it has shut down.
            stopped = isinstance(error, (KeyboardInterrupt, SystemExit))
            record.keep(status="failed", error="interrupted" if stopped else f"{type(error).__name__}: {error}")
            if isinstance(error, SIGTERMException):  # which would exit with 0
                raise SystemExit(128 + signal.SIGTERM) from error
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
            close_loggers(failed)


def require_proof(result: Result) -> None:
    """Fail a run whose engines disagree. A silent layer proves nothing, which is a warning.

    Raises:
        VerificationError: a check found a difference.
    """
    for name in ("absorption", "integer"):
        block: Absorption | Integer | dict[str, str] | None = getattr(result, name)
        if block is None or isinstance(block, dict):
            continue
        silent = [layer.name for layer in block.layers if not layer.spikes]
        if silent:
            log.warning("%s proves nothing: no spikes in %s", name, ", ".join(silent))
        elif not block.passed:
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
