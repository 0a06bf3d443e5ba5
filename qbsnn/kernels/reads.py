"""What a function reads besides its arguments, as a value to compare: a kernel holds what was there at its making."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from enum import Enum
from functools import partial
from inspect import isbuiltin, isclass, isfunction, ismodule
from numbers import Number
from types import CodeType, FunctionType, MethodDescriptorType, ModuleType, NoneType
from typing import Any
from weakref import WeakKeyDictionary

import torch

from qbsnn.functional.reset import Reset

_CONSTANT = {int, float, bool, complex, str, bytes, NoneType, torch.dtype, torch.device}
_FIXED = {"qbsnn", "torch", "math", "numpy", "builtins"}
"""Packages whose functions read nothing that changes."""

CHANGES = 8
"""For so many readings of one function are kernels made, which takes seconds each; one that changes more often may not
have any."""
_found: WeakKeyDictionary[FunctionType, set[Hashable]] = WeakKeyDictionary()


def reads(value: Any, within: tuple[FunctionType, ...] = ()) -> Hashable:
    """A constant, or a function with all that it reads: globals, what it closes over, defaults, attributes.

    Args:
        value: What a kernel is to hold.
        within: Functions that are being read.

    Returns:
        Something to compare. Where it is equal, a kernel that holds the one serves the other.

    Raises:
        TypeError: It may change unseen: a tensor, a module, a container, a method, an object with attributes.

    >>> reads(partial(max, 2)) == reads(partial(max, 2)) != reads(partial(max, 3))
    True
    """
    kind = type(value)
    if kind in _CONSTANT:
        return value
    if kind is partial:
        return reads((value.func, value.args, *sorted(value.keywords.items())), within)
    if kind is Reset:
        return reads(value.function, within)
    if isinstance(value, tuple) and not callable(value):
        return tuple([reads(part, within) for part in value])
    if _is_fixed(value) or any(value is function for function in within):
        return value
    if isfunction(value):
        found = tuple(_reads_in(value, name, part, within) for name, part in _read(value))
        known = _found.setdefault(value, set())
        if found not in known and len(known) == CHANGES:
            raise TypeError(f"numbers of {value.__name__} that go on changing")
        known.add(found)
        return value, found
    raise TypeError(f"a {type(value).__name__}")


def _reads_in(function: FunctionType, name: str, value: Any, within: tuple[FunctionType, ...]) -> Hashable:
    try:
        return reads(value, (*within, function))
    except TypeError as error:
        raise TypeError(str(error) if " of " in str(error) else f"{error}, {name} of {function.__name__}") from None


def _is_fixed(value: Any) -> bool:
    """Whether it is a value, or a function or a class that reads nothing that changes."""
    if isfunction(value) or isclass(value):
        return _of_fixed(value.__module__)
    if isbuiltin(value):
        return isinstance(value.__self__, (ModuleType, type, NoneType))  # and no object
    return isinstance(value, (MethodDescriptorType, Enum, Number))


def _read(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """Names and values of what a function reads, and of what it reads from modules."""
    code = function.__code__
    yield from zip(code.co_freevars, (cell.cell_contents for cell in function.__closure__ or ()), strict=True)
    yield from (("a default", value) for value in function.__defaults__ or ())
    yield from (function.__kwdefaults__ or {}).items()
    yield from vars(function).items()
    names = sorted(set(_names(code)))
    spaces = [function.__globals__]
    for space in spaces:  # which grows
        for name in names:
            value = space.get(name)
            if not ismodule(value):
                yield name, value
            elif not _of_fixed(value.__name__) and all(vars(value) is not known for known in spaces):
                spaces.append(vars(value))


def _names(code: CodeType) -> Iterator[str]:
    """What a function's code looks up by name, and that of functions within it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _of_fixed(module: str | None) -> bool:
    return (module or "").partition(".")[0] in _FIXED
