"""The files of a run and where they lie, and files that a reader never sees half written."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

from qbsnn.errors import CheckpointError

BEST, LAST, RESUME = Path("best.ckpt"), Path("last.ckpt"), Path("resume.ckpt")
"""Checkpoints of a run: of the best epoch by validation, of the last one, of a moment within an epoch."""

CURVE_FILE = "metrics.csv"
"""The curves of a run."""

LOCK = ".lock"
"""Held by the process that writes into the directory of a run."""


def cache_folder() -> Path:
    """The folder of this project in the user's cache, which may not exist yet. Raises RuntimeError without a home."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "qbsnn"


def from_here(path: Path) -> Path:
    """The path as seen from the working directory, where that is shorter."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def runs_below(folder: Path) -> str:
    """Up to three runs below a folder that is none itself, as the end of an error; empty where there are none."""
    found = sorted(folder.glob("*/**/checkpoints"))[-3:]
    return f"; runs below it: {', '.join(str(from_here(path.parent.resolve())) for path in found)}" if found else ""


def checkpoint_of(path: str | Path) -> Path:
    """A checkpoint itself; of the folder of a run the best one by validation, or the last where there is no best.

    Raises:
        CheckpointError: The folder has neither.
    """
    path = Path(path).resolve()
    if not path.is_dir():
        return path
    found = [path / "checkpoints" / name for name in (BEST, LAST)]
    file = next((file for file in found if file.exists()), None)
    if file is None:
        raise CheckpointError(f"checkpoint {found[0]} does not exist: {path} is no run's folder{runs_below(path)}")
    return file


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` beside ``path``, flush it to disk, then rename it onto ``path``.

    Raises:
        OSError: The directory is absent, full or not writable; ``path`` is then what it was before.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")  # machines that share a disk share pids too
    try:
        with part.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def walk(root: Path, refuse: Callable[[OSError], None] | None = None) -> Iterator[Path]:
    """Every file below ``root``, in no order. What is hidden is left out; links are followed, but not to a parent.

    Args:
        root: A folder.
        refuse: Called with the error of a folder that cannot be listed, which is passed over otherwise.
    """
    for place, folders, files in os.walk(root, onerror=refuse, followlinks=True):
        below = [Path(place, name) for name in folders if not name.startswith(".")]
        folders[:] = [path.name for path in below if not (path.is_symlink() and _leads_up(path))]
        yield from (Path(place, name) for name in files if not name.startswith("."))


def _leads_up(path: Path) -> bool:
    return any(path.samefile(parent) for parent in path.absolute().parents)
