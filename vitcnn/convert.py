"""Values of fields in the types of their fields, whether a file, a flag or Python gives them."""

from __future__ import annotations

import math
from typing import Any

from vitcnn.lookup import Field

_TYPES = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def converted(value: Any, field: Field, where: str) -> Any:
    """Returns a value as the type of its field; a ValueError says what was expected."""
    if field.type is tuple:
        return _as_tuple(value, field)
    if isinstance(value, list):  # a network has to be hashable
        return tuple(value)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if field.type is float and is_number:
        return float(value)
    if field.type is int:
        fits = is_number and math.isfinite(value) and value == int(value)
    elif field.type is bool:
        fits = value in (True, False)
    else:
        fits = field.type in (object, dict) or isinstance(value, field.type)
    if not fits:
        raise ValueError(f"{where} = {value!r}: expected {_TYPES[field.type]}")
    return field.type(value) if field.type in (int, bool) else value


def split(text: str, separators: str = ",") -> list[str]:
    """Returns the parts of a text, split where it is not in brackets: "a, b(1, 2)" has two."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character in separators and depth <= 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def _as_tuple(value: Any, field: Field) -> tuple:
    if isinstance(value, str):  # a flag gives several names as "a,b"
        value = split(value)
    if not isinstance(value, list | tuple):
        value = (value,)
    if field.item is str:  # a flag may also have wrapped "a,b" as one item, ("a,b",)
        value = [part for item in value for part in split(str(item))]
    return tuple(value)
