"""Subset: a part of a source: a range of its images, a share of them, or a few of each class.

A share (`fraction` or `count`) is stratified and nested. One order of all images depends on
`subset_seed`, and a share is a beginning of this order. The order takes the images of a class at
random, and the classes in turn, as Webster's method hands out the seats of a parliament: image j of
the n images of a class has the place (j + 1/2) / n, and ties are broken at random. So a share has
of every class the same share, but for rounding, and it has all images of a smaller share.

A draw (`draws`, `draw_seed`) is one random choice of few-shot images; each draw adds images to the
source. A repeat (`repeats` of an analysis) is one random order in which a source is measured; it
adds no images. So a source of 5 draws measured with 2 repeats is measured twice, each time whole.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64
from tqdm import tqdm

from vitcnn.data import content
from vitcnn.data.order import generator, order


class Part:
    """A source made of some images of another.

    Args:
      source: the other source.
      indices: indices of the images in the other source, in their order here.
      choice: how the images were chosen, for provenance.
      draws: number of few-shot draws, which follow each other and are of equal size.
    """

    def __init__(
        self, source: Any, indices: Sequence[int], choice: Mapping[str, Any], draws: int = 1
    ):
        self._source = source
        self._indices = indices
        self.draws = draws
        self.labelled = source.labelled
        self.class_names = getattr(source, "class_names", None)
        self.most_boxes = getattr(source, "most_boxes", 0)
        self.cue_classes = getattr(source, "cue_classes", {})
        self.decodes = getattr(source, "decodes", False)
        self.provenance = {
            **source.provenance,
            "part": {**source.provenance.get("part", {}), **choice},
        }

    @property
    def classes(self) -> int | None:
        """Number of classes of the whole source, whether or not all have images here."""
        return self._source.classes

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return self._source[int(self._indices[i])]

    def opened(self, i: int) -> dict[str, Any]:
        """Returns example i with its image as the source opens it."""
        return opened(self._source, int(self._indices[i]))

    def label(self, i: int) -> int:
        """Returns the label of image i."""
        return label_of(self._source, int(self._indices[i]))

    def digests(self, indices: Sequence[int]) -> list[str]:
        """Returns a digest of each image; see `vitcnn.data.content`."""
        return content.digests(self._source, [int(self._indices[i]) for i in indices])


def opened(source: Any, i: int) -> dict[str, Any]:
    """Returns example i with an array, or a Pillow image where the source decodes with Pillow."""
    return source.opened(i) if hasattr(source, "opened") else source[i]


def label_of(source: Any, i: int) -> int:
    """Returns the label of image i; the image is not read if the source has `label`."""
    return source.label(i) if hasattr(source, "label") else source[i]["label"]


def subset(
    source: Any,
    start: int = 0,
    stop: int | None = 0,
    fraction: float = 0.0,
    count: int = 0,
    subset_seed: int = 0,
    shots: int = 0,
    draws: int = 1,
    draw_seed: int = 0,
) -> Any:
    """Returns some of the images of a source, or the source itself if nothing is chosen.

    Args:
      source: the images.
      start: index of the first image to take.
      stop: index after the last image to take; 0 takes all to the end.
      fraction: share of the images between `start` and `stop` to take, of every class alike; 0 and
        1 take all. A larger share of the same seed has all images of a smaller one.
      count: number of images to take in this way, in place of `fraction`; 0 takes all.
      subset_seed: seed of the choice of `fraction` or `count`.
      shots: number of images to draw of each class, from those chosen so far; 0 takes all.
      draws: number of times that `shots` images are drawn; the draws follow each other.
      draw_seed: seed of the draws.

    Raises:
      ValueError: the source has no such images.
    """
    if start or stop:
        source = subrange(source, start, stop or None)
    if fraction or count:
        source = stratified(source, fraction, count, subset_seed)
    return few_shot(source, shots, draws, draw_seed) if shots else source


def subrange(source: Any, start: int = 0, stop: int | None = None) -> Part:
    """Returns images `start` to `stop` - 1 of a source.

    Raises:
      ValueError: the source has no such images.
    """
    n = len(source)
    stop = n if stop is None else stop
    if not 0 <= start < stop <= n:
        raise ValueError(
            f"data.start = {start} and data.stop = {stop}: expected 0 <= start < stop <= {n}, the "
            "number of images"
        )
    return Part(source, range(start, stop), {"start": start, "stop": stop})


def stratified(source: Any, fraction: float = 0.0, count: int = 0, seed: int = 0) -> Any:
    """Returns a stratified share of the images of a source, in their order in the source.

    Args:
      source: the images; those without labels count as one class.
      fraction: share to take, above 0 and at most 1; the number of images is rounded.
      count: number of images to take, in place of `fraction`.
      seed: of the choice.

    Returns:
      The images, or the source itself if the share is all of it.

    Raises:
      ValueError: the share is empty, or larger than the source; or both `fraction` and `count` are
        set.

    Warns:
      UserWarning: classes with images have none in the share.
    """
    n = len(source)
    if fraction and count:
        raise ValueError(
            f"data.fraction = {fraction:g} and data.count = {count}: set one of them, and the "
            "other to 0"
        )
    if not 0 <= fraction <= 1:
        raise ValueError(f"data.fraction = {fraction:g}: expected a share above 0, at most 1")
    if not 0 <= count <= n:
        raise ValueError(f"data.count = {count}: expected 1 to {n}, the number of images")
    images = count or math.floor(fraction * n + 0.5)
    if not images:
        raise ValueError(
            f"data.fraction = {fraction:g} of {n} images is less than one image: set it to at "
            f"least {1 / max(n, 1):.2g}, or set data.count"
        )
    if images == n:
        return source
    bar = tqdm(range(n), "reading the labels", delay=2)
    labels = np.array([label_of(source, i) for i in bar], np.int64)
    indices = sorted(_order(labels, seed)[:images].tolist())
    empty = np.setdiff1d(labels, labels[indices]).tolist()
    setting = f"data.fraction = {fraction:g}" if fraction else f"data.count = {count}"
    if empty:
        warnings.warn(
            f"{setting}: {len(empty)} of {len(set(labels.tolist()))} classes lose all their images "
            f"({_some(empty)})",
            stacklevel=3,
        )
    choice = {"fraction": fraction} if fraction else {}
    return Part(source, indices, {**choice, "count": images, "subset_seed": seed})


def _order(labels: Int64[np.ndarray, " n"], seed: int) -> Int64[np.ndarray, " n"]:
    """Returns all indices, in an order whose beginnings have of every class its share."""
    # Two words, the first of them 1: neither `permutation` nor an augmentation has such a key.
    drawn = generator(seed, 1, 0).permutation(len(labels))
    by_class = np.argsort(labels[drawn], kind="stable")  # in each class as they were drawn
    sizes = np.unique(labels, return_counts=True)[1]
    place = np.empty(len(labels))
    place[by_class] = np.concatenate([(np.arange(size) + 0.5) / size for size in sizes])
    return drawn[np.argsort(place, kind="stable")]


def few_shot(source: Any, shots: int, draws: int = 1, seed: int = 0) -> Part:
    """Returns `shots` images of each class, drawn `draws` times; the draws follow each other.

    Image i belongs to draw i // (shots * classes with images). Draw d takes the first images of
    each class in the permutation of (seed, d), so the images of 5 shots are among those of 10 shots
    of the same draw. An image may be in several draws.

    Args:
      source: labelled images.
      shots: images of each class in a draw.
      draws: number of draws.
      seed: of the permutations.

    Raises:
      ValueError: the source has no labels, or a class with images has fewer.

    Warns:
      UserWarning: classes have no images at all; no draw has any of them.
    """
    if shots < 1 or draws < 1:
        raise ValueError(f"data.shots = {shots}, data.draws = {draws}: expected 1 or more")
    if not source.labelled:
        raise ValueError(f"data.shots = {shots} needs labels, which the data do not have")
    chosen: list[int] = []
    by_class: dict[int, list[int]] = {c: [] for c in range(source.classes)}
    for draw in range(draws):
        by_class = {c: [] for c in by_class}
        missing = shots * len(by_class)
        for i in order(len(source), None, seed, draw).tolist():
            label = label_of(source, i)
            if label >= source.classes:
                raise ValueError(
                    f"image {i} has label {label}, but the data have {source.classes} classes"
                )
            if label in by_class and len(by_class[label]) < shots:
                by_class[label].append(i)
                missing -= 1
                if not missing:
                    break
        if draw == 0:
            by_class = _with_images(by_class, shots)
        chosen += [i for images in by_class.values() for i in images]
    return Part(source, chosen, {"shots": shots, "draws": draws, "draw_seed": seed}, draws)


def _with_images(by_class: Mapping[int, list[int]], shots: int) -> dict[int, list[int]]:
    """Returns the classes that have images, with a warning that names the others.

    Raises:
      ValueError: a class has images, but fewer than `shots`; or none has any.
    """
    present = {c: images for c, images in by_class.items() if images}
    poor = {c: images for c, images in present.items() if len(images) < shots}
    if poor or not present:
        poorest = min(poor, key=lambda c: len(poor[c]), default=None)
        most = len(poor[poorest]) if poor else 0
        remedy = f"class {poorest} only {most}; set data.shots to at most {most}" if poor else "0"
        raise ValueError(
            f"data.shots = {shots}: {len(poor) or len(by_class)} of {len(by_class)} classes have "
            f"fewer images, {remedy}"
        )
    absent = [c for c in by_class if c not in present]
    if absent:
        warnings.warn(
            f"data.shots = {shots}: {len(absent)} of {len(by_class)} classes have no images "
            f"({_some(absent)}), so each draw has {shots} images of the other {len(present)}",
            stacklevel=3,
        )
    return present


def _some(classes: Sequence[int]) -> str:
    return ", ".join(map(str, classes[:5])) + (" ..." if len(classes) > 5 else "")
