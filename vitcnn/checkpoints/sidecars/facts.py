"""Facts: a JSON object of which every key has to be understood."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

from vitcnn.checkpoints.files.contents import json_object
from vitcnn.lookup import nearest


@dataclasses.dataclass(frozen=True)
class Rule:
    """What a value may be.

    Attributes:
      fits: whether a value is allowed.
      expected: the allowed values in words, for the error.
      default: the value of the library where the key is absent or null; None if it is required.
    """

    fits: Callable[[Any], bool]
    expected: str
    default: Any = None


class Facts:
    """A JSON object whose keys are taken one by one, until none is left.

    Attributes:
      file: name of the JSON file, for errors.
    """

    def __init__(self, file: str, content: Mapping[str, Any]):
        self.file = file
        self._content = dict(content)
        self._taken: set[str] = set()

    def take(self, name: str, rule: Rule) -> Any:
        """Returns the value of a key, or the default of its rule if it is absent or null.

        Raises:
          ValueError: the value does not fit.
        """
        value = self.get(name)
        value = rule.default if value is None else value
        if not rule.fits(value):
            problem = "is missing" if value is None else f"is {value!r}"
            raise ValueError(
                f"{self.file} beside the weights: {name} {problem}; expected {rule.expected}"
            )
        return value

    def get(self, name: str) -> Any:
        """Returns the value of a key, None if it is absent; any value is allowed."""
        self._taken.add(name)
        return self._content.get(name)

    def given(self, names: Mapping[str, str], rule: Rule) -> dict[str, Any]:
        """Returns our name -> value of those keys that are there and not null; lists as tuples.

        Args:
          names: key -> our name.
          rule: what the values may be.

        Raises:
          ValueError: a value does not fit.
        """
        values = {
            ours: self.take(key, rule) for key, ours in names.items() if self.get(key) is not None
        }
        return {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}

    def only(self, values: Mapping[str, Collection[Any]]) -> None:
        """Takes keys that may be absent, null, or one of a few values.

        Raises:
          ValueError: one has another value, so that the network computes something else.
        """
        for name, allowed in values.items():
            value = self.get(name)
            if value is not None and value not in allowed:
                shown = " or ".join(map(repr, allowed)) or None
                raise ValueError(
                    f"{self.file} beside the weights: {name} is {value!r}; expected {shown}, since "
                    "vitcnn has no other such network"
                )

    def ignore(self, names: Collection[str]) -> None:
        """Takes keys that do not change what a trained network computes."""
        self._taken |= set(names)

    def finish(self) -> None:
        """Raises ValueError if a key is left that nobody has taken, unless it is null."""
        left = [k for k, v in self._content.items() if k not in self._taken and v is not None]
        if left := [name for name in left if not name.startswith("_")]:
            name = left[0]
            hint = nearest(name, sorted(self._taken), 1)
            hint = f" ({hint})" if hint.startswith("did you mean") else ""
            raise ValueError(
                f"{self.file} beside the weights: vitcnn does not know what {name} "
                f"{_short(self._content[name])} changes in the network{hint}; remove the key from "
                "the file if it changes nothing"
            )

    def unsupported(self, request: str) -> ValueError:
        """Returns the error about something that vitcnn does not support."""
        return ValueError(
            f"{self.file} beside the weights asks for {request}, which vitcnn does not support; "
            "change the file if it is wrong, or move it away and pass preprocess=Preprocess(...)"
        )


def parse(text: bytes, name: str) -> dict[str, Any]:
    """Returns the JSON object of a file.

    Raises:
      ValueError: the file holds no JSON object, or an object has a key twice.
    """
    try:
        content = json_object(text.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} beside the weights is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{name} beside the weights holds a {type(content).__name__}, expected an object"
        )
    return content


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def one_of(values: tuple[str, ...], default: str) -> Rule:
    """Returns the rule of a key with a few values."""
    return Rule(lambda v: v in values, f"one of {values}", default)


def finite(value: Any) -> bool:
    """Whether a value is a finite number."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and math.isfinite(value)


def positive(value: Any) -> bool:
    """Whether a value is a finite number above 0."""
    return finite(value) and value > 0


def whole(value: Any) -> bool:
    """Whether a value is an integer above 0."""
    return type(value) is int and value > 0


def three(value: Any, fits: Callable[[Any], bool]) -> bool:
    """Whether a value is a list of three items that fit."""
    return isinstance(value, list) and len(value) == 3 and all(map(fits, value))


def _is_side(value: Any) -> bool:
    """Whether a value is a side in pixels, or (rows, columns)."""
    pair = isinstance(value, (list, tuple)) and len(value) == 2 and all(map(whole, value))
    return whole(value) or pair


FLAG = Rule(lambda v: isinstance(v, bool), "true or false")
COUNT = Rule(whole, "an integer above 0")
SIDE = Rule(_is_side, "pixels, a number or [height, width]")
COUNTS = Rule(lambda v: isinstance(v, list) and all(map(whole, v)), "a list of integers above 0")
