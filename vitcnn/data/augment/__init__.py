"""Augmentations of training images, one in each file: adding a file is registering it.

A file of this folder has a constant `AUGMENTATION`, a frozen dataclass whose fields are the
arguments of the augmentation. It derives from `vitcnn.data.augmentation.Change`, or from `Geometry`
if it replaces the resizing and cropping of the model's own `Preprocess`.

A config names augmentations in the order of their use, with their arguments as in Python:

    config.augment = ("inception_crop", "flip", "randaugment(layers=2, magnitude=15)")

A flag gives the same as one text: --config.augment="inception_crop|flip|randaugment(2, 15)".
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image

from vitcnn import lookup
from vitcnn.convert import converted, split
from vitcnn.data.augmentation import Change, Geometry, Move
from vitcnn.data.preprocess import Preprocess, geometry_of
from vitcnn.lookup import REQUIRED, Field

Augmentations = tuple[Change | Geometry, ...]


def names() -> list[str]:
    """Returns the names of the augmentations."""
    return lookup.names_in(sys.modules[__name__])


def fields(name: str) -> dict[str, Field]:
    """Returns the arguments of an augmentation; a ValueError gives the nearest names.

    Args:
      name: a file of this folder, or a module elsewhere, such as "my_package.my_augmentation".
    """
    return lookup.fields_of(_augmentation(name))


def _augmentation(name: str) -> type[Change | Geometry]:
    return lookup.find("augmentation", sys.modules[__name__], name).AUGMENTATION


def parse(texts: str | Sequence[str]) -> Augmentations:
    """Returns the augmentations that a config names.

    Args:
      texts: names, or calls with literal arguments, such as "flip" and "pad_crop(2, mode='zero')".
        One text may hold several, separated by "|" or ",".

    Raises:
      ValueError: an augmentation or an argument does not exist (the message gives the nearest
        names), an argument is missing or has a wrong value, or a geometry does not come first.
    """
    texts = [texts] if isinstance(texts, str) else texts
    calls = [call for text in texts for call in split(text, "|,")]
    augmentations = tuple(_parse_call(call) for call in calls)
    for text, augmentation in zip(calls[1:], augmentations[1:], strict=True):
        if isinstance(augmentation, Geometry):
            raise ValueError(
                f"augmentation {text!r} comes after {calls[0]!r}: it crops the image as it is "
                "stored, so it has to come first, and there can be only one of its kind"
            )
    return augmentations


def _parse_call(text: str) -> Change | Geometry:
    """Returns the augmentation of one name or call."""
    name, values, keywords = _read(text)
    augmentation = _augmentation(name)
    arguments = lookup.fields_of(augmentation)
    owner = f"augmentation {name!r}"
    if len(values) > len(arguments):
        raise ValueError(
            f"{owner} has {len(arguments)} arguments ({', '.join(arguments)}), but {text!r} gives "
            f"{len(values)}"
        )
    chosen: dict[str, Any] = {}
    for argument, value in (*zip(arguments, values, strict=False), *keywords):
        lookup.check_name(f"argument of {owner}:", argument, arguments)
        if argument in chosen:
            raise ValueError(f"{text!r} gives {argument} twice")
        chosen[argument] = converted(value, arguments[argument], f"{argument} of {owner}")
    for argument, field in arguments.items():
        if field.default is REQUIRED and argument not in chosen:
            raise ValueError(f"{owner} needs {argument}: write {name}({argument}=...)")
    try:
        return augmentation(**chosen)
    except ValueError as error:
        raise ValueError(f"{owner}: {error}") from error


def _read(text: str) -> tuple[str, list[Any], list[tuple[str, Any]]]:
    """Returns (name, positional arguments, keyword arguments) of a name or call."""
    try:
        call = ast.parse(text, mode="eval").body
        values: list[ast.expr] = []
        keywords: list[ast.keyword] = []
        if isinstance(call, ast.Call):
            call, values, keywords = call.func, call.args, call.keywords
        name = ast.unparse(call)
        if not all(part.isidentifier() for part in name.split(".")):
            raise ValueError(name)
        return (
            name,
            [ast.literal_eval(value) for value in values],
            [(str(keyword.arg), ast.literal_eval(keyword.value)) for keyword in keywords],
        )
    except (SyntaxError, ValueError):
        raise ValueError(
            f"augmentation {text!r}: expected a name, or a call whose arguments are numbers, texts "
            "in quotes or tuples of these, such as flip or pad_crop(4, mode='reflect')"
        ) from None


def check(augmentations: Augmentations, preprocess: Preprocess) -> None:
    """Raises a ValueError if the images of a preprocessing cannot be augmented like this."""
    for augmentation in augmentations:
        if isinstance(augmentation, Geometry) and preprocess.size is None:
            raise ValueError(
                "preprocess.size is not set, which is the size of the crops of "
                f"{type(augmentation).__name__}"
            )
        augmentation.check(preprocess)


def augmented(
    image: UInt8[np.ndarray, "H W 3"] | Image.Image,
    preprocess: Preprocess,
    augmentations: Augmentations,
    rng: np.random.Generator,
) -> UInt8[np.ndarray, "h w 3"]:
    """Returns an image after its geometry and the changes that follow.

    Args:
      image: the image as it is stored.
      preprocess: the preprocessing of the model, whose geometry is used unless the first
        augmentation is one.
      augmentations: from `parse`.
      rng: the only source of randomness.
    """
    if augmentations and isinstance(augmentations[0], Geometry):
        geometry, *augmentations = augmentations
        image = geometry(np.asarray(image), preprocess, rng)
    else:
        image = geometry_of(image, preprocess)
    for change in augmentations:
        image = change(image, rng)
    return image


def on_host(augmentations: Augmentations) -> list[str]:
    """Returns the names of the augmentations that need the pixels, which devices cannot make."""
    return [
        type(each).__module__.rpartition(".")[2]
        for each in augmentations
        if not isinstance(each, Move)
    ]


def places(
    augmentations: tuple[Move, ...],
    height: int,
    width: int,
    generators: Sequence[np.random.Generator],
) -> tuple[Int64[np.ndarray, "n height"], Int64[np.ndarray, "n width"]]:
    """Returns which row and column each row and column of augmented images shows.

    It draws the same numbers as `augmented`, and the pixels at these places are the same images.

    Args:
      augmentations: none of which is `on_host`.
      height, width: of the images, in pixels.
      generators: the only source of randomness of each image.

    Returns:
      Numbers of rows and of columns; -1 is black.
    """
    drawn = [[each.draw(height, width, rng) for each in augmentations] for rng in generators]
    moved = tuple(np.tile(np.arange(side), (len(drawn), 1)) for side in (height, width))
    for augmentation, numbers in zip(augmentations, zip(*drawn, strict=True), strict=True):
        further = augmentation.places(np.array(numbers), height, width)
        moved = tuple(
            np.where(new < 0, -1, np.take_along_axis(old, new, 1))
            for old, new in zip(moved, further, strict=True)
        )
    return moved
