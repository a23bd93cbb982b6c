"""Reading: which images, in which order, loaded ahead in threads by grain.

Nothing here depends on the number of threads: every order and every augmentation is a pure function
of a seed and of a position.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import grain
import numpy as np
from jaxtyping import Int64

from vitcnn.data.augment import AUGMENTATIONS
from vitcnn.data.order import generator, permutation
from vitcnn.data.preprocess import Preprocess, stack
from vitcnn.lookup import check_name

_FOREVER = 2**50  # steps; grain wants a length


def groups(
    source: Any,
    preprocesses: Mapping[str, Preprocess],
    spans: Sequence[Int64[np.ndarray, " n"]],
    threads: int = 2,
    prefetch: int = 4,
) -> Iterator[dict[str, Any]]:
    """Yields one group of images a span, in the order of the spans.

    Args:
      source: images by index.
      preprocesses: model name -> its preprocessing. Models of equal geometry share one array.
      spans: the indices of each group.
      threads: groups loaded at the same time; 0 loads each when it is asked for.
      prefetch: groups held in memory ahead of the one in use.

    Yields:
      {"index": int64 [n], "label": int32 [n] (-1 without labels),
       "images": {model: uint8 [n, h, w, 3]}}; normalisation is left to the model's program.

    Raises:
      ValueError: an index is outside the source, or the images of a group differ in size. An
        error of the source while it reads an image reaches the caller unchanged.
    """
    spans = [np.asarray(span, np.int64) for span in spans]
    for g, span in enumerate(spans):
        if span.ndim != 1 or span.size == 0:
            raise ValueError(f"span {g} has shape {span.shape}: expected indices [n], n > 0")
        if span.min() < 0 or span.max() >= len(source):
            raise ValueError(
                f"span {g} asks for images {span.min()} to {span.max()}, "
                f"but the source has images 0 to {len(source) - 1}"
            )
    if not preprocesses:
        raise ValueError("no model: groups need at least one {model: Preprocess}")
    load = functools.partial(_load_group, source, dict(preprocesses))
    return _ahead(load, spans, threads, prefetch)


def batches(
    source: Any,
    preprocess: Preprocess,
    batch: int,
    seed: int,
    start: int = 0,
    augment: Sequence[str] = (),
    host: int = 0,
    hosts: int = 1,
    threads: int = 2,
    prefetch: int = 4,
) -> Iterator[dict[str, Any]]:
    """Yields training batches for ever; batch k is a pure function of (seed, k).

    Position p = k * batch + i of the stream is image p mod n of epoch p // n, each epoch a new
    permutation, `order(n, n, seed, epoch)`; an epoch ends within a batch, and no image is dropped.

    Args:
      source: labelled images by index.
      preprocess: its geometry is applied; normalisation is left to the model's program.
      batch: images of a step, over all hosts.
      seed: of the order and of the augmentation.
      start: the first step; a resumed run passes the number of steps it has done.
      augment: names out of `AUGMENTATIONS`, applied in this order after the geometry. Each draws
        from a generator of (seed, p).
      host, hosts: this host gets rows host * batch / hosts onwards of every batch.
      threads, prefetch: batches loaded at the same time, and held ahead.

    Yields:
      {"index": int64 [b], "label": int32 [b], "images": uint8 [b, h, w, 3]}, b = batch / hosts.

    Raises:
      ValueError: an unknown augmentation, a batch that the hosts cannot share, a source that is
        empty or has no labels, or images that differ in size.
    """
    augment = (augment,) if isinstance(augment, str) else tuple(augment)
    for name in augment:
        check_name("augmentation", name, AUGMENTATIONS)
    if batch <= 0 or hosts <= 0 or batch % hosts or not 0 <= host < hosts:
        raise ValueError(
            f"host {host} of {hosts} cannot have its share of a batch of {batch}: expected "
            "0 <= host < hosts and a batch that is a multiple of hosts"
        )
    if start < 0:
        raise ValueError(f"start is {start}: expected a step, 0 or more")
    if len(source) == 0 or not source.labelled:
        what = "images" if len(source) == 0 else "labels"
        raise ValueError(f"the source has no {what} to train on: {source.provenance}")
    rows = range(host * (batch // hosts), (host + 1) * (batch // hosts))

    def load(step: int) -> dict[str, Any]:
        return _load_batch(source, preprocess, [step * batch + i for i in rows], seed, augment)

    return _ahead(load, range(start, _FOREVER), threads, prefetch)


def _ahead(load: Callable, positions: Sequence, threads: int, prefetch: int) -> Iterator:
    """Yields load(position) of each, in order, loaded ahead in threads."""
    if threads < 0 or prefetch < 0:
        raise ValueError(f"threads is {threads} and prefetch {prefetch}: expected 0 or more")
    if len(positions) == 0:
        return iter(())
    if threads == 0 or prefetch == 0:
        return map(load, positions)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(threads, prefetch))
    return iter(grain.MapDataset.source(positions).map(load).to_iter_dataset(options))


def _load_group(source, preprocesses, span):
    examples = [source[int(i)] for i in span]
    shared: dict[tuple, np.ndarray] = {}  # geometry -> images
    images = {}
    for model, preprocess in preprocesses.items():
        key = preprocess.cut
        if key not in shared:
            shared[key] = stack([preprocess.geometry(e["image"]) for e in examples], span)
        images[model] = shared[key]
    label = np.array([example["label"] for example in examples], np.int32)
    return {"index": span, "label": label, "images": images}


def _load_batch(source, preprocess, positions, seed, augment):
    n = len(source)
    index = np.array([permutation(n, seed, p // n)[p % n] for p in positions], np.int64)
    examples = [source[int(i)] for i in index]
    images = [preprocess.geometry(example["image"]) for example in examples]
    if augment:
        for i, position in enumerate(positions):
            # two words of key here and one in `_permutation`: the streams cannot meet
            rng = generator(seed, 0, position)
            for name in augment:
                images[i] = AUGMENTATIONS[name](images[i], rng)
    label = np.array([example["label"] for example in examples], np.int32)
    return {"index": index, "label": label, "images": stack(images, index)}
