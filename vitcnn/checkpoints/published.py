"""Weights that libraries have published, known by a part of their SHA-256.

A bare .pth does not say how its images were normalised, but its library does: `published.tsv` has
the preprocessing of the files whose names end in the first eight digits of their SHA-256, such as
"resnet50-11ad3fa6.pth". scripts/list_published.py wrote it from timm and torchvision.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import pathlib
import re
from collections.abc import Mapping
from typing import Any

_TABLE = pathlib.Path(__file__).with_name("published.tsv")


@dataclasses.dataclass(frozen=True)
class Published:
    """What the library of published weights documents.

    Attributes:
      origin: library and name of the weights, such as "torchvision's resnet50.IMAGENET1K_V2".
      name: name of the weights in the library, such as "resnet50.IMAGENET1K_V2".
      is_certain: whether the content of the file has the SHA-256; else only the name has it.
      preprocess: fields of `vitcnn.data.preprocess.Preprocess`.
    """

    origin: str
    name: str
    is_certain: bool
    preprocess: Mapping[str, Any]


@functools.cache
def _table() -> dict[str, dict[str, str]]:
    with _TABLE.open(newline="", encoding="utf-8") as lines:
        return {row["sha256"]: row for row in csv.DictReader(lines, delimiter="\t")}


def find(path: pathlib.Path, sha256: str) -> Published | None:
    """Returns what is documented of a file of weights, None if no library has published it.

    Args:
      path: the file; its name counts where its content is not known.
      sha256: of its content.
    """
    in_name = re.search(r"-([0-9a-f]{8})$", path.stem)
    digits = sha256[:8]
    if digits not in _table():
        digits = in_name[1] if in_name else ""
    if (row := _table().get(digits)) is None:
        return None
    size = int(row["size"])
    preprocess = {
        "size": (size, size),
        "resize": int(row["resize"]) or None,
        "interpolation": row["interpolation"],
        **{name: tuple(map(float, row[name].split(","))) for name in ("mean", "std")},
    }
    origin = f"{row['library']}'s {row['name']}"
    return Published(origin, row["name"], sha256.startswith(digits), preprocess)
