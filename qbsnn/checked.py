"""Groups of settings as pydantic models, with the errors of :mod:`qbsnn.checks`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from qbsnn.checks import nearest
from qbsnn.errors import ArgumentError

LONGEST = 80  # characters of a value in an error
_KINDS = {
    "list_type": "a list",
    "dict_type": "a mapping, {KEY: VALUE}",
    "model_type": "a mapping, {KEY: VALUE}",
    "string_type": "a text",
    "string_too_short": "a text that is not empty",
    "too_short": "not empty",
    "int_type": "an integer",
    "bool_type": "true or false",
}
"""pydantic's name of an error -> what a value must be, where the field's bounds do not say it."""

_NAMES = {"string": "a text", "object": "a mapping, {KEY: VALUE}", "array": "a list"}
"""JSON's name of a type -> what a value may be, where it may be another one too."""

_BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum"}
"""pydantic's name of a bound that all of a union have -> JSON's."""


class Checked(BaseModel):
    """Base of a frozen group of settings: its fields are the one place of their defaults, bounds and meaning.

    Raises:
        ArgumentError: where a field is unknown, of another type or out of bounds; the message begins with its name.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            told = dict.fromkeys(explained(type(self), item) for item in error.errors())  # one for all of a union
            raise ArgumentError("; ".join(told)) from None


def explained(model: type[BaseModel], item: Any) -> str:
    """One of pydantic's errors in the words of this module.

    Args:
        model: the class whose field was refused.
        item: an entry of ``ValidationError.errors()``.

    Returns:
        A sentence that begins with the field's dotted name.
    """
    if item["type"] == "value_error":
        return str(item["ctx"]["error"])
    field = model.model_json_schema()["properties"].get(str(item["loc"][0]), {})
    options = list(_options(field))
    loc = list(item["loc"])
    if sum(option.get("type") != "null" for option in options) > 1:
        del loc[1:2]  # the member of the union
    where = ".".join(str(part) for part in loc)
    if item["type"] == "extra_forbidden":
        return f"{where} is not a setting: {nearest(str(item['loc'][-1]), model.model_fields)}"
    if item["type"] == "missing":
        return f"{where} is missing"
    came = repr(item["input"]) if len(repr(item["input"])) <= LONGEST else f"{repr(item['input'])[:LONGEST]} ..."
    union = {option.get("type"): option for option in options} if len(options) > 1 else {}
    if "number" in union:
        union.pop("integer", None)
    words = [_described(option) or _NAMES.get(str(kind), "") for kind, option in union.items()]
    right = " or ".join(filter(None, words)) or _described(field)
    if len(loc) > 1 or not right:
        right = _KINDS.get(item["type"], "")
    if not right:
        return f"{where}: {item['msg'][0].lower()}{item['msg'][1:]}, got {came}"
    return f"{where} must be {right}, got {came}"


def _options(field: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The types that a value of this JSON schema may have."""
    bounds = {name: field[key] for key, name in _BOUNDS.items() if key in field}
    for option in field.get("anyOf", [field]):
        yield from _options(option | bounds) if "anyOf" in option else [option | bounds]


def _described(field: dict[str, Any]) -> str:
    """What a value of this JSON schema is, as the functions above say it; empty for what they do not check."""
    if "enum" in field or "const" in field:
        return f"one of {', '.join(map(str, field.get('enum', [field.get('const')])))}"
    low, high = field.get("minimum"), field.get("maximum")
    above, below = field.get("exclusiveMinimum"), field.get("exclusiveMaximum")
    if field.get("type") == "integer":
        if low is None:
            return "an integer"
        return f"an integer from {low} to {high}" if high is not None else f"an integer of at least {low}"
    if field.get("type") == "number":
        least = f"above {above:g}" if above is not None else f"of at least {low or 0:g}"
        most = f" and at most {high:g}" if high is not None else f" and below {below:g}" if below is not None else ""
        return f"a number {least}{most}"
    return {"boolean": "true or false", "null": "null"}.get(field.get("type", ""), "")
