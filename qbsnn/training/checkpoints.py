"""Checkpoints that are whole or absent, and that notice damage.

A checkpoint is the zip archive that torch writes, with a SHA-256 as the archive's comment. The digest travels with the
file, and the two cannot disagree after a kill: a new state goes to ``.<name>.part`` in the same directory, is flushed
to disk and renamed over the target.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, cast

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from qbsnn.errors import CheckpointError, EnvironmentFault

VERSION = 1
"""Of a run's checkpoints; raised when an older reader would misread them."""

_CHUNK = 1 << 20
_MARK = b"qbsnn sha256 "
_COMMENT = len(_MARK) + 64
_EMPTY = b"\0\0"
"""The last field of an archive without a comment: the comment's length."""


def load(path: str | os.PathLike[str], map_location: Any = "cpu") -> dict[str, Any]:
    """Read a checkpoint, checked against its digest; only tensors and plain containers are unpickled.

    Args:
        path: of the file.
        map_location: as ``torch.load`` has it.

    Raises:
        CheckpointError: the file is absent, damaged, not a checkpoint, of a newer version, or holds other Python
            objects.
    """
    path = _local(path)
    try:
        with path.open("rb") as file:
            _check_digest(file, path)
            file.seek(0)
            state = _unpickle(file, path, map_location)
    except FileNotFoundError:
        raise CheckpointError(f"checkpoint {path} does not exist") from None
    except OSError as error:
        raise CheckpointError(f"checkpoint {path} cannot be read: {error}") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"checkpoint {path} must hold a dict, got {type(state).__name__}")
    about = state.get("qbsnn")
    version = about.get("version") if isinstance(about, dict) else None
    if version not in (None, "0.1.0", VERSION):  # the text is of checkpoints without a version of their own
        raise CheckpointError(f"checkpoint {path} has format version {version!r}; this qbsnn reads up to {VERSION}")
    return state


def digest(path: str | os.PathLike[str]) -> str:
    """The SHA-256 that a checkpoint names as its own, by which it is known wherever it lies; :func:`load` checks it.

    Raises:
        CheckpointError: the file is absent, or names none.
    """
    path = _local(path)
    try:
        with path.open("rb") as file:
            named = _sealed(file)[1]
    except OSError as error:
        raise CheckpointError(f"checkpoint {path} cannot be read: {error.strerror or error}") from None
    if named is None:
        raise CheckpointError(f"checkpoint {path} is cut short or is not a checkpoint: it does not end with its digest")
    return named


def stored(contents: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The configuration in the contents of a checkpoint: plain values, since the file may come from anybody.

    Args:
        contents: of the checkpoint.
        path: its file.

    Raises:
        CheckpointError: there is none, or it holds interpolations or other objects, or trusts somebody.
    """
    about = contents.get("qbsnn")
    if not isinstance(about, dict) or not isinstance(config := about.get("config"), dict):
        raise CheckpointError(f"checkpoint {path} carries no qbsnn configuration; it was not written by train.py")
    for key, value in _values(config, ""):
        if type(value) not in (str, int, float, bool, type(None)):
            raise CheckpointError(f"checkpoint {path}: {key} must be a plain value, got a {type(value).__name__}")
        if "${" in key or "${" in str(value):
            raise CheckpointError(f"checkpoint {path}: {key} must be a plain value, got the interpolation {value!r}")
    if config.get("trust") is not None:
        raise CheckpointError(f"checkpoint {path} says trust={config['trust']}, which belongs on the command line")
    paths = config.get("paths")
    if not isinstance(paths, dict) or not isinstance(paths.get("run"), str) or not paths["run"]:
        raise CheckpointError(f"checkpoint {path}: its configuration has no paths.run, the directory of its run")
    return config


def _values(node: Any, where: str) -> Iterator[tuple[str, Any]]:
    """Everything in a configuration that is no container, with its dotted key."""
    if type(node) is dict:
        for key, below in node.items():
            yield from _values(below, f"{where}.{key}" if where else str(key))
    elif type(node) in (list, tuple):
        for index, below in enumerate(node):
            yield from _values(below, f"{where}[{index}]")
    else:
        yield where, node


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning plugin that writes as the module says and reads through :func:`load`. Local paths only."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Write ``checkpoint`` to ``path``; on failure, whatever was there before stays valid.

        Raises:
            EnvironmentFault: the disk is full or does not let itself be written.
        """
        if storage_options is not None:
            raise CheckpointError(f"storage_options must be None for local checkpoints, got {storage_options!r}")
        path = _local(path)
        part = _part(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:  # overwrites the remains of a killed save of the same name
                writer = _HashingWriter(file)
                torch.save(checkpoint, cast(IO[bytes], writer))
                file.seek(-len(_EMPTY), os.SEEK_CUR)
                file.write(_ending(writer.sha256.hexdigest()))
                _flush(file)
            part.replace(path)
            _flush_directory(path.parent)
        except (OSError, RuntimeError) as error:
            cause = writer.error if isinstance(error, RuntimeError) else error
            if cause is None and isinstance(error.__context__, SystemExit | KeyboardInterrupt):
                cause = error.__context__  # of a signal that was answered before the write had begun
            if cause is None:
                raise
            if not isinstance(cause, OSError):
                raise cause from None
            raise EnvironmentFault(
                f"checkpoint {path} cannot be written: {cause}. What had this name before is intact"
            ) from error
        finally:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint with :func:`load`. ``weights_only`` is Lightning's; it is always true here."""
        return load(path, map_location)


class _HashingWriter:
    """A file for ``torch.save``, which writes in sequence, that takes the digest of what goes through.

    torch tells of a failure in words of its own (``unexpected pos``); ``error`` is the one that caused it.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.sha256 = hashlib.sha256()
        self.error: BaseException | None = None

    def write(self, data: bytes) -> int:
        try:
            self.sha256.update(data)
            return self.file.write(data)
        except BaseException as error:  # also what answers a signal, which torch would hide
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


def _ending(digest: str) -> bytes:
    """The end of an archive with its digest as the comment: the comment's length, and the comment."""
    return _COMMENT.to_bytes(len(_EMPTY), "little") + _MARK + digest.encode()


def _sealed(file: IO[bytes]) -> tuple[int, str | None]:
    """Where the ending of a file begins, and the digest that it names; ``None`` where it names none."""
    start = max(file.seek(0, os.SEEK_END) - len(_ending("0" * 64)), 0)
    file.seek(start)
    ending = file.read()
    return start, ending[-64:].decode("ascii", "replace") if start and ending.startswith(_ending("")) else None


def _check_digest(file: IO[bytes], path: Path) -> None:
    """See that a file is what was written."""
    start, named = _sealed(file)
    size = file.tell()
    if named is None:
        raise CheckpointError(
            f"checkpoint {path} is cut short or is not a checkpoint: its {size} bytes do not end with their digest. "
            "Use another checkpoint of the run, or copy this one again"
        )
    file.seek(0)
    found = _digest(file, start)
    if found != named:
        raise CheckpointError(
            f"checkpoint {path} is damaged: it has {size} bytes with SHA-256 {found}, its end names {named}. Use "
            "another checkpoint of the run, or copy this one again"
        )


def _local(path: str | os.PathLike[str]) -> Path:
    if "://" in os.fspath(path):
        raise CheckpointError(f"checkpoint path must be a local file, got {os.fspath(path)}")
    return Path(path)


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def _digest(file: IO[bytes], size: int) -> str:
    """SHA-256 of an archive whose first ``size`` bytes these are, when it had no comment."""
    sha256 = hashlib.sha256()
    while chunk := file.read(min(_CHUNK, size)):
        sha256.update(chunk)
        size -= len(chunk)
    sha256.update(_EMPTY)
    return sha256.hexdigest()


def _flush(file: IO[Any]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _flush_directory(path: Path) -> None:
    """Make renames in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unpickle(file: IO[bytes], path: Path, map_location: Any) -> Any:
    try:
        return torch.load(file, map_location=map_location, weights_only=True)
    except Exception as error:  # on arbitrary bytes torch.load raises nearly any type
        file.seek(0)
        if isinstance(error, pickle.UnpicklingError) and zipfile.is_zipfile(file):
            reason = (
                "holds Python objects besides tensors and plain containers, which are not loaded because unpickling "
                "them can run any code. Save a state_dict and a plain dict of settings instead"
            )
        else:
            reason = (
                f"is cut short or is not a checkpoint ({path.stat().st_size} bytes). Use another one, or copy it again"
            )
        first = str(error).strip().splitlines()
        raise CheckpointError(
            f"checkpoint {path} {reason}. torch: {first[0] if first else type(error).__name__}"
        ) from error
