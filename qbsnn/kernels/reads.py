"""What a function reads besides its arguments: a kernel holds what was there when it was made."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dis import get_instructions
from enum import Enum
from functools import partial
from inspect import isbuiltin, isclass, isfunction, ismodule
from numbers import Number
from types import CodeType, FunctionType, MethodDescriptorType, ModuleType, NoneType
from typing import Any

import torch

from qbsnn.functional.reset import Reset

_CONSTANTS = (Number, str, bytes, NoneType, Enum, torch.dtype, torch.device)
_FIXED = {"qbsnn", "torch", "math", "numpy", "builtins"}
"""Packages whose functions read nothing that changes, ``numpy.random`` aside."""


def changing(value: Any) -> str | None:
    """What a constant of a step, or a function that is one, reads that may change while a kernel holds it.

    Args:
        value: A number or a text; a function, also as a ``partial`` or a reset; a tuple of such.

    Returns:
        Its name or its kind; ``None`` where there is nothing. Numbers that a function is given by ``partial`` or as a
        default are its own; those that it finds elsewhere may be set anew.

    >>> changing(partial(max, 2)) is None, changing([2])
    (True, 'a list')
    """
    if isinstance(value, partial):
        return _first(value.func, *value.args, *value.keywords.values())
    if isinstance(value, Reset):
        return changing(value.function)
    if isinstance(value, tuple):
        return _first(*value)
    if isinstance(value, _CONSTANTS) or _is_fixed(value):
        return None
    return _read_by(value) if isfunction(value) else f"a {type(value).__name__}"


def comparable(value: Any) -> Hashable:
    """A constant of a step that nothing changes, in a form to compare: two equal partials are different objects.

    >>> comparable(partial(max, 2)) == comparable(partial(max, 2)) != comparable(partial(max, 3))
    True
    """
    if isinstance(value, partial):
        return comparable((value.func, value.args, *sorted(value.keywords.items())))
    if isinstance(value, Reset):
        return comparable(value.function)
    return tuple(map(comparable, value)) if isinstance(value, tuple) else (type(value), value)


def _first(*values: Any) -> str | None:
    return next((found for found in map(changing, values) if found is not None), None)


def _read_by(function: FunctionType, callers: tuple[FunctionType, ...] = ()) -> str | None:
    """The first thing that a function, or one that it calls, finds elsewhere and that is no function of a package."""
    defaults = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
    if (found := _first(*defaults)) is not None or vars(function):
        return f"{found or 'an attribute'} of {function.__name__}"
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    names, imported = list(_names(function.__code__)), list(_imported(function.__code__))
    elsewhere = {name: function.__globals__[name] for name in names if name in function.__globals__}
    packages = [*imported, *(value.__name__ for value in elsewhere.values() if ismodule(value))]
    if "random" in names and "numpy" in packages:
        return f"numpy.random in {function.__name__}"
    for name in imported:
        if not _is_fixed_package(name):
            return f"{name} in {function.__name__}"
    for name, value in (elsewhere | {name: cell.cell_contents for name, cell in cells}).items():
        if _is_fixed(value) or any(value is each for each in (function, *callers)):
            continue
        if not isfunction(value):
            return f"{name} in {function.__name__}"
        if (found := _read_by(value, (function, *callers))) is not None:
            return found
    return None


def _is_fixed(value: Any) -> bool:
    """Whether it is a package, a function or a class that reads nothing that changes."""
    if ismodule(value):
        return _is_fixed_package(value.__name__)
    if isfunction(value) or isclass(value):
        return _is_fixed_package(value.__module__ or "")
    if isbuiltin(value):
        return isinstance(value.__self__, (ModuleType, type, NoneType))  # and no object
    return isinstance(value, MethodDescriptorType)


def _is_fixed_package(name: str) -> bool:
    return name.partition(".")[0] in _FIXED and not name.startswith("numpy.random")


def _names(code: CodeType) -> Iterator[str]:
    """What a function's code looks up by name, and that of functions within it."""
    yield from code.co_names
    for inner in _within(code):
        yield from _names(inner)


def _imported(code: CodeType) -> Iterator[str]:
    """The packages that a function's code imports itself, and that of functions within it."""
    yield from (each.argval or "." for each in get_instructions(code) if each.opname == "IMPORT_NAME")
    for inner in _within(code):
        yield from _imported(inner)


def _within(code: CodeType) -> list[CodeType]:
    return [constant for constant in code.co_consts if isinstance(constant, CodeType)]
