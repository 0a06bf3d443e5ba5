"""ONNX files that notice damage.

The last bytes of a file are one more entry of the model's metadata, ``sha256``: the digest of all bytes before it. Two
messages written one after the other are one message to protobuf, so any ONNX reader takes the whole file.
"""

from __future__ import annotations

from pathlib import Path

from qbsnn.deploy.format.seal import opened, sealed

_ENTRY = b"\x72\x4a\x0a\x06sha256\x12\x40"
"""ModelProto.metadata_props (field 14) of 74 bytes: the key (field 1), and a value (field 2) of 64 bytes, to follow."""


def write(model: bytes, path: Path) -> None:
    """Write a model with its digest.

    Args:
        model: a serialised ``ModelProto``.
        path: of the file.
    """
    path.write_bytes(sealed(model, _ENTRY))


def read(path: Path) -> bytes:
    """The content of an ONNX file that :func:`write` wrote, checked against its digest.

    Args:
        path: of the file.

    Raises:
        DeployError: the file is absent, damaged, or has no digest.
    """
    return opened(path, _ENTRY)
