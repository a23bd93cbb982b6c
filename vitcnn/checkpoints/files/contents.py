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
    """

    arrays: Mapping[str, np.ndarray]
    architecture: str | None = None
    network: str | None = None


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


def json_object(text: bytes | str) -> Any:
    """Returns parsed JSON.

    Raises:
      ValueError: the text is not JSON, or an object has a key twice.
    """
    return json.loads(text, object_pairs_hook=distinct)
