"""Which reader serves which file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from qbsnn.data.events.events import naming
from qbsnn.data.events.readers import binary, prophesee, tables
from qbsnn.data.events.readers.recording import Convention, Recording
from qbsnn.errors import DataError

Reader = Callable[[Path, Convention], Recording]

READERS: dict[str, Reader] = {
    ".bin": binary.read_bin,
    ".npy": tables.read_npy,
    ".npz": tables.read_npz,
    ".aedat": binary.read_aedat,
    ".aedat4": binary.read_aedat4,
    ".raw": prophesee.read_raw,
    ".dat": prophesee.read_dat,
    ".h5": tables.read_hdf5,
    ".hdf5": tables.read_hdf5,
    ".txt": tables.read_text,
    ".csv": tables.read_text,
}
"""By suffix, in lower case. A reader of your own: ``READERS[".ext"] = function``."""


def read(path: Path, convention: Convention | None = None) -> Recording:
    """The events of one file.

    Args:
        path: of the file; its suffix chooses the reader.
        convention: what the format leaves open.

    Raises:
        DataError: names the file, and what is wrong with it.
    """
    if path.suffix.lower() not in READERS:
        raise DataError(
            f"{path}: no reader for {path.suffix or 'a file without suffix'}; there are {', '.join(READERS)}"
        )
    with naming(str(path)):
        if path.is_file() and path.stat().st_size == 0:
            raise DataError(f"{path}: the file is empty, 0 bytes")
        found = READERS[path.suffix.lower()](path, convention or Convention())
    if len(found.events) == 0:
        raise DataError(f"{path}: it holds no events")
    return found
