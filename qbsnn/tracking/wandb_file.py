"""Reads the transaction log that W&B writes beside a run, ``run-<id>.wandb``: what will be uploaded, or was.

The file is a header of 7 bytes (``:W&B``, a magic number, a version), then LevelDB log blocks of 32 KiB. A block holds
chunks: crc32 of type and data (4 bytes, little endian), length of the data (2), type (1: whole record, 2: first part,
3: middle, 4: last), data. Where fewer than 7 bytes are left in a block they are zero. A record is a protocol buffer,
``wandb_internal_pb2.Record``.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qbsnn.errors import DataError

_BLOCK = 32 * 1024
_HEADER = b":W&B"
_HEADER_BYTES, _CHUNK_BYTES = 7, 7
_WHOLE, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


def read_records(path: Path) -> Iterator[Any]:
    """The records (``wandb_internal_pb2.Record``) of a file in their order.

    A record that the end of the file cuts off is left out, since a killed run ends so. Raises DataError where the file
    is absent, is no W&B log, or a chunk is damaged.
    """
    from wandb.proto import wandb_internal_pb2

    for data in _messages(path):
        record = wandb_internal_pb2.Record()  # type: ignore[attr-defined]  # its names are made at import
        record.ParseFromString(data)
        yield record


def read_history(path: Path) -> Iterator[dict[str, Any]]:
    """The logged rows of a file: value by key, as logged; nested keys (of a histogram) are nested dictionaries.

    W&B adds ``_step``, ``_runtime`` (s) and ``_timestamp`` (s). Raises as :func:`read_records`.
    """
    for record in read_records(path):
        if record.HasField("history"):
            yield values(record.history.item)


def values(items: Any) -> dict[str, Any]:
    """What ``items`` of a history, a summary update or a config update hold: key (nested) to value."""
    found: dict[str, Any] = {}
    for item in items:
        *parents, last = list(item.nested_key) or [item.key]
        node = found
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = json.loads(item.value_json)
    return found


def next_step(folder: Path, run_id: str) -> int:
    """The ``_step`` after the last row of run ``run_id`` in the files under ``folder``; 0 where there is none."""
    last = -1
    for path in folder.glob(f"*run-*-{run_id}/run-{run_id}.wandb"):
        try:
            for row in read_history(path):
                last = max(last, int(row["_step"]))
        except (DataError, KeyError):
            continue  # what could be read counts
    return last + 1


def _messages(path: Path) -> Iterator[bytes]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    if not data.startswith(_HEADER):
        raise DataError(f"{path} is not a W&B log: it must begin with {_HEADER!r}, got {data[:4]!r}")
    at, pending = _HEADER_BYTES, None
    while True:
        if (left := _BLOCK - at % _BLOCK) < _CHUNK_BYTES:
            at += left
        if at + _CHUNK_BYTES > len(data):
            return
        crc, length, kind = struct.unpack_from("<IHB", data, at)
        body = data[at + _CHUNK_BYTES : at + _CHUNK_BYTES + length]
        if len(body) < length:
            return
        if zlib.crc32(data[at + 6 : at + _CHUNK_BYTES + length]) != crc:
            raise DataError(f"{path} is damaged: the chunk at byte {at} has another checksum than its data")
        if kind not in (_WHOLE, _FIRST, _MIDDLE, _LAST) or (pending is None) != (kind in (_WHOLE, _FIRST)):
            raise DataError(f"{path} is damaged: a chunk of type {kind} at byte {at} has no place there")
        at += _CHUNK_BYTES + length
        pending = body if pending is None else pending + body
        if kind in (_WHOLE, _LAST):
            yield pending
            pending = None
