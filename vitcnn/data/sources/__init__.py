"""Sources of images: one a file; adding a file is registering it.

A source is a random-access object: `len(source)`; `source[i]` is `{"image": uint8 [H, W, 3],
"label": int}`, the label -1 where there is none; `source.labelled`, `source.classes` (None if
unlabelled) and `source.provenance` (a dictionary that JSON can hold) say what it is. It may have
`source.label(i)`, which need not read the image. Every file of this folder is one source, found by
its name, with one function `load(**fields)`.
"""

from __future__ import annotations

import sys
from typing import Any

from vitcnn import lookup
from vitcnn.data.subset import subset
from vitcnn.lookup import REQUIRED, Field


def names() -> list[str]:
    """Returns the names that `load` knows."""
    return lookup.names_in(sys.modules[__name__])


def fields(name: str) -> dict[str, Field]:
    """Returns the fields of a source: those of its `load`, and which of its images to take.

    Args:
      name: a file of this folder, or a module outside of it, "my_package.my_source".

    Raises:
      ValueError: there is no such source; the message gives the nearest names.
    """
    module = lookup.find("data source", sys.modules[__name__], name)
    return {**lookup.fields_of(module.load), **lookup.fields_of(subset, ("source",))}


def load(name: str, /, **values: Any) -> Any:
    """Opens a source of images by its name: `load("scenes", size=1000)`.

    Args:
      name: a file of this folder, or a module outside of it, "my_package.my_source" (positional:
        a source may have a field `name` of its own).
      **values: arguments of its `load` and of `vitcnn.data.subset.subset`; those that are left out
        have their defaults.

    Raises:
      ValueError: no such source, no such field, or a field without a default is missing (the
        message has the nearest names); or there are no such images.
    """
    known = fields(name)
    for field in values:
        lookup.check_name(f"field of data source {name!r}:", field, known)
    missing = [f for f in known if known[f].default is REQUIRED and f not in values]
    if missing:
        raise ValueError(
            f"data source {name!r} needs {', '.join(missing)}; its fields are {', '.join(known)}"
        )
    module = lookup.find("data source", sys.modules[__name__], name)
    part = lookup.fields_of(subset)
    source = module.load(**{k: v for k, v in values.items() if k not in part})
    return subset(source, **{k: v for k, v in values.items() if k in part})
