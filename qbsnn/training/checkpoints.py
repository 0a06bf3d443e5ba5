"""Checkpoints that are whole or absent, and that notice damage.

Beside every checkpoint lies ``<name>.sha256``. The two files cannot be renamed in one step, so the order of writing is
what makes a kill at any moment harmless:

1. the new state goes to ``.<name>.part`` in the same directory, flushed to disk, its digest taken on the way;
2. the digest file is replaced by one that lists the new digest **and** those it listed before;
3. the new state is renamed over the target;
4. the digest file is replaced by one that lists the new digest alone.

A kill before step 3 leaves the old state, which the digest file lists since before the save; a kill after it leaves the
new one, listed since step 2. A damaged file has a digest that was never listed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import zipfile
from pathlib import Path
from typing import IO, Any, cast

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from qbsnn.errors import CheckpointError

_CHUNK = 1 << 20


def load(path: str | os.PathLike[str], map_location: Any = "cpu") -> dict[str, Any]:
    """Read a checkpoint, checked against its digest if it has one; only tensors and plain containers are unpickled.

    Raises:
        CheckpointError: if the file is absent, damaged, not a checkpoint, or holds other Python objects.
    """
    path = _local(path)
    real = path.resolve()  # ``save_last: link`` makes last.ckpt a link, and the digest file is the target's
    try:
        # Read before and after the file: a save by another process in between changes both, and whichever state was
        # opened here is listed in one of the two.
        listed = _listed(real)
        with real.open("rb") as file:
            digest = _digest(file)
            listed = [*listed, *_listed(real)]
            if listed and digest not in listed:
                raise CheckpointError(
                    f"checkpoint {path} is damaged: it has {real.stat().st_size} bytes with SHA-256 {digest}, "
                    f"{_sidecar(real).name} lists {listed[0]}. Use another checkpoint of the run, or copy this one "
                    "again; if the file was replaced on purpose, delete its .sha256 file."
                )
            file.seek(0)
            state = _unpickle(file, path, map_location)
    except FileNotFoundError:
        raise CheckpointError(f"checkpoint {path} does not exist") from None
    except OSError as error:
        raise CheckpointError(f"checkpoint {path} cannot be read: {error}") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"checkpoint {path} must hold a dict, got {type(state).__name__}")
    return state


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning plugin that writes as the module says and reads through :func:`load`. Local paths only."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Write ``checkpoint`` to ``path``; on failure, whatever was there before stays valid."""
        if storage_options is not None:
            raise CheckpointError(f"storage_options must be None for local checkpoints, got {storage_options!r}")
        path = _local(path)
        part = _part(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:  # overwrites the remains of a killed save of the same name
                writer = _HashingWriter(file)
                torch.save(checkpoint, cast(IO[bytes], writer))
                _flush(file)
            digest = writer.sha256.hexdigest()
            before = _listed(path)
            if not before and path.exists():  # a file from elsewhere: it must not look damaged after a kill
                with path.open("rb") as file:
                    before = [_digest(file)]
            _list(path, [digest, *before])
            part.replace(path)
            _flush_directory(path.parent)
            _list(path, [digest])
        except OSError as error:
            raise CheckpointError(
                f"checkpoint {path} cannot be written: {error}. What had this name before is intact."
            ) from error
        finally:
            for rest in (part, _part(_sidecar(path))):
                with contextlib.suppress(OSError):
                    rest.unlink(missing_ok=True)

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint with :func:`load`. ``weights_only`` is Lightning's; it is always true here."""
        return load(path, map_location)

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Remove a checkpoint and its digest file."""
        path = _local(path)
        super().remove_checkpoint(path)
        _sidecar(path).unlink(missing_ok=True)


class _HashingWriter:
    """A file for ``torch.save``, which writes in sequence, that takes the digest of what goes through."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.sha256 = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def _local(path: str | os.PathLike[str]) -> Path:
    if "://" in os.fspath(path):
        raise CheckpointError(f"checkpoint path must be a local file, got {os.fspath(path)}")
    return Path(path)


def _sidecar(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def _listed(path: Path) -> list[str]:
    """The digests beside ``path``, newest first; the lines are those of the ``sha256sum`` program."""
    try:
        text = _sidecar(path).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    # a damaged digest file must not pass for an absent one
    return [line.split()[0] for line in text.splitlines() if line.strip()] or ["nothing"]


def _list(path: Path, digests: list[str]) -> None:
    """Replace the digest file, on disk before this returns."""
    sidecar = _sidecar(path)
    part = _part(sidecar)
    with part.open("w", encoding="utf-8") as file:
        file.writelines(f"{digest}  {path.name}\n" for digest in dict.fromkeys(digests))
        _flush(file)
    part.replace(sidecar)
    _flush_directory(path.parent)


def _digest(file: IO[bytes]) -> str:
    sha256 = hashlib.sha256()
    while chunk := file.read(_CHUNK):
        sha256.update(chunk)
    return sha256.hexdigest()


def _flush(file: IO[Any]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _flush_directory(path: Path) -> None:
    """Make renames in a directory durable, where the system can open directories (not on Windows)."""
    if os.name != "posix":
        return
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
