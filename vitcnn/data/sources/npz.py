"""Images in one NumPy archive (.npz), as `np.savez(path, image=..., label=...)` writes it.

Images are uint8 [N, H, W, 3]. Grey images, [N, H, W] or [N, H, W, 1], have their channel repeated;
RGBA images, [N, H, W, 4], lose their alpha channel. Labels are whole numbers [N] or [N, 1]. Names
of the classes, if the file has them, are texts [classes].
Pickled objects are never read.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from vitcnn import storage
from vitcnn.data import content
from vitcnn.data.preprocess import as_rgb
from vitcnn.lookup import nearest

LOCATION = ("path",)  # says where the images are, not what they are
CLASS_NAMES = "class_names"


def load(
    path: str, image: str = "image", label: str = "label", class_names: str = CLASS_NAMES
) -> Archive:
    """Opens an archive.

    Args:
      path: the file, here or in a bucket.
      image: key of the images.
      label: key of the labels; "" for a source without labels.
      class_names: key of the names of the classes by label. Without the key of the default the
        classes have no names.

    Raises:
      FileNotFoundError: the file does not exist.
      ValueError: the file is damaged or not an npz, a key is missing (the message lists the keys),
        an array has the wrong type or shape, or the numbers of labels and images differ.
    """
    file = storage.as_path(path, "data.path")
    if not file.is_file():
        near = [p.name for p in file.parent.glob("*.npz")] if file.parent.is_dir() else []
        raise FileNotFoundError(f"no npz file {str(path)!r}; {nearest(file.name, sorted(near))}")
    keys = {"image": image} if not label else {"image": image, "label": label}
    try:
        with storage.copy_here(file) as here:
            with zipfile.ZipFile(here) as archive:
                checksums = {info.filename: f"{info.CRC:08x}" for info in archive.infolist()}
            with np.load(here, allow_pickle=False) as archive:
                stored = list(archive.keys())
                if label and (class_names in stored or class_names not in ("", CLASS_NAMES)):
                    keys["class_names"] = class_names
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
    images, labels, names = arrays["image"], arrays.get("label"), arrays.get("class_names")
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
    if names is not None and (names.ndim != 1 or names.dtype.kind not in "US"):
        raise ValueError(
            f"{class_names!r} in {str(path)!r} is {names.dtype} {names.shape}: expected texts "
            "[classes]"
        )
    if names is not None and labels.max(initial=-1) >= len(names):
        raise ValueError(
            f"{str(path)!r} has labels up to {labels.max()}, but {len(names)} names of classes: "
            "expected a name for each label"
        )
    if names is not None and names.dtype.kind == "S":
        names = np.char.decode(names, "utf-8")
    provenance = {
        "source": "npz",
        "path": file.name,
        **keys,
        "images": len(images),
        "crc32": {key: checksums[f"{key}.npy"] for key in keys.values()},
    }
    return Archive(images, labels, None if names is None else names.tolist(), provenance)


class Archive:
    """The source: it holds the stored arrays in memory."""

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray | None,
        class_names: Sequence[str] | None,
        provenance: dict[str, Any],
    ):
        self._images = images
        self._labels = labels
        self.class_names = class_names
        self.provenance = provenance
        self.labelled = labels is not None
        most = int(labels.max(initial=0)) + 1 if self.labelled else None
        self.classes = most if class_names is None else len(class_names)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"image": as_rgb(self._images[i]), "label": self.label(i)}

    def label(self, i: int) -> int:
        """Returns the label of image i, -1 without labels."""
        return int(self._labels[i]) if self.labelled else -1

    def digests(self, indices: Sequence[int]) -> list[str]:
        """Returns a digest of each stored image and its label."""
        return [content.of_pixels(self._images[i], self.label(i)) for i in indices]
