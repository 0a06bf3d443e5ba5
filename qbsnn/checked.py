"""Groups of settings as pydantic models, with the errors of :mod:`qbsnn.checks`."""

from __future__ import annotations

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
            raise ArgumentError("; ".join(explained(type(self), item) for item in error.errors())) from None


def explained(model: type[BaseModel], item: Any) -> str:
    """One of pydantic's errors in the words of this module.

    Args:
        model: the class whose field was refused.
        item: an entry of ``ValidationError.errors()``.

    Returns:
        A sentence that begins with the field's dotted name.
    """
    where = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        return f"{where} is not a setting: {nearest(str(item['loc'][-1]), model.model_fields)}"
    if item["type"] == "missing":
        return f"{where} is missing"
    if item["type"] == "value_error":
        return str(item["ctx"]["error"])
    came = repr(item["input"]) if len(repr(item["input"])) <= LONGEST else f"{repr(item['input'])[:LONGEST]} ..."
    field = model.model_json_schema()["properties"].get(str(item["loc"][0]), {})
    right = " or ".join(words for option in field.get("anyOf", [field]) if (words := _described(option)))
    if len(item["loc"]) > 1 or not right:
        right = _KINDS.get(item["type"], "")
    if not right:
        return f"{where}: {item['msg'][0].lower()}{item['msg'][1:]}, got {came}"
    return f"{where} must be {right}, got {came}"


def _described(field: dict[str, Any]) -> str:
    """What a value of this JSON schema is, as the functions above say it; empty for what they do not check."""
    if "enum" in field or "const" in field:
        return f"one of {', '.join(map(str, field.get('enum', [field.get('const')])))}"
    low, high = field.get("minimum"), field.get("maximum")
    above, below = field.get("exclusiveMinimum"), field.get("exclusiveMaximum")
    if field.get("type") == "integer":
        return f"an integer from {low} to {high}" if high is not None else f"an integer of at least {low}"
    if field.get("type") == "number":
        least = f"above {above:g}" if above is not None else f"of at least {low or 0:g}"
        most = f" and at most {high:g}" if high is not None else f" and below {below:g}" if below is not None else ""
        return f"a number {least}{most}"
    return {"boolean": "true or false", "null": "null"}.get(field.get("type", ""), "")
