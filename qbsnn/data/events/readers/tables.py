"""Readers of numbers in columns: numpy's files, HDF5 and plain text."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qbsnn.data.events.readers.recording import (
    Convention,
    Recording,
    from_columns,
    named_columns,
    ordered_columns,
)
from qbsnn.errors import DataError


def read_npy(path: Path, convention: Convention) -> Recording:
    """A structured array, or numbers ``[N, 4]``."""
    with path.open("rb") as file:
        begin = file.read(6)
    if begin != b"\x93NUMPY":
        raise DataError(f"{path}: it must begin with \\x93NUMPY as .npy files do, got {begin!r}")
    return Recording(_of_array(np.load(path, allow_pickle=False), convention, str(path)))


def read_npz(path: Path, convention: Convention) -> Recording:
    """Arrays called x, y, t and p, or a single array as in an .npy file."""
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise DataError(
                f"{path}: it must be a zip archive of arrays, as numpy's savez writes: it is foreign or truncated"
            )
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        if len(arrays.files) == 1:
            return Recording(_of_array(arrays[arrays.files[0]], convention, str(path)))
        names = named_columns(tuple(arrays.files), str(path))
        return Recording(from_columns({column: arrays[name] for column, name in names.items()}, convention, str(path)))


def read_hdf5(path: Path, convention: Convention) -> Recording:
    """Columns called x, y, t and p in the first group that has them all, or one table or ``[N, 4]`` called events.

    Prophesee's own HDF5 files are compressed by a filter that its software installs; without it they are refused.
    """
    import h5py  # here: it takes a while

    if path.is_file() and not h5py.is_hdf5(path):
        raise DataError(f"{path}: it is no HDF5 file, or its first bytes are damaged")
    with h5py.File(path) as file:
        tables: list[Any] = []
        groups: list[Any] = [file]

        def visit(name: str, item: Any) -> None:
            if isinstance(item, h5py.Group):
                groups.append(item)
            elif item.dtype.names is not None or (name.split("/")[-1] == "events" and item.ndim == 2):
                tables.append(item)

        file.visititems(visit)
        for group in groups:
            columns = {name: item for name, item in group.items() if isinstance(item, h5py.Dataset) and item.ndim == 1}
            try:
                names = named_columns(columns, str(path))
            except DataError:
                continue
            read = {column: columns[name][()] for column, name in names.items()}
            return Recording(from_columns(read, convention, str(path)))
        if len(tables) == 1:
            return Recording(_of_array(tables[0][()], convention, str(path)))
    raise DataError(f"{path}: it has no group with columns x, y, t and p, and not one table of events")


def read_text(path: Path, convention: Convention) -> Recording:
    """Rows of four numbers between spaces, commas, semicolons or tabs; lines that begin with # are comments.

    A first line of words names the columns. Without it four columns are t x y p where the first has a decimal point
    (the format of the Event Camera Dataset, arXiv 1610.08336), else they are told apart as in :func:`ordered_columns`.
    """
    import pandas as pd  # here: it takes as long as PyTorch, and only text needs it

    try:
        with path.open(encoding="utf-8") as file:
            first = next((line.strip() for line in file if line.strip() and not line.startswith("#")), "")
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise DataError(f"{path}: it must be text in UTF-8, but byte {error.start} is {byte:#x}") from error
    if not first:
        raise DataError(f"{path}: it holds no events")
    separator = next((mark for mark in ",;" if mark in first), r"\s+")
    fields = [field.strip() for field in re.split(separator, first)]
    titled = all(re.fullmatch(r"[A-Za-z_]+", field) for field in fields)
    if not titled and len(fields) != 4:
        raise DataError(f"{path}: its lines must have 4 numbers, got {first[:60]!r}")
    if titled:
        place = {column: fields.index(name) for column, name in named_columns(tuple(fields), str(path)).items()}
    table = pd.read_csv(path, sep=separator, comment="#", header=0 if titled else None, skipinitialspace=True)
    if table.empty:
        raise DataError(f"{path}: it holds no events")
    for i, kind in enumerate(table.dtypes):
        if kind.kind not in "biuf":
            bad = pd.to_numeric(table.iloc[:, i], errors="coerce").isna()
            raise DataError(f"{path}: its columns must be numbers, got {table.iloc[int(bad.argmax()), i]!r}")
    if table.isna().to_numpy().any():
        raise DataError(f"{path}: row {int(table.isna().any(axis=1).argmax()) + 1} must have 4 numbers")
    if not titled:
        order = convention.columns or ("txyp" if "." in fields[0] else None)
        place = {name: i for i, name in enumerate(order or ordered_columns(table.to_numpy(), convention, str(path)))}
    columns = {name: table.iloc[:, i].to_numpy() for name, i in place.items()}
    return Recording(from_columns(columns, convention, str(path)))


def _of_array(array: NDArray[Any], convention: Convention, where: str) -> Any:
    if array.dtype.names is not None:
        names = named_columns(array.dtype.names, where)
        return from_columns({column: array[name] for column, name in names.items()}, convention, where)
    if array.dtype.kind not in "iuf":
        raise DataError(f"{where}: events must be numbers, got {array.dtype} {list(array.shape)}")
    if len(array.shape) == 2 and len(array) == 0:
        raise DataError(f"{where}: it holds no events")
    return from_columns(ordered_columns(array, convention, where), convention, where)
