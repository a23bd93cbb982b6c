"""Classes: what the numbers of labels mean, and how the classes of images meet those of a head.

Labels are numbers. Where the names of the classes are known, two numberings are compared by name,
so that the images of ten of the thousand classes of ImageNet find the ten right logits. Where the
names of one side are unknown, the numbers of classes are compared.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import pathlib
import re
import unicodedata
import warnings
from collections.abc import Sequence
from typing import Any

from vitcnn.lookup import nearest

SYNSET = re.compile(r"n\d{8}")  # the id of a class of ImageNet
SPLITS = ("train", "training", "val", "valid", "validation", "test", "testing", "eval", "dev")


def nfc(name: str) -> str:
    """Returns a name in the Unicode form NFC; macOS writes accents in another form than editors."""
    return unicodedata.normalize("NFC", name)


@functools.cache
def imagenet_synsets() -> tuple[str, ...]:
    """Returns the synset ids of the classes of ImageNet-1k, in the order of their numbers.

    The list is that of ILSVRC 2012 (Russakovsky et al. 2015): the ids of WordNet 3.0, sorted.
    """
    return tuple(pathlib.Path(__file__).with_name("imagenet_synsets.txt").read_text().split())


@dataclasses.dataclass(frozen=True)
class Classes:
    """The classes of images, or of the logits of a head.

    Attributes:
      count: number of classes; a label is below it.
      names: name of each class, "" where it is unknown; () if no names are known.
    """

    count: int
    names: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every class has a name; then there are no more classes than `count`."""
        return bool(self.names) and all(self.names)


@dataclasses.dataclass(frozen=True)
class Match:
    """How the classes of images meet other classes.

    Attributes:
      compared_by: what the comparison rests on, for provenance.
      count: number of the other classes.
      numbers: for each class of the images, its number among the other classes, -1 for a class
        that no image has; None if the numbers are the same.
    """

    compared_by: str
    count: int
    numbers: tuple[int, ...] | None = None


def of(source: Any) -> Classes:
    """Returns the classes of a labelled source."""
    names = tuple(getattr(source, "class_names", None) or ())
    return Classes(source.classes, named(names))


def named(names: Sequence[str]) -> tuple[str, ...]:
    """Returns the names of classes in one Unicode form, () if they are only the numbers again."""
    names = tuple(nfc(str(name)) for name in names)
    return () if all(name in ("", str(i)) for i, name in enumerate(names)) else names


def match(images: Classes, other: Classes, what: str, mismatch: str) -> Match:
    """Compares the classes of images with those of a head or of a fit.

    Args:
      images: the classes of the images.
      other: the classes of the head or of the fit. 1000 classes without names are those of
        ImageNet-1k if the names of the classes of the images are synset ids.
      what: what messages call the other classes, such as "the classes of the fit".
      mismatch: the message if the numbers of classes do not fit.

    Raises:
      ValueError: the images have a class that the other side lacks; or the numbers of classes do
        not fit, and the names of one side are unknown.
    """
    compared_by = "names"
    known = [name for name in images.names if name]
    if not other.names and other.count == 1000 and known and all(map(SYNSET.fullmatch, known)):
        other = Classes(1000, imagenet_synsets())
        compared_by = "synset ids of ImageNet-1k"
    if images.names and other.names:
        return Match(compared_by, other.count, _numbers(images.names, other.names, what))
    # Without names on one side, class k has to be class k. A complete list of names says how many
    # classes there are, whereas the largest label is only a bound.
    exact = images.complete or other.complete
    if images.count > other.count:
        raise ValueError(mismatch)
    if exact and images.count != other.count:
        raise ValueError(
            f"{mismatch}, or add the classes that are missing (an empty folder counts): names of "
            "the classes are known on one side only, so the numbers of classes have to agree"
        )
    if exact and images.count == 1000 and images.names == tuple(sorted(images.names)):
        warnings.warn(
            f"the 1000 classes are numbered in the order of their names ({known[0]!r} first), and "
            f"the names of {what} are not known: ImageNet's order is that of the synset ids",
            stacklevel=3,
        )
    return Match("number of classes" if exact else "numbers of the labels", other.count)


def _numbers(names: Sequence[str], others: Sequence[str], what: str) -> tuple[int, ...] | None:
    """Returns the number of each name among the others; None if it is its own number.

    Raises:
      ValueError: a name is not among the others, or is there twice.
    """
    if tuple(names) == tuple(others):
        return None
    lacking = [name for name in names if name and name not in set(others)]
    if lacking:
        some = ", ".join(map(repr, lacking[:5])) + (" ..." if len(lacking) > 5 else "")
        raise ValueError(
            f"{len(lacking)} of the {len(names)} classes of the images are not among {what}: "
            f"{some}; {nearest(lacking[0], [*filter(None, others)])}; use data of the same classes "
            "for both, or give the classes the same names"
        )
    counts = collections.Counter(others)
    twice = [name for name in names if name and counts[name] > 1]
    if twice:
        raise ValueError(
            f"several of {what} are called {twice[0]!r}: give each class a name of its own"
        )
    number = {name: i for i, name in enumerate(others) if name}
    numbers = tuple(number[name] if name else -1 for name in names)
    same = all(number in (-1, i) for i, number in enumerate(numbers))
    return None if same else numbers


def of_folders(folders: Sequence[str], where: str) -> tuple[dict[str, int], tuple[str, ...]]:
    """Numbers folders that are classes.

    Whole numbers are the numbers of their classes. Other names are sorted, and the first is class
    0, as in torchvision.

    Args:
      folders: names of the folders.
      where: what messages call the folder that holds them.

    Returns:
      (folder -> number, names of the classes by number, () where the folders are numbers).

    Raises:
      ValueError: the folders are splits, or two folders are one class.
    """
    splits = [folder for folder in folders if folder.lower() in SPLITS]
    if len(splits) > 1:
        raise ValueError(
            f"{where} holds the splits {', '.join(splits)}, which are not classes: give the path "
            f"of one of them, such as {splits[0]!r}"
        )
    integers = [folder for folder in folders if re.fullmatch(r"-?[0-9]+", folder)]
    if len(integers) == len(folders):
        return _of_integers(folders, where), ()
    if integers:
        warnings.warn(
            f"some but not all folders in {where} are whole numbers ({', '.join(integers[:5])}): "
            "all count as names, in the order of their characters",
            stacklevel=3,
        )
    names: dict[str, str] = {}  # name in one Unicode form -> folder
    for folder in folders:
        name = nfc(folder)
        if name in names:
            raise ValueError(
                f"{where} has two folders called {name!r}, in two Unicode forms: merge them"
            )
        names[name] = folder
    order = sorted(names)
    _warn_of_look_alikes(order, where)
    return {names[name]: i for i, name in enumerate(order)}, tuple(order)


def _of_integers(folders: Sequence[str], where: str) -> dict[str, int]:
    numbers: dict[int, str] = {}
    for folder in folders:
        number = int(folder)
        if number < 0 or folder.startswith("-"):
            raise ValueError(f"folder {folder!r} in {where}: a class number is 0 or more")
        if number in numbers:
            raise ValueError(
                f"the folders {numbers[number]!r} and {folder!r} in {where} are both class "
                f"{number}: merge or rename them"
            )
        numbers[number] = folder
    gaps = max(numbers) + 1 - len(numbers)
    if gaps:
        first = next(number for number in range(max(numbers)) if number not in numbers)
        warnings.warn(
            f"the folders in {where} are numbers from {min(numbers)} to {max(numbers)}, and so "
            f"are the classes; {gaps} smaller numbers have no folder, the first of them {first}",
            stacklevel=4,
        )
    return {folder: number for number, folder in numbers.items()}


def _warn_of_look_alikes(order: Sequence[str], where: str) -> None:
    """Warns of names whose order or difference a reader may not expect."""
    by_lower: dict[str, str] = {}
    for name in order:
        other = by_lower.setdefault(name.casefold(), name)
        if other != name:
            warnings.warn(
                f"the folders {other!r} and {name!r} in {where} differ in case alone, and are two "
                "classes",
                stacklevel=4,
            )
    numbered: dict[str, list[int]] = {}  # what surrounds the number -> the numbers, in order
    for name in order:
        # Ids such as n01440764 have one length, so their two orders are the same.
        parts = re.fullmatch(r"(\D*)([0-9]+)(\D*)", name)
        if parts:
            numbered.setdefault(f"{parts[1]}*{parts[3]}", []).append(int(parts[2]))
    for pattern, numbers in numbered.items():
        if numbers != sorted(numbers):
            warnings.warn(
                f"the folders {pattern} in {where} are classes in the order of their characters, "
                "as in torchvision (10 comes before 2), not of their numbers; name them by whole "
                "numbers alone, or with leading zeros, if the numbers are meant",
                stacklevel=4,
            )


def statement(met: Match, source: Any) -> dict[str, Any]:
    """Returns what provenance says of how the classes of a source meet others."""
    if met.numbers is None:
        return {"compared_by": met.compared_by}
    pairs = zip(of(source).names, met.numbers, strict=True)
    return {"compared_by": met.compared_by, "numbers": {name: n for name, n in pairs if name}}
