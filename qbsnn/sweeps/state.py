"""What has become of the cells of a sweep: read from the files that runs leave, so that any process can tell.

A cell is done where a finished ``result.json`` has its fingerprint, wherever that lies; running while a process holds
the lock in its directory, which the system frees when the process ends in whatever way; failed where ``failed.json``
says why; else missing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from qbsnn.results.files import LOCK, write_atomically
from qbsnn.results.fingerprint import fingerprint
from qbsnn.results.formatting import counted
from qbsnn.sweeps.plan import Cell

FAILED = "failed.json"
LOG = "train.log"
"""Where Hydra writes what a cell prints."""
STATES = ("done", "running", "failed", "missing")


@dataclass
class State:
    """A cell, its identity (empty where it does not compose), its directory, and what is known of it.

    run: directory of its finished result. seconds: what that took. acc: its test accuracy, of the best weights. shut:
    why its directory cannot be written.
    """

    cell: Cell
    identity: dict[str, Any]
    folder: Path
    status: str = "missing"
    error: str | None = None
    seconds: float | None = None
    acc: float | None = None
    run: Path | None = None
    shut: str | None = None

    @property
    def fingerprint(self) -> str:
        """Of the identity; empty where the cell does not compose."""
        return fingerprint(self.identity) if self.identity else ""

    def look(self) -> None:
        """Read what the files in the cell's directory say now."""
        if not self.fingerprint or self.status == "done":
            return
        result = finished(self.folder, self.fingerprint)
        if result is not None:
            self.found(self.folder, result)
        elif locked(self.folder):
            self.status, self.error = "running", None
        elif (error := self.shut or _failure(self.folder)) is not None:
            self.status, self.error = "failed", error
        else:
            self.status, self.error = "missing", None

    def opens(self) -> bool:
        """Whether a run can write into the cell's directory, as Hydra does before the cell can say what is wrong."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / LOG).open("a").close()
        except OSError as error:
            self.shut = f"{error.filename} cannot be written: {error.strerror}"
            self.look()
        return self.shut is None

    def found(self, run: Path, result: dict[str, Any]) -> None:
        """Take over a finished result."""
        self.status, self.error, self.run = "done", None, run
        self.seconds = result["timing"]["total_seconds"]
        self.acc = result["metrics"]["best"].get("test/acc")

    def record(self) -> dict[str, Any]:
        """The cell's entry in ``cells.json``."""
        return {
            "fingerprint": self.fingerprint,
            "identity": self.identity,
            "label": self.cell.label,
            "row": self.cell.row,
            "seed": self.cell.seed,
            "overrides": list(self.cell.overrides),
            "status": self.status,
            "error": self.error,
            "seconds": self.seconds,
            "run": None if self.run is None else str(self.run),
        }


def finished(run: Path, mark: str) -> dict[str, Any] | None:
    """The finished result in a run directory if it is that of the fingerprint."""
    result = _json(run / "result.json")
    return result if result.get("status") == "finished" and result.get("cell") == mark else None


def reuse(states: Iterable[State], outputs: Path) -> None:
    """Look at every cell's directory, then for the rest at all results below ``outputs``; of several the newest."""
    wanted: dict[str, list[State]] = {}
    for state in states:
        state.look()
        if state.fingerprint and state.status != "done":
            wanted.setdefault(state.fingerprint, []).append(state)
    if not wanted:
        return
    newest: dict[str, tuple[str, Path, dict[str, Any]]] = {}
    for path in outputs.rglob("result.json"):
        result = _json(path)
        cell = str(result.get("cell", ""))
        if cell in wanted and result.get("status") == "finished":
            found = (result.get("started", ""), path.parent, result)
            newest[cell] = max(newest.get(cell, found), found, key=lambda item: (item[0], str(item[1])))
    for cell, (_, run, result) in newest.items():
        for state in wanted[cell]:
            state.found(run, result)


def locked(folder: Path) -> bool:
    """Whether a process works in this directory; false too where that cannot be seen."""
    try:
        if (folder / LOCK).exists():
            with FileLock(folder / LOCK, timeout=0):
                return False
    except Timeout:
        return True
    except OSError:
        pass
    return False


def write_failure(folder: Path, error: str) -> None:
    """Leave the reason of a failure in a cell's directory."""
    text = json.dumps({"error": error}, ensure_ascii=False) + "\n"
    write_atomically(folder / FAILED, text.encode("utf-8", "backslashreplace"))  # undecodable names of files


def write_cells(path: Path, states: Iterable[State]) -> None:
    """Write ``cells.json``, a list with an object per cell; finished ones that vanish from it are told."""
    path.parent.mkdir(parents=True, exist_ok=True)
    states = list(states)
    gone = _done(path) - {state.fingerprint for state in states}
    if gone:
        print(f"{path} no longer lists {counted(len(gone), 'finished cell')} of other settings", flush=True)
    text = json.dumps([state.record() for state in states], indent=2, ensure_ascii=False)
    write_atomically(path, (text + "\n").encode("utf-8", "backslashreplace"))


def _done(path: Path) -> set[str]:
    """The fingerprints of the cells that are done in a ``cells.json``, if it is one."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return {entry["fingerprint"] for entry in entries if entry["status"] == "done"}
    except (OSError, ValueError, RecursionError, TypeError, KeyError):
        return set()


def _failure(folder: Path) -> str | None:
    return _json(folder / FAILED).get("error")


def _json(path: Path) -> dict[str, Any]:
    """The object in a file; empty where there is none or the file is not whole."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
