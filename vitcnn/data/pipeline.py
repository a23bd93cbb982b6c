"""Pipeline: reads groups of images to measure and batches to train on, ahead of their use.

Images are loaded in threads by grain. The number of threads changes nothing: every order and every
augmentation is a pure function of a seed and a position.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64

from vitcnn.data import augment as augmentations
from vitcnn.data.order import generator, permutation
from vitcnn.data.preprocess import Preprocess, stack

_FOREVER = 2**50  # steps; grain needs a length


def groups(
    source: Any,
    preprocesses: Mapping[str, Preprocess],
    indices: Sequence[Int64[np.ndarray, " _"]],
    threads: int = 2,
    prefetch: int = 4,
    needs: Collection[str] = (),
) -> Iterator[dict[str, Any]]:
    """Yields groups of images, in the order of `indices`.

    Args:
      source: images by index.
      preprocesses: model name -> its preprocessing. Models of equal geometry share one array.
      indices: for each group, the indices of its images in the source.
      threads: number of groups loaded at the same time; 0 loads each group when it is needed.
      prefetch: number of groups held in memory ahead of the current one.
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
    load = functools.partial(_load_group, source, dict(preprocesses), frozenset(needs))
    return _load_ahead(load, indices, threads, prefetch)


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
    threads: int = 2,
    prefetch: int = 4,
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
      threads: number of batches loaded at the same time; 0 loads each batch when it is needed.
      prefetch: number of batches held in memory ahead of the current one.

    Yields:
      {"index": int32 [b], "label": int32 [b], "images": uint8 [b, h, w, 3]}, b = batch / hosts.

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
    images = batch // repeats

    def load(step: int) -> dict[str, Any]:
        numbers = [step * images + row % images for row in rows]
        # The key has two words here and one in `permutation`: the streams cannot meet.
        generators = [generator(seed, 0, step * batch + row) for row in rows]
        return _load_batch(source, preprocess, numbers, seed, chain, generators)

    return _load_ahead(load, range(start, _FOREVER), threads, prefetch)


def _load_ahead(load: Callable, positions: Sequence, threads: int, prefetch: int) -> Iterator:
    """Yields load(position) for each position, in order, loaded ahead in threads."""
    if threads < 0 or prefetch < 0:
        raise ValueError(f"threads is {threads} and prefetch {prefetch}: expected 0 or more")
    if len(positions) == 0:
        return iter(())
    if threads == 0 or prefetch == 0:
        return map(load, positions)
    import grain  # which takes half a second to import

    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(threads, prefetch))
    return iter(grain.MapDataset.source(positions).map(load).to_iter_dataset(options))


def _load_group(source, preprocesses, needs, index):
    examples = [source[int(i)] for i in index]
    shared: dict[tuple, np.ndarray] = {}  # geometry -> images
    images = {}
    for model, preprocess in preprocesses.items():
        key = preprocess.cut
        if key not in shared:
            shared[key] = stack([preprocess.geometry(e["image"]) for e in examples], index)
        images[model] = shared[key]
    batch = _batch(index, examples, images)
    if "boxes" in needs:
        boxes = {}
        for model, preprocess in preprocesses.items():
            boxes[model] = np.full((len(examples), source.most_boxes, 4), np.nan, np.float32)
            for row, example in zip(boxes[model], examples, strict=True):
                moved = preprocess.boxes(example["boxes"], *example["image"].shape[:2])
                row[: len(moved)] = moved
        batch["boxes"] = boxes
    if "cues" in needs:
        cues = source.cue_classes
        batch["cues"] = {c: np.array([e["cues"][c] for e in examples], np.int32) for c in cues}
    return batch


def _load_batch(source, preprocess, numbers, seed, chain, generators):
    n = len(source)
    index = np.array([permutation(n, seed, j // n)[j % n] for j in numbers], np.int64)
    distinct = {i: source[i] for i in dict.fromkeys(index.tolist())}  # repeats are read once
    examples = [distinct[i] for i in index.tolist()]
    images = [
        augmentations.augmented(example["image"], preprocess, chain, rng)
        for example, rng in zip(examples, generators, strict=True)
    ]
    return _batch(index, examples, stack(images, index))


def _batch(index, examples, images) -> dict[str, Any]:
    label = np.array([example["label"] for example in examples], np.int32)
    return {"index": index.astype(np.int32), "label": label, "images": images}
