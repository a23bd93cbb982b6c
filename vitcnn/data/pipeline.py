"""Pipeline: reads groups of images to measure and batches to train on, ahead of their use.

A pool of threads or processes loads the images. Its size changes nothing: every order and every
augmentation is a pure function of a seed and a position.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int32, Int64
from PIL import Image

from vitcnn.data import augment as augmentations
from vitcnn.data.order import generator, permutation
from vitcnn.data.pool import load_ahead, workers_of_machine
from vitcnn.data.preprocess import Preprocess, geometry_of, stack
from vitcnn.data.subset import opened


def groups(
    source: Any,
    preprocesses: Mapping[str, Preprocess],
    indices: Sequence[Int64[np.ndarray, " _"]],
    threads: int | None = None,
    workers: int | None = None,
    prefetch: int = 4,
    needs: Collection[str] = (),
) -> Iterator[dict[str, Any]]:
    """Yields groups of images, in the order of `indices`.

    Args:
      source: images by index.
      preprocesses: model name -> its preprocessing. Models of equal geometry share one array.
      indices: for each group, the indices of its images in the source.
      threads, workers, prefetch: see `vitcnn.data.pool.load_ahead`; None for those that suit the
        machine and the source.
      needs: what else is read, "boxes" and "cues"; the source has to have it.

    Yields:
      {"index": int32 [n], "label": int32 [n] (-1 without labels),
       "images": {model: uint8 [n, h, w, 3]}}; the model's own program normalises them. With
      `needs`, also "boxes": {model: float32 [n, most_boxes, 4]}, as that model sees the image,
      filled up with NaN; "cues": {name: int32 [n]}.

    Raises:
      ValueError: an index is outside the source, or the images of a group differ in size. An error
        that the source raises while it reads an image reaches the caller unchanged.
    """
    indices = [np.asarray(index, np.int64) for index in indices]
    for g, index in enumerate(indices):
        if index.ndim != 1 or index.size == 0:
            raise ValueError(f"group {g} has indices of shape {index.shape}: expected [n], n > 0")
        if index.min() < 0 or index.max() >= len(source):
            raise ValueError(
                f"group {g} asks for images {index.min()} to {index.max()}, "
                f"but the source has images 0 to {len(source) - 1}"
            )
    if not preprocesses:
        raise ValueError("no model: groups need at least one {model: Preprocess}")
    load = _LoadForGroups(source, tuple({p.cut: p for p in preprocesses.values()}.values()))

    def join(index, loaded):
        cuts = {
            preprocess.cut: stack([images[i] for _, images in loaded], index)
            for i, preprocess in enumerate(load.preprocesses)
        }
        images = {model: cuts[preprocess.cut] for model, preprocess in preprocesses.items()}
        examples = [example for example, _ in loaded]
        batch = {**_batch(index, [example["label"] for example in examples]), "images": images}
        if "boxes" in needs:
            batch["boxes"] = {
                model: _boxes(preprocess, examples, source.most_boxes)
                for model, preprocess in preprocesses.items()
            }
        if "cues" in needs:
            cues = source.cue_classes
            batch["cues"] = {c: np.array([e["cues"][c] for e in examples], np.int32) for c in cues}
        return batch

    groups = [index.tolist() for index in indices]
    return load_ahead(load, groups, join, threads, _workers(workers, source), prefetch)


def batches(
    source: Any,
    preprocess: Preprocess,
    batch: int,
    seed: int,
    start: int = 0,
    augment: str | Sequence[str] = (),
    repeats: int = 1,
    host: int = 0,
    hosts: int = 1,
    threads: int | None = None,
    workers: int | None = None,
    prefetch: int = 4,
    resident: Any = None,
) -> Iterator[dict[str, Any]]:
    """Yields training batches without end; batch k is a pure function of (seed, k).

    Batch k has m = batch / repeats different images, the numbers k m to k m + m - 1 of the stream.
    Number j of the stream is image j mod n of epoch j // n. Each epoch is a new permutation,
    `order(n, n, seed, epoch)`. An epoch may end within a batch; no image is dropped.

    Row i of a batch shows image i mod m of the batch. So the copies of an image, each augmented on
    its own, are m rows apart, and mixup, which blends neighbours, does not blend them.

    Args:
      source: labelled images by index.
      preprocess: its geometry is applied, unless `augment` has one; the model's own program
        normalises the images.
      batch: number of rows of a step, over all hosts.
      seed: seed of the order and the augmentation.
      start: the first step; a resumed run passes the number of steps it has taken.
      augment: augmentations in the order of their use; see `vitcnn.data.augment`. Row i of batch k
        draws from a generator of (seed, k * batch + i).
      repeats: number of times that each image is in its batch (Hoffer et al. 2020, arXiv
        1901.09335).
      host: index of this host; it gets batch / hosts rows of every batch, from row
        host * batch / hosts on.
      hosts: number of hosts.
      threads, workers, prefetch: see `vitcnn.data.pool.load_ahead`; None for those that suit the
        machine and the source.
      resident: a `vitcnn.data.resident.Resident` of the source, if the devices have the images.

    Yields:
      {"index": int32 [b], "label": int32 [b], "images": uint8 [b, h, w, 3]}, b = batch / hosts.
      With `resident`, in place of the images and only if there are augmentations, "places": int32
      [b, h + w], the rows and then the columns of the image from which the pixels come.

    Raises:
      ValueError: an augmentation that does not exist or does not fit the preprocessing, a batch
        that the hosts or the repeats cannot share, a source that is empty or has no labels, or
        images that differ in size.
    """
    chain = augmentations.parse(augment)
    augmentations.check(chain, preprocess)
    if batch <= 0 or hosts <= 0 or batch % hosts or not 0 <= host < hosts:
        raise ValueError(
            f"host {host} of {hosts} cannot have its share of a batch of {batch}: expected "
            "0 <= host < hosts and a batch that is a multiple of hosts"
        )
    if repeats < 1 or batch % repeats:
        raise ValueError(
            f"repeats is {repeats}: expected 1 or more, and a batch that is a multiple of it, not "
            f"{batch}"
        )
    if start < 0:
        raise ValueError(f"start is {start}: expected a step, 0 or more")
    if len(source) == 0 or not source.labelled:
        lack = "images" if len(source) == 0 else "labels"
        raise ValueError(f"the source has no {lack} to train on: {source.provenance}")
    rows = range(host * (batch // hosts), (host + 1) * (batch // hosts))
    images, n = batch // repeats, len(source)

    def items(step: int) -> list[tuple[int, list[int]]]:
        """Returns, for each image of a batch, its index and the positions of its copies."""
        positions: dict[int, list[int]] = {}  # an image is read once for all its copies
        for row in rows:
            j = step * images + row % images
            index = int(permutation(n, seed, j // n)[j % n])
            positions.setdefault(index, []).append(step * batch + row)
        return list(positions.items())

    def join(items, loaded):
        copies = {
            position: (index, label, image)
            for (index, positions), (label, changed) in zip(items, loaded, strict=True)
            for position, image in zip(positions, changed, strict=True)
        }
        index, labels, arrays = zip(*(copies[position] for position in sorted(copies)), strict=True)
        batch = _batch(index, labels)
        if resident is None:
            batch["images"] = stack(arrays, index)
        elif chain:
            batch["places"] = np.array(arrays, np.int32)
        return batch

    if resident is None:
        load, workers = _LoadForBatches(source, preprocess, chain, seed), _workers(workers, source)
    else:
        load, workers = _PlacesForBatches(resident.labels, resident.size, chain, seed), 0
    return load_ahead(load, map(items, itertools.count(start)), join, threads, workers, prefetch)


def _workers(workers: int | None, source: Any) -> int:
    """Returns the number of processes; None for those that suit the machine and the source."""
    decodes = getattr(source, "decodes", False)
    return workers_of_machine(decodes) if workers is None else workers


def _boxes(preprocess, examples, most: int) -> np.ndarray:
    """Returns the boxes of images as a model sees them, filled up with NaN."""
    boxes = np.full((len(examples), most, 4), np.nan, np.float32)
    for row, example in zip(boxes, examples, strict=True):
        moved = preprocess.boxes(example["boxes"], *example["shape"])
        row[: len(moved)] = moved
    return boxes


@dataclasses.dataclass(frozen=True)
class _LoadForGroups:
    """Loads images by index: what the source says of each, and it after each of some geometries.

    What the source says has the image's (height, width) as "shape" in place of its pixels.
    """

    source: Any
    preprocesses: tuple[Preprocess, ...]

    def __call__(self, items: list[int]) -> list[tuple[dict[str, Any], list[np.ndarray]]]:
        loaded = []
        for i in items:
            example = dict(opened(self.source, i))
            image = example.pop("image")
            cuts = [geometry_of(image, preprocess) for preprocess in self.preprocesses]
            shape = image.size[::-1] if isinstance(image, Image.Image) else image.shape[:2]
            loaded.append(({**example, "shape": shape}, cuts))
        return loaded


@dataclasses.dataclass(frozen=True)
class _LoadForBatches:
    """Loads images by index and positions: the label, and a copy for each position.

    The copy at a position draws from the generator of (seed, position).
    """

    source: Any
    preprocess: Preprocess
    chain: augmentations.Augmentations
    seed: int

    def __call__(self, items: list[tuple[int, list[int]]]) -> list[tuple[int, list[np.ndarray]]]:
        loaded = []
        for index, positions in items:
            example = opened(self.source, index)
            if self.chain:
                generators = [_generator(self.seed, position) for position in positions]
                copies = [
                    augmentations.augmented(example["image"], self.preprocess, self.chain, rng)
                    for rng in generators
                ]
            else:  # a generator takes longer than a small image
                copies = [geometry_of(example["image"], self.preprocess)] * len(positions)
            loaded.append((example["label"], copies))
        return loaded


@dataclasses.dataclass(frozen=True)
class _PlacesForBatches:
    """Does the same for images on the devices: the label, and places for each position."""

    labels: Int32[np.ndarray, " n"]
    size: tuple[int, int]
    chain: augmentations.Augmentations
    seed: int

    def __call__(self, items: list[tuple[int, list[int]]]) -> list[tuple[int, list[Any]]]:
        positions = [position for _, positions in items for position in positions]
        places = iter(self._places(positions) if self.chain else [None] * len(positions))
        return [
            (int(self.labels[index]), list(itertools.islice(places, len(positions))))
            for index, positions in items
        ]

    def _places(self, positions: list[int]) -> Int64[np.ndarray, "n places"]:
        generators = [_generator(self.seed, position) for position in positions]
        return np.concatenate(augmentations.places(self.chain, *self.size, generators), axis=1)


def _generator(seed: int, position: int) -> np.random.Generator:
    # The key has two words here and one in `permutation`: the streams cannot meet.
    return generator(seed, 0, position)


def _batch(index: Sequence[int], labels: Sequence[int]) -> dict[str, Any]:
    return {"index": np.array(index, np.int32), "label": np.array(labels, np.int32)}
