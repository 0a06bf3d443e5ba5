"""ONNX files that notice damage.

The last bytes of a file are one more entry of the model's metadata, ``sha256``: the digest of all bytes before it. Two
messages written one after the other are one message to protobuf, so any ONNX reader takes the whole file.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from qbsnn.errors import DeployError

_ENTRY = b"\x72\x4a\x0a\x06sha256\x12\x40"
"""ModelProto.metadata_props (field 14) of 74 bytes: the key (field 1), and a value (field 2) of 64 bytes, to follow."""


def write(model: bytes, path: Path) -> None:
    """Write a model with its digest.

    Args:
        model: a serialised ``ModelProto``.
        path: of the file.
    """
    path.write_bytes(model + _ENTRY + hashlib.sha256(model).hexdigest().encode())


def read(path: Path) -> bytes:
    """The content of an ONNX file that :func:`write` wrote, checked against its digest.

    Args:
        path: of the file.

    Raises:
        DeployError: the file is absent, damaged, or has no digest.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DeployError(f"{path} cannot be read: {error.strerror}") from error
    model, entry, digest = content[: -len(_ENTRY) - 64], content[-len(_ENTRY) - 64 : -64], content[-64:]
    if entry != _ENTRY:
        raise DeployError(
            f"{path} is cut short or was not written by scripts/export.py: it does not end with its digest"
        )
    if hashlib.sha256(model).hexdigest().encode() != digest:
        raise DeployError(f"{path} is damaged: its digest is another one than the one at its end")
    return content
