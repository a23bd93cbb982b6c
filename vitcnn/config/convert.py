"""Values of fields in the types of their fields, whether a file, a flag or Python gives them."""

from __future__ import annotations

import math
import re
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


def _as_tuple(value: Any, field: Field) -> tuple:
    if isinstance(value, str):  # a flag gives several names as "a,b"
        value = _split(value)
    if not isinstance(value, list | tuple):
        value = (value,)
    if field.item is str:  # a flag may also have wrapped "a,b" as one item, ("a,b",)
        value = [part for item in value for part in _split(str(item))]
    return tuple(value)


def _split(text: str) -> list[str]:
    """Returns the parts between commas, but for those inside brackets: "crop, shift(x=1, y=2)"."""
    return [part.strip() for part in re.split(r",(?![^(]*\))", text) if part.strip()]
