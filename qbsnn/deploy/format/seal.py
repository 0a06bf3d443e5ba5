"""Digests: files that end with that of all before it, so that damage is noticed, and that of a network."""

from __future__ import annotations

import hashlib
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qbsnn.errors import DeployError

DIGITS = 64


def sealed(content: bytes, mark: bytes, end: bytes = b"") -> bytes:
    """The content with ``mark``, its SHA-256 in hexadecimal digits, and ``end`` behind it.

    >>> len(sealed(b"net", b"# sha256 ", b"\\n"))
    77
    """
    return content + mark + hashlib.sha256(content).hexdigest().encode() + end


def opened(path: Path, mark: bytes, end: bytes = b"") -> bytes:
    """All bytes of a file that was sealed with ``mark`` and ``end``.

    Raises:
        DeployError: the file is absent, damaged, or has no digest.
    """
    try:
        found = path.read_bytes()
    except OSError as error:
        raise DeployError(f"{path} cannot be read: {error.strerror}") from error
    content = found[: -len(mark) - DIGITS - len(end)]
    if not found.startswith(mark, len(content)) or not found.endswith(end):
        raise DeployError(
            f"{path} is cut short or was not written by scripts/export.py: it does not end with its digest"
        )
    if sealed(content, mark, end) != found:
        raise DeployError(f"{path} is damaged: its digest is another one than the one at its end")
    return found


def digest(value: Any) -> str:
    """SHA-256 of a network, or of a part of one, in hexadecimal digits: of every field, array element and dtype.

    >>> digest((1, None)) == digest((1, None)) != digest((1.0, None))
    True
    """
    if isinstance(value, np.ndarray):
        parts = [value.dtype.str, str(value.shape), hashlib.sha256(value.tobytes()).hexdigest()]
    elif is_dataclass(value):
        parts = [type(value).__name__, *(digest(getattr(value, field.name)) for field in fields(value))]
    elif isinstance(value, tuple):
        parts = [digest(part) for part in value]
    else:
        parts = [repr(value)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
