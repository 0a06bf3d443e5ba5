"""Checks of arguments. Each returns the value, or raises an ArgumentError that says what would be right."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from numbers import Integral, Real
from pathlib import Path

import yaml

from qbsnn.errors import ArgumentError, CheckpointError, SettingsError


def integer(name: str, value: object, low: int, high: int | None = None) -> int:
    """An integer from ``low`` to ``high`` (both included), numpy's too; a bool is not an integer.

    >>> integer("s_max", 8, 1, 127)
    8
    >>> integer("s_max", 0, 1, 127)
    Traceback (most recent call last):
    ...
    qbsnn.errors.ArgumentError: s_max must be an integer from 1 to 127, got 0
    """
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or value < low or (high is not None and value > high):  # type: ignore[operator]
        bounds = f"from {low} to {high}" if high is not None else f"of at least {low}"
        raise ArgumentError(f"{name} must be an integer {bounds}, got {value!r}")
    return int(value)  # type: ignore[call-overload]


def integers(name: str, value: object, low: int) -> list[int]:
    """A list of integers of at least ``low``, with one entry at least."""
    if not isinstance(value, Iterable) or isinstance(value, (str, Mapping)):
        raise ArgumentError(f"{name} must be a list of integers of at least {low}, got {value!r}")
    found = [integer(name, each, low) for each in value]
    if not found:
        raise ArgumentError(f"{name} must have at least one entry, got none")
    return found


def number(
    name: str, value: object, low: float = -math.inf, high: float = math.inf, *, open_low: bool = False
) -> float:
    """A finite real number from ``low`` to ``high``; ``open_low`` leaves ``low`` itself out."""
    real = not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(value)
    if not real or value < low or value > high or (open_low and value == low):  # type: ignore[operator]
        above = f"above {low:g}" if open_low else f"of at least {low:g}"
        bounds = " and ".join(([above] if low > -math.inf else []) + ([f"at most {high:g}"] if high < math.inf else []))
        raise ArgumentError(f"{name} must be a number {bounds or '(finite)'}, got {value!r}")
    return float(value)  # type: ignore[arg-type]


def choice(name: str, value: object, options: Iterable[str]) -> str:
    """One of ``options``."""
    names = list(options)
    if not isinstance(value, str) or value not in names:
        raise ArgumentError(f"{name} must be one of {', '.join(names)}, got {value!r}")
    return value


def path(name: str, value: object, of: str) -> Path:
    """The path of what ``of`` says: text that is not empty, or a ``pathlib.Path``; ``~`` is the user's home."""
    if not isinstance(value, (str, os.PathLike)) or not str(value):
        raise ArgumentError(f"{name} must be the path of {of}, got {value!r}")
    return at_home(value)


def at_home(path: str | os.PathLike[str]) -> Path:
    """A path with its ``~`` as the home of the user; as it is where there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def boolean(name: str, value: object) -> bool:
    """True or False, and nothing that merely counts as one."""
    if type(value) is not bool:
        raise ArgumentError(f"{name} must be true or false, got {value!r}")
    return value


def nearest(name: str, options: Iterable[str]) -> str:
    """A sentence that suggests the nearest of ``options``, or lists them.

    >>> nearest("s_maxx", ["s_max", "tau"])
    'did you mean s_max?'
    >>> nearest("nope", ["mlp", "vgg5"])
    'there are: mlp, vgg5'
    >>> nearest("nope", ["nope", "lr"])
    'there are: lr'
    """
    known = sorted(set(options) - {name})  # what does not exist is no suggestion, though it stands among the options
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else f"there are: {', '.join(known)}"


@contextmanager
def place(where: str) -> Iterator[None]:
    """Put a place in the settings before the name of an argument that is refused inside."""
    try:
        yield
    except ArgumentError as error:
        raise SettingsError(f"{where}.{error}") from error


@contextmanager
def readable() -> Iterator[None]:
    """Name the file and the line where YAML that is read inside cannot be."""
    try:
        yield
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{mark.name}, line {mark.line + 1}, column {mark.column + 1}" if mark else "a file"
        raise SettingsError(f"{where} is no YAML: {error.problem or error.context}") from error


@contextmanager
def named(setting: str) -> Iterator[None]:
    """Put a setting before what is wrong with the checkpoint that it names."""
    try:
        yield
    except (CheckpointError, SettingsError) as error:
        raise type(error)(f"{setting}: {error}") from error
