"""Errors that come out of loader processes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from qbsnn.errors import DataError


@contextlib.contextmanager
def own_errors() -> Iterator[None]:
    """Raise a DataError of a worker process with its own message; torch puts a stack trace before it."""
    try:
        yield
    except DataError as error:
        marker = f"{DataError.__module__}.{DataError.__qualname__}: "
        _, found, message = str(error).rpartition(marker)
        if not found:
            raise
        raise DataError(message.strip()) from None
