"""Read ``result.json`` back, and refuse a file that is not one.

The dataclasses of :mod:`qbsnn.results.schema` are the only description of the format: types and required keys are
taken from them.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import types
from functools import cache
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from qbsnn import checks
from qbsnn.errors import DataError
from qbsnn.results.schema import SCHEMA_VERSION, Result

STATES = ("running", "finished", "incomplete", "unproven", "interrupted", "failed")


DEEPEST = 64
"""Nested objects and lists that a file may have; what works on them below here is recursive."""


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        DataError: The file cannot be read, is not JSON (NaN and Infinity are not), holds a number that no float can, or
            nests deeper than ``DEEPEST``.
    """
    if path.exists() and not path.is_file():  # reading a pipe or a device would not end
        raise DataError(f"{path} cannot be read: it is no regular file")
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_constant, parse_float=_finite)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}") from error
    except RecursionError as error:
        raise DataError(f"{path} nests too deep; at most {DEEPEST} levels are read") from error
    level, depth = [content], 0
    while level := [item for node in level if isinstance(node, (dict, list)) for item in _below(node)]:
        depth += 1
        if depth > DEEPEST:
            raise DataError(f"{path} nests too deep; at most {DEEPEST} levels are read")
    return content


def _below(node: Any) -> Any:
    return node.values() if isinstance(node, dict) else node


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON value; a number that is not finite is stored as null")


def _finite(text: str) -> float:
    if math.isinf(number := float(text)):
        raise ValueError(f"{text[:60]} is above all numbers that a float can hold")
    return number


def read_result(path: Path | str) -> Result:
    """The result that :meth:`Result.write` wrote to a file.

    Args:
        path: A ``result.json``. Keys with a default may be absent.

    Returns:
        The result. ``absorption``, ``integer`` and ``energy`` are ``None``, a dictionary with the reason in
        ``skipped``, or their dataclass. A number that is stored as null is NaN.

    Raises:
        ArgumentError: ``path`` is no path.
        DataError: No such file, not JSON, another ``schema_version``, or a key missing, unknown or of the wrong type;
            the message names file and key.
    """
    return parse_result(read_json(checks.path("path", path, "a result.json")), str(path))


def parse_result(data: Any, place: str) -> Result:
    """The result that JSON holds.

    Args:
        data: What :meth:`Result.as_json` gives.
        place: Where it was read, for messages.

    Raises:
        DataError: As :func:`read_result`.
    """
    if not isinstance(data, dict):
        raise DataError(f"{place} must hold a JSON object, got {_shown(data)}")
    if "schema_version" not in data:
        raise DataError(f"{place}: schema_version is missing; a result file of this framework has one")
    if data["schema_version"] != SCHEMA_VERSION:
        version = _shown(data["schema_version"])
        raise DataError(f"{place}: schema_version must be {SCHEMA_VERSION}, got {version}")
    result: Result = _value(Result, data, place, "")
    if result.status not in STATES:
        raise DataError(f"{place}: status must be one of {', '.join(STATES)}, got {_shown(result.status)}")
    return result


def _value(kind: Any, value: Any, file: str, key: str) -> Any:
    """``value`` as a ``kind``; ``key`` is its dotted place in the file."""
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _record(kind, value, file, key)
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        kinds = [arg for arg in args if arg is not type(None)]
        # Only the blocks have two forms; one with nothing but a reason, and whose, is the short one.
        short = isinstance(value, dict) and {"skipped"} <= set(value) <= {"skipped", "checkpoint"}
        return _value(kinds[-1] if short else kinds[0], value, file, key)
    if kind is Any:
        return value
    if origin is list and isinstance(value, list):
        return [_value(args[0], item, file, f"{key}[{index}]") for index, item in enumerate(value)]
    if origin is dict and isinstance(value, dict):
        return {name: _value(args[1], item, file, f"{key}.{name}") for name, item in value.items()}
    if kind is float and value is None:
        return float("nan")
    if kind is float and type(value) in (int, float) and abs(value) <= sys.float_info.max:
        return float(value)
    if kind in (int, str, bool) and type(value) is kind and not (kind is int and abs(value) >= 2**63):
        return value
    name = getattr(origin or kind, "__name__", str(kind))
    raise DataError(f"{file}: {key} must be of type {name}, got {_shown(value)}")


def _record(kind: Any, value: Any, file: str, key: str) -> Any:
    if not isinstance(value, dict):
        raise DataError(f"{file}: {key} must be an object with the keys of {kind.__name__}, got {_shown(value)}")
    prefix = f"{key}." if key else ""
    hints = _hints(kind)
    unknown = sorted(set(value) - set(hints))
    if unknown:
        raise DataError(f"{file}: {prefix}{unknown[0]} is not a key of {kind.__name__}")
    for entry in dataclasses.fields(kind):
        required = entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING
        if required and entry.name not in value:
            raise DataError(f"{file}: {prefix}{entry.name} is missing; {kind.__name__} needs it")
    return kind(**{name: _value(hints[name], item, file, f"{prefix}{name}") for name, item in value.items()})


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
