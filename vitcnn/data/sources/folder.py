"""Image files in a folder.

All files with a suffix of `SUFFIXES` are images, in sub-folders too, sorted by their path. Labels
come from a CSV file with the columns `file` (path in the folder) and `label` (whole number),
if the folder has one. Without it, if every image is in one of two or more sub-folders, each
sub-folder is a class, numbered in sorted order. Otherwise the images have no labels.

Grey, palette and CMYK images are converted to RGB, an alpha channel is dropped, and the orientation
that a camera recorded (EXIF) is applied, so that a network sees what a viewer shows. An animation
counts as its first frame.
"""

from __future__ import annotations

import concurrent.futures
import csv
import hashlib
import os
import pathlib
import struct
import warnings
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps
from tqdm import tqdm

from vitcnn.lookup import nearest

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
LABELS = "labels.csv"

# Errors that Pillow raises on files that are damaged, truncated, or decompression bombs.
_UNREADABLE = (
    OSError,
    SyntaxError,
    TypeError,
    ValueError,
    EOFError,
    IndexError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def load(path: str, labels: str = LABELS, skip_corrupt: bool = False) -> Folder:
    """Finds the images and their labels.

    Args:
      path: the folder.
      labels: name of the CSV file in the folder; "" ignores such a file. A missing file is an
        error, unless the name is the default.
      skip_corrupt: whether to read every file once now, and leave out the files that cannot be
        read; otherwise such a file is an error when it is used.

    Raises:
      FileNotFoundError: the folder or the CSV file does not exist.
      ValueError: there are no images; images are both inside and outside of sub-folders; or the CSV
        file lacks a column or some of the images, or lists files that do not exist.
    """
    root = pathlib.Path(path)
    if not root.is_dir():
        near = [p.name for p in root.parent.glob("*") if p.is_dir()] if root.parent.is_dir() else []
        raise FileNotFoundError(f"no folder {str(path)!r}; {nearest(root.name, sorted(near))}")
    files = _image_files(root)
    if not files:
        raise ValueError(
            f"no images in folder {str(path)!r}: looked for files that end in {', '.join(SUFFIXES)}"
        )
    table = None if not labels else root / labels
    if table is not None and labels != LABELS and not table.is_file():
        near = sorted(p.name for p in root.glob("*.csv"))
        raise FileNotFoundError(f"no label file {str(table)!r}; {nearest(labels, near)}")
    parents = sorted({file.split("/")[0] for file in files if "/" in file})
    names = None
    if table is not None and table.is_file():
        numbers, origin = _labels_of(table, files), labels
    elif len(parents) > 1:
        outside = [file for file in files if "/" not in file]
        if outside:
            raise ValueError(
                f"folder {str(path)!r} has images in sub-folders, which would be classes, and "
                f"{len(outside)} outside of them ({_some(outside)}): move those, or list all labels"
                f" in {LABELS}"
            )
        names, origin = parents, "folders"
        number = {name: i for i, name in enumerate(names)}
        numbers = [number[file.split("/")[0]] for file in files]
    else:
        numbers, origin = None, None
    classes = None if numbers is None else len(names) if names else max(numbers) + 1
    corrupt = _corrupt(root, files) if skip_corrupt else {}
    if corrupt:
        if len(corrupt) == len(files):
            name, reason = next(iter(corrupt.items()))
            raise ValueError(
                f"none of the {len(files)} images in folder {str(path)!r} can be read; "
                f"{name}: {reason}"
            )
        warnings.warn(
            f"left out {len(corrupt)} of {len(files)} images in folder {str(path)!r} that cannot "
            f"be read: {_some(corrupt)}",
            stacklevel=2,
        )
        kept = [i for i, file in enumerate(files) if file not in corrupt]
        files = [files[i] for i in kept]
        numbers = None if numbers is None else [numbers[i] for i in kept]
    listing = "\n".join(
        f"{file} {-1 if numbers is None else numbers[i]} {(root / file).stat().st_size}"
        for i, file in enumerate(files)
    )
    provenance = {
        "source": "folder",
        "path": root.resolve().name,
        "labels": origin,
        "images": len(files),
        "listing_sha256": hashlib.sha256(listing.encode()).hexdigest(),
        "skip_corrupt": skip_corrupt,
        "corrupt": len(corrupt),
        "corrupt_files": list(corrupt)[:20],
    }
    return Folder(root, files, numbers, classes, names, provenance)


class Folder:
    """The source: a file is opened when its image is read.

    Attributes:
      files: paths in the folder by index, with "/" between their parts.
      class_names: names of the sub-folders by label; None unless sub-folders are classes.
    """

    def __init__(
        self,
        root: pathlib.Path,
        files: Sequence[str],
        labels: Sequence[int] | None,
        classes: int | None,
        class_names: Sequence[str] | None,
        provenance: dict[str, Any],
    ):
        self._root = root
        self._labels = labels
        self.files = files
        self.classes = classes
        self.class_names = class_names
        self.provenance = provenance
        self.labelled = labels is not None

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> dict[str, Any]:
        path = self._root / self.files[i]
        try:
            image = read_image(path)
        except ValueError as error:
            raise ValueError(f"{error}; skip_corrupt=True leaves out such files") from error
        return {"image": image, "label": self.label(i)}

    def label(self, i: int) -> int:
        """Returns the label of image i without reading the file, -1 without labels."""
        return -1 if self._labels is None else self._labels[i]


def read_image(path: Any) -> UInt8[np.ndarray, "H W 3"]:
    """Reads an image file (a path or an open binary file) as RGB.

    Raises:
      ValueError: the image cannot be read; the message names the file.
    """
    try:
        with Image.open(path) as image:
            image = ImageOps.exif_transpose(image)
            if image.mode.startswith("I;16"):  # Pillow would clip 16-bit grey; keep the high byte
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            elif image.mode in ("I", "F"):
                raise ValueError(f"its pixels are of mode {image.mode!r}, not 8 bits a channel")
            elif "transparency" in image.info:
                image = image.convert("RGBA")
            return np.asarray(image.convert("RGB"))
    # Pillow has no common error for damage: each format raises its own.
    except _UNREADABLE as error:
        raise ValueError(f"image {str(path)!r} cannot be read: {error}") from error


def _image_files(root: pathlib.Path) -> list[str]:
    paths = []
    for folder, folders, files in os.walk(root):
        folders[:] = [f for f in folders if f[0] != "."]
        relative = pathlib.Path(folder).relative_to(root)
        paths += [
            (relative / file).as_posix()
            for file in files
            if file[0] != "." and file.lower().endswith(SUFFIXES)
        ]
    return sorted(paths)


def _labels_of(table: pathlib.Path, files: Sequence[str]) -> list[int]:
    with table.open(newline="", encoding="utf-8-sig") as lines:
        reader = csv.DictReader(lines)
        columns = reader.fieldnames or []
        if not {"file", "label"} <= set(columns):
            raise ValueError(
                f"{str(table)!r} has the columns {', '.join(columns)}: expected file and label"
            )
        rows = [(pathlib.PurePath(row["file"]).as_posix(), row["label"]) for row in reader]
    numbers = {}
    for line, (file, label) in enumerate(rows, start=2):
        if file in numbers:
            raise ValueError(f"{str(table)!r} line {line}: {file!r} is listed twice")
        try:
            numbers[file] = int(label)
        except (TypeError, ValueError):
            raise ValueError(
                f"{str(table)!r} line {line}: label {label!r} of {file!r} is not a whole number"
            ) from None
        if numbers[file] < 0:
            raise ValueError(f"{str(table)!r} line {line}: label {label!r} is below 0")
    present = set(files)
    absent = [file for file in numbers if file not in present]
    if absent:
        raise ValueError(
            f"{str(table)!r} lists {len(absent)} images that are not in the folder: "
            f"{_some(absent)}; {nearest(absent[0], files)}"
        )
    unlisted = [file for file in files if file not in numbers]
    if unlisted:
        raise ValueError(
            f"{str(table)!r} has no label for {len(unlisted)} images in the folder: "
            f"{_some(unlisted)}"
        )
    return [numbers[file] for file in files]


def _corrupt(root: pathlib.Path, files: Sequence[str]) -> dict[str, str]:
    """Returns file -> reason for the files that cannot be read, in order."""

    def reason(file: str) -> str | None:
        try:
            read_image(root / file)
        except ValueError as error:
            return str(error)
        return None

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        checked = tqdm(pool.map(reason, files), "checking images", len(files), unit="image")
        return {file: r for file, r in zip(files, checked, strict=True) if r is not None}


def _some(names: Any, count: int = 5) -> str:
    names = list(names)
    return ", ".join(names[:count]) + (" ..." if len(names) > count else "")
