"""Images in one NumPy archive (.npz), as `np.savez(path, image=..., label=...)` writes it.

Images are uint8 [N, H, W, 3]. Grey images, [N, H, W] or [N, H, W, 1], have their channel repeated;
RGBA images, [N, H, W, 4], lose their alpha channel. Labels are whole numbers [N] or [N, 1].
Pickled objects are never read.
"""

from __future__ import annotations

import pathlib
import zipfile
import zlib
from typing import Any

import numpy as np

from vitcnn.data.preprocess import as_rgb
from vitcnn.lookup import nearest


def load(path: str, image: str = "image", label: str = "label") -> Archive:
    """Opens an archive.

    Args:
      path: the file.
      image: key of the images.
      label: key of the labels; "" for a source without labels.

    Raises:
      FileNotFoundError: the file does not exist.
      ValueError: the file is damaged or not an npz, a key is missing (the message lists the keys),
        an array has the wrong type or shape, or the numbers of labels and images differ.
    """
    file = pathlib.Path(path)
    if not file.is_file():
        near = [p.name for p in file.parent.glob("*.npz")] if file.parent.is_dir() else []
        raise FileNotFoundError(f"no npz file {str(path)!r}; {nearest(file.name, sorted(near))}")
    keys = {"image": image} if not label else {"image": image, "label": label}
    try:
        with zipfile.ZipFile(file) as archive:
            checksums = {info.filename: f"{info.CRC:08x}" for info in archive.infolist()}
        with np.load(file, allow_pickle=False) as archive:
            stored = list(archive.keys())
            missing = [key for key in keys.values() if key not in stored]
            arrays = {} if missing else {k: archive[key] for k, key in keys.items()}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError) as error:
        raise ValueError(
            f"{str(path)!r} cannot be read as npz (is it truncated, or of another format?): {error}"
        ) from error
    if missing:
        hint = "; label='' reads images without labels" if missing == [label] else ""
        raise ValueError(
            f"{str(path)!r} has no key {', '.join(map(repr, missing))}: "
            f"its keys are {', '.join(map(repr, stored))}{hint}"
        )
    images, labels = arrays["image"], arrays.get("label")
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise ValueError(
            f"{image!r} in {str(path)!r} is {images.dtype} {images.shape}: expected images as "
            "uint8 [N, H, W], [N, H, W, 1], [N, H, W, 3] or [N, H, W, 4]"
        )
    if len(images):
        as_rgb(images[0])  # a wrong number of channels fails now, not at the first read
    if labels is not None:
        if not np.issubdtype(labels.dtype, np.integer) or labels.size != max(
            labels.shape, default=0
        ):
            raise ValueError(
                f"{label!r} in {str(path)!r} is {labels.dtype} {labels.shape}: "
                "expected whole numbers [N]"
            )
        labels = labels.reshape(-1)
        if len(labels) != len(images):
            raise ValueError(
                f"{str(path)!r} has {len(images)} images and {len(labels)} labels: "
                "expected as many labels as images"
            )
    provenance = {
        "source": "npz",
        "path": file.name,
        **keys,
        "images": len(images),
        "crc32": {key: checksums[f"{key}.npy"] for key in keys.values()},
    }
    return Archive(images, labels, provenance)


class Archive:
    """The source: it holds the stored arrays in memory."""

    def __init__(self, images: np.ndarray, labels: np.ndarray | None, provenance: dict[str, Any]):
        self._images = images
        self._labels = labels
        self.provenance = provenance
        self.labelled = labels is not None
        self.classes = int(labels.max(initial=0)) + 1 if self.labelled else None

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"image": as_rgb(self._images[i]), "label": self.label(i)}

    def label(self, i: int) -> int:
        """Returns the label of image i, -1 without labels."""
        return int(self._labels[i]) if self.labelled else -1
