"""Reads weights in shards: several files, and an index that says which of them has which array.

Hugging Face writes "model.safetensors.index.json" and "pytorch_model.bin.index.json" for weights
above a few gigabytes.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable

from vitcnn.checkpoints.files.contents import Contents, json_object


def names(index: pathlib.Path) -> dict[str, str]:
    """Returns key -> name of the shard that has the array.

    Raises:
      ValueError: the file is no such index, or names a file outside of its own folder.
    """
    try:
        content = json_object(index.read_bytes())
        places = dict(content["weight_map"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{index.name} is not the index of weights in shards, which has a 'weight_map' from "
            f"arrays to files: {error}"
        ) from error
    for shard in places.values():
        if not isinstance(shard, str) or pathlib.PurePath(shard).name != shard:
            raise ValueError(f"{index.name} names the shard {shard!r}: expected a file beside it")
    if not places:
        raise ValueError(f"{index.name} names no array")
    return places


def read(index: pathlib.Path, open_file: Callable[[pathlib.Path], Contents]) -> Contents:
    """Reads every array of all shards.

    Args:
      index: the index; the shards are beside it.
      open_file: reads one shard.

    Raises:
      FileNotFoundError: a shard is missing.
      ValueError: the index is damaged, or a shard does not hold what the index says.
    """
    places = names(index)
    arrays, types, architecture = {}, set(), None
    for shard in sorted(set(places.values())):
        path = index.parent / shard
        if not path.is_file():
            raise FileNotFoundError(f"{index.name} names the shard {shard}, which is not beside it")
        contents = open_file(path)
        expected = {key for key, name in places.items() if name == shard}
        if differing := expected ^ contents.arrays.keys():
            key = min(differing)
            has = "lacks" if key in expected else "also has"
            raise ValueError(f"{shard} {has} the array {key!r}, unlike what {index.name} says")
        arrays |= contents.arrays
        types |= set(contents.types)
        architecture = architecture or contents.architecture
    return Contents(arrays, architecture, types=tuple(sorted(types)))
