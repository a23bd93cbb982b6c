"""Resident: all images of a source on the devices, which then make the batches themselves.

The host sends only the numbers of the images of a batch, and where the pixels come from that an
augmentation moves. The batch has the same bits as one that the host makes: whole numbers from 0 to
255 are copied, and nothing is computed from them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from jaxtyping import Int, Int32, UInt8

from vitcnn import parallel
from vitcnn.data import augment as augmentations
from vitcnn.data.pipeline import groups
from vitcnn.data.preprocess import Preprocess

CHOICES = ("auto", "always", "never")
LARGEST = 10**9  # bytes of the images that "auto" puts into the memory of a device
_GROUP = 256  # images that are loaded at a time


@dataclasses.dataclass(frozen=True)
class Resident:
    """What the host has to know of images that lie on the devices.

    Attributes:
      labels: their labels.
      size: their height and width in pixels.
    """

    labels: Int32[np.ndarray, " n"]
    size: tuple[int, int]


def suits(
    choice: str,
    source: Any,
    preprocess: Preprocess,
    chain: augmentations.Augmentations,
    shown: float,
) -> bool:
    """Returns whether the images of a training are to lie on the devices.

    Args:
      choice: one of `CHOICES`.
      source: the images.
      preprocess: their preprocessing.
      chain: their augmentations.
      shown: how many images the training reads, with repeated ones.

    Raises:
      ValueError: the choice is "always", and an augmentation needs the pixels on the host.
    """
    on_host = augmentations.on_host(chain)
    if choice == "always" and on_host:
        raise ValueError(
            f"config.on_device = 'always': the augmentation {on_host[0]!r} runs on the host; set "
            "config.on_device = 'auto', or leave it out of config.augment"
        )
    if choice != "auto":
        return choice == "always"
    if on_host or preprocess.size is None or shown <= len(source):
        return False
    copies = 1  # of the images in one memory; the same on all hosts, which have to agree
    if parallel.on_cpu():
        copies = math.ceil(parallel.data_mesh().size / parallel.host()[1])
    return copies * 3 * math.prod(preprocess.size) * len(source) <= LARGEST


def read(
    source: Any, preprocess: Preprocess, show: bool, **pool: int | None
) -> tuple[UInt8[np.ndarray, "n h w 3"], Resident]:
    """Returns all images of a source, after their geometry.

    Args:
      source: the images, of one size after the geometry.
      preprocess: its geometry is applied.
      show: whether to show a bar, if it takes long.
      **pool: see `vitcnn.data.groups`.
    """
    n = len(source)
    indices = [np.arange(start, min(start + _GROUP, n)) for start in range(0, n, _GROUP)]
    images, labels = None, np.empty(n, np.int32)
    bar = tqdm.tqdm(total=n, desc="reading the images", unit="image", delay=2, disable=not show)
    with bar:
        for group in groups(source, {"model": preprocess}, indices, **pool):
            if images is None:
                images = np.empty((n, *group["images"]["model"].shape[1:]), np.uint8)
            images[group["index"]], labels[group["index"]] = (
                group["images"]["model"],
                group["label"],
            )
            bar.update(len(group["index"]))
    return images, Resident(labels, images.shape[1:3])


def batch_of(
    images: UInt8[jax.Array, "n h w 3"], batch: Mapping[str, jax.Array]
) -> dict[str, jax.Array]:
    """Returns a batch with its images, of one without them; see `vitcnn.data.batches`."""
    batch = dict(batch)
    taken = images[batch["index"]]
    if "places" in batch:
        places = batch.pop("places")
        taken = moved(taken, places[:, : taken.shape[1]], places[:, taken.shape[1] :])
    return {**batch, "images": taken}


def moved(
    images: UInt8[jax.Array, "b h w 3"], rows: Int[jax.Array, "b h"], columns: Int[jax.Array, "b w"]
) -> UInt8[jax.Array, "b h w 3"]:
    """Returns images made of some rows and columns of others, which are black at the number -1."""
    take = jax.vmap(lambda image, rows, columns: image[rows][:, columns])
    inside = (rows >= 0)[:, :, None, None] & (columns >= 0)[:, None, :, None]
    chosen = take(images, jnp.maximum(rows, 0), jnp.maximum(columns, 0))
    return jnp.where(inside, chosen, jnp.uint8(0))
