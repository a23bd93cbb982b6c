"""What a checkpoint file holds."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Contents:
    """What a checkpoint file holds.

    Attributes:
      arrays: every array by its key.
      architecture: name of the network as the training script wrote it; None if it did not.
      network: which of several networks in the file these arrays are, such as "state_dict_ema" of
        "state_dict" and "state_dict_ema"; None if the file holds one network.
      types: the types of floats that were cast to float32, such as ("bfloat16",).
    """

    arrays: Mapping[str, np.ndarray]
    architecture: str | None = None
    network: str | None = None
    types: tuple[str, ...] = ()


def distinct(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Returns a dictionary of pairs (name, value).

    Raises:
      ValueError: two pairs have one name, so that one value would silently replace the other.
    """
    names: dict[str, Any] = {}
    for name, value in pairs:
        if name in names:
            raise ValueError(f"{name!r} stands there twice")
        names[name] = value
    return names


def renamed(names: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Returns our name -> key of the file.

    Args:
      names: (our name, key of the file).

    Raises:
      ValueError: two keys have one name of ours: the file holds several networks, or one array
        under two names. The message lists both.
    """
    keys: dict[str, str] = {}
    for name, key in names:
        if name in keys:
            raise ValueError(
                f"{keys[name]!r} and {key!r} would both be {name!r}, and nothing says which one is "
                "meant: save the network that is meant alone"
            )
        keys[name] = key
    return keys


def one_network(
    arrays: Mapping[str, np.ndarray], names: Mapping[str, tuple[str, bool]], average: bool
) -> tuple[dict[str, np.ndarray], str | None]:
    """Returns the arrays of one network where a file holds a network and its moving average.

    Args:
      arrays: by the keys of the file.
      names: key -> (name without prefixes, whether one of them is the prefix of an average).
      average: whether the moving average is meant.

    Returns:
      (arrays, which network they are); all arrays and None where no array has an average.
    """
    plain = {name for name, is_average in names.values() if not is_average}
    averaged = {name for name, is_average in names.values() if is_average}
    if not plain & averaged:
        return dict(arrays), None
    chosen = {key: arrays[key] for key, (_, is_average) in names.items() if is_average == average}
    network = "moving average" if average else "weights"
    return chosen, f"the {network} of weights and their moving average"


def json_object(text: bytes | str) -> Any:
    """Returns parsed JSON.

    Raises:
      ValueError: the text is not JSON, or an object has a key twice.
    """
    return json.loads(text, object_pairs_hook=distinct)
