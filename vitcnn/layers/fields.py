"""Checks of the values of fields that several families have."""

from __future__ import annotations

from collections.abc import Sequence


def check_probability(name: str, value: float) -> None:
    """Raises ValueError unless the field `name` is at least 0 and less than 1."""
    if not 0 <= value < 1:
        raise ValueError(f"{name} is {value}, expected a probability: at least 0 and less than 1")


def check_numbers(name: str, numbers: Sequence[int], count: int, parts: str) -> None:
    """Raises ValueError unless the field `name` lists some of `count` parts, counted from 0.

    Args:
      name: the field.
      numbers: its value.
      count: how many parts the network has.
      parts: what they are, "blocks" or "units".
    """
    if any(not 0 <= number < count for number in numbers):
        raise ValueError(f"{name} is {tuple(numbers)}, but {parts} are 0 to {count - 1}")
