"""Sources of images: one a file; adding a file is registering it.

A source is a random-access object: `len(source)`; `source[i]` is `{"image": uint8 [H, W, 3],
"label": int}`, the label -1 where there is none; `source.labelled`, `source.classes` (None if
unlabelled) and `source.provenance` (a dictionary that JSON can hold) say what it is. It may have
`source.label(i)`, which need not read the image. Every file of this folder is one source, found by
its name, with one function `load(**fields)`.
"""

from __future__ import annotations

import inspect
import sys
from typing import Any

from vitcnn import lookup
from vitcnn.data.subset import few_shot, span

# Fields that every source has beside those of its `load`: which of its images to take.
PART = {"start": 0, "stop": None, "shots": 0, "draws": 1, "draw_seed": 0}


def names() -> list[str]:
    """Returns the names that `load` knows."""
    return lookup.names_in(sys.modules[__name__])


def load(name: str, /, **fields: Any) -> Any:
    """Opens a source of images by the name of its file: `load("scenes", size=1000)`.

    Args:
      name: a module of this folder (positional: a source may have a field `name` of its own).
      **fields: arguments of its `load`; those left out have the defaults that it documents. And
        which of its images to take: `start` and `stop` (images start to stop - 1), `shots` of each
        class, drawn `draws` times by `draw_seed`; see `vitcnn.data.subset`.

    Raises:
      ValueError: no such source, no such field, or a field without a default is missing (the
        message has the nearest names); or there are no such images.
    """
    lookup.check_name("data source", name, names())
    module = lookup.find("data source", sys.modules[__name__], name)
    parameters = inspect.signature(module.load).parameters
    for field in fields:
        lookup.check_name(f"field of data source {name!r}:", field, [*parameters, *PART])
    part = {**PART, **{k: fields.pop(k) for k in PART if k in fields}}
    missing = [
        field
        for field, parameter in parameters.items()
        if parameter.default is parameter.empty and field not in fields
    ]
    if missing:
        raise ValueError(
            f"data source {name!r} needs {', '.join(missing)}; "
            f"its fields are {', '.join(parameters)}"
        )
    source = module.load(**fields)
    if part["start"] or part["stop"] is not None:
        source = span(source, part["start"], part["stop"])
    if part["shots"]:
        source = few_shot(source, part["shots"], part["draws"], part["draw_seed"])
    return source
