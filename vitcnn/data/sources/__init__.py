"""Sources of images, one in each file: adding a file is registering it.

A file of this folder has a function `load(**fields)` that returns a source, which has

- `len(source)`, the number of images;
- `source[i]`, `{"image": uint8 [H, W, 3], "label": int}`; the label is -1 if the image has none;
- `source.labelled`, whether it has labels;
- `source.classes`, the number of classes, None without labels;
- `source.provenance`, a dictionary that JSON can hold, which says what the source is;
- optionally `source.label(i)`, which returns a label without reading the image;
- optionally `source.class_names`, the names of the classes by label;
- optionally `source.most_boxes`, the greatest number of objects of an image; `source[i]` then has
  "boxes", float32 [objects, 4]: the top, left, bottom and right of each, in parts of the image;
- optionally `source.cue_classes`, name of a cue -> number of its classes; `source[i]` then has
  "cues", name of a cue -> its class in the image, such as the texture, which need not be the label;
- optionally `source.decodes`, whether it decodes images when it reads them, so that reading pays
  in processes of its own;
- optionally `source.opened(i)`, which is `source[i]` with a `PIL.Image.Image` in mode RGB in place
  of the array: two copies fewer for an image that is decoded and then resized;
- optionally `source.digests(indices)`, a text for each image that changes with its pixels and its
  label. Results belong to these texts. Without the method, every image is read once for them before
  a run.

Fields that say only where the images are, so that a copy elsewhere is the same source, are named in
a tuple `LOCATION` of the file.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from vitcnn import lookup
from vitcnn.data.subset import subset
from vitcnn.lookup import REQUIRED, Field


def names() -> list[str]:
    """Returns the names of the sources."""
    return lookup.names_in(sys.modules[__name__])


def fields(name: str) -> dict[str, Field]:
    """Returns the fields of a source: those of its `load`, and those of `subset`.

    Args:
      name: a file of this folder, or a module elsewhere, such as "my_package.my_source".

    Raises:
      ValueError: there is no such source; the message gives the nearest names.
    """
    return {**lookup.fields_of(_file(name).load), **lookup.fields_of(subset, ("source",))}


def location(name: str) -> tuple[str, ...]:
    """Returns the fields of a source that say only where its images are."""
    return getattr(_file(name), "LOCATION", ())


def _file(name: str) -> ModuleType:
    return lookup.find("data source", sys.modules[__name__], name)


def load(name: str, /, **values: Any) -> Any:
    """Opens a source of images by its name: `load("scenes", size=1000)`.

    Args:
      name: a file of this folder, or a module elsewhere, such as "my_package.my_source". It is
        positional, because a source may have a field `name` of its own.
      **values: arguments of the source's `load` and of `vitcnn.data.subset.subset`.

    Raises:
      ValueError: the source or a field does not exist (the message gives the nearest names), a
        field without a default is missing, or the source has no such images.
    """
    known_fields = fields(name)
    for field in values:
        lookup.check_name(f"field of data source {name!r}:", field, known_fields)
    missing = [
        field_name
        for field_name, field in known_fields.items()
        if field.default is REQUIRED and field_name not in values
    ]
    if missing:
        raise ValueError(
            f"data source {name!r} needs {', '.join(missing)}; its fields are "
            f"{', '.join(known_fields)}"
        )
    subset_fields = lookup.fields_of(subset)
    source = _file(name).load(**{k: v for k, v in values.items() if k not in subset_fields})
    return subset(source, **{k: v for k, v in values.items() if k in subset_fields})
