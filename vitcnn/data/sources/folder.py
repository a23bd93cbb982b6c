"""Image files in a folder.

All files with a suffix of `SUFFIXES` are images, in sub-folders too, sorted by their path. Links to
files and folders are followed. Hidden files and folders are left out.

Labels come from a CSV file with the columns `file` (path in the folder) and `label` (whole number),
if the folder has one; see `vitcnn.data.label_table`. Without such a file, if every
image is in one of two or more sub-folders, each sub-folder is a class, an empty one too. Folders
whose names are all whole numbers have these numbers, other folders are numbered in sorted order.
Otherwise the images have no labels.

Grey, palette and CMYK images are converted to RGB, an alpha channel is dropped, and the orientation
that a camera recorded (EXIF) is applied, so that a network sees what a viewer shows. An animation
counts as its first frame.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import io
import os
import pathlib
import re
import struct
import warnings
import zlib
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from vitcnn import storage
from vitcnn.data import classes as class_numbers
from vitcnn.data import content, label_table
from vitcnn.data.classes import nfc
from vitcnn.data.label_table import some
from vitcnn.lookup import nearest

LOCATION = ("path",)  # says where the images are, not what they are

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
LABELS = "labels.csv"
# Systems leave these behind in folders of images.
LITTER = ("__MACOSX", "__pycache__", "@eaDir", "lost+found", "Thumbs.db", "desktop.ini")

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
      path: the folder, here or in a bucket, where reading an image is a request.
      labels: name of the CSV file in the folder; "" ignores such a file. A missing file is an
        error, unless the name is the default.
      skip_corrupt: whether to read every file once now, and leave out the files that cannot be
        read; otherwise such a file is an error when it is used.

    Raises:
      FileNotFoundError: the folder or the CSV file does not exist.
      ValueError: there are no images; images are both inside and outside of sub-folders; two
        sub-folders are one class; a link leads nowhere; or the CSV file lacks a column or some of
        the images, or lists files that do not exist.
    """
    root = storage.as_path(path, "data.path")
    if not root.is_dir():
        near = [p.name for p in root.parent.glob("*") if p.is_dir()] if root.parent.is_dir() else []
        raise FileNotFoundError(f"no folder {str(path)!r}; {nearest(root.name, sorted(near))}")
    tree = _Tree(root, skip_corrupt)
    files = tree.images
    if not files:
        raise ValueError(
            f"no images in folder {str(path)!r}: looked for files that end in {', '.join(SUFFIXES)}"
        )
    table = None if not labels else root / labels
    if table is not None and labels != LABELS and not table.is_file():
        near = sorted(p.name for p in root.glob("*.csv"))
        raise FileNotFoundError(f"no label file {str(table)!r}; {nearest(labels, near)}")
    if table is not None and table.is_file():
        (numbers, names), origin = label_table.read(table, files), labels
        classes = max(numbers) + 1
    elif folders := _class_folders(tree, str(path)):
        number, names = class_numbers.of_folders(folders, repr(str(path)))
        _warn_of_odd_classes(tree, folders, str(path))
        numbers, origin = [number[file.split("/")[0]] for file in files], "folders"
        classes = max(number.values()) + 1
    else:
        numbers, names, origin, classes = None, (), None, None
    corrupt = {**tree.dangling, **(_corrupt(root, files) if skip_corrupt else {})}
    if corrupt:
        found = len(set(files) | set(corrupt))
        if set(files) <= set(corrupt):
            name, reason = next(iter(corrupt.items()))
            raise ValueError(
                f"none of the {found} images in folder {str(path)!r} can be read; {name}: {reason}"
            )
        warnings.warn(
            f"left out {len(corrupt)} of {found} images in folder {str(path)!r} that cannot "
            f"be read: {some(corrupt)}",
            stacklevel=2,
        )
        kept = [i for i, file in enumerate(files) if file not in corrupt]
        files = [files[i] for i in kept]
        numbers = None if numbers is None else [numbers[i] for i in kept]
    with concurrent.futures.ThreadPoolExecutor(storage.REQUESTS) as pool:
        sizes = pool.map(lambda file: storage.size(root / file), files)
        listing = "\n".join(
            f"{nfc(file)} {-1 if numbers is None else numbers[i]} {size}"
            for i, (file, size) in enumerate(zip(files, sizes, strict=True))
        )
    provenance = {
        "source": "folder",
        "path": root.name if storage.is_remote(root) else root.resolve().name,
        "labels": origin,
        "images": len(files),
        "listing_sha256": hashlib.sha256(listing.encode("utf-8", "surrogateescape")).hexdigest(),
        "skip_corrupt": skip_corrupt,
        "corrupt": len(corrupt),
        "corrupt_files": list(corrupt)[:20],
    }
    return Folder(root, files, numbers, classes, list(names) or None, provenance)


class Folder:
    """The source: a file is opened when its image is read.

    Attributes:
      files: paths in the folder by index, with "/" between their parts.
      class_names: names of the classes by label, "" for a class that the CSV file does not name;
        None if the classes have numbers alone.
    """

    decodes = True

    def __init__(
        self,
        root: storage.Path,
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
        example = self.opened(i)
        return {**example, "image": np.asarray(example["image"])}

    def opened(self, i: int) -> dict[str, Any]:
        """Returns example i with its image as Pillow has it."""
        path = self._root / self.files[i]
        try:
            image = open_image(path)
        except ValueError as error:
            raise ValueError(f"{error}; skip_corrupt=True leaves out such files") from error
        return {"image": image, "label": self.label(i)}

    def label(self, i: int) -> int:
        """Returns the label of image i without reading the file, -1 without labels."""
        return -1 if self._labels is None else self._labels[i]

    def digests(self, indices: Sequence[int]) -> list[str]:
        """Returns a digest of each file and its label, without decoding the images."""
        of_files = content.of_files(self._root, [self.files[i] for i in indices])
        return [f"{digest} {self.label(i)}" for i, digest in zip(indices, of_files, strict=True)]


def open_image(path: Any) -> Image.Image:
    """Returns an image file (a path or an open binary file), read and decoded, as RGB.

    Raises:
      ValueError: the image cannot be read; the message names the file.
    """
    try:
        file = io.BytesIO(path.read_bytes()) if storage.is_remote(path) else path
        with Image.open(file) as image:
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            if image.mode.startswith("I;16"):  # Pillow would clip 16-bit grey; keep the high byte
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            elif image.mode in ("I", "F"):
                raise ValueError(f"its pixels are of mode {image.mode!r}, not 8 bits a channel")
            elif "transparency" in image.info:
                image = image.convert("RGBA")
            return image if image.mode == "RGB" else image.convert("RGB")
    # Pillow has no common error for damage: each format raises its own.
    except _UNREADABLE as error:
        raise ValueError(f"image {str(path)!r} cannot be read: {error}") from error


class _Tree:
    """The files below a folder, in one walk that follows links.

    Attributes:
      images: paths of the images in the folder, sorted.
      folders: names of the sub-folders, sorted; hidden ones are left out.
      others: names of those sub-folders that hold other files than images.
      dangling: image -> why it cannot be read, for links that lead nowhere, with `skip_corrupt`.

    Raises:
      ValueError: a link leads nowhere.
      OSError: a folder cannot be read.
    """

    def __init__(self, root: storage.Path, skip_corrupt: bool):
        self.images: list[str] = []
        self.folders: list[str] = []
        self.others: set[str] = set()
        self.dangling: dict[str, str] = {}
        self._skip_corrupt = skip_corrupt
        if storage.is_remote(root):
            self._list(root)
        else:
            self._walk(root, "", (os.path.realpath(root),))
        self.images.sort(key=nfc)
        self.folders.sort(key=nfc)

    def _list(self, root: storage.Path) -> None:
        """Adds what is in a bucket, which has no links and no empty folders."""
        folders = set()
        for path, _, names in root.walk():
            # `walk` leaves out the scheme.
            inside = PurePosixPath(_bare(path)).relative_to(_bare(root)).parts
            for parts in ((*inside, name) for name in names):
                if any(part[0] == "." or part in LITTER for part in parts):
                    continue
                folders |= set(parts[:-1][:1])
                if parts[-1].lower().endswith(SUFFIXES):
                    self.images.append("/".join(parts))
                elif inside:
                    self.others.add(parts[0])
        self.folders += folders

    def _walk(self, folder: pathlib.Path, prefix: str, above: tuple[str, ...]) -> None:
        """Adds what is in one folder; `above` has the real paths of the folder and its parents."""
        with os.scandir(folder) as entries:
            entries = sorted(entries, key=lambda entry: entry.name)
        for entry in entries:
            name = f"{prefix}{entry.name}"
            if entry.name[0] == "." or entry.name in LITTER:
                continue
            if entry.is_dir():
                real = os.path.realpath(entry.path)
                if real in above:
                    warnings.warn(
                        f"{name!r} in folder {str(folder)!r} is a link to a folder that holds it, "
                        "and is left out",
                        stacklevel=4,
                    )
                    continue
                if not prefix:
                    self.folders.append(entry.name)
                self._walk(pathlib.Path(entry.path), f"{name}/", (*above, real))
            elif not os.path.exists(entry.path):
                reason = f"a link to {os.readlink(entry.path)!r}, which does not exist"
                if not (self._skip_corrupt and name.lower().endswith(SUFFIXES)):
                    raise ValueError(f"{entry.path!r} is {reason}: mend or remove it")
                self.dangling[name] = reason
            elif entry.name.lower().endswith(SUFFIXES):
                self.images.append(name)
            elif prefix:
                self.others.add(prefix.split("/")[0])


def _bare(path: storage.Path) -> str:
    return os.fspath(path).partition("://")[2] or os.fspath(path)


def _class_folders(tree: _Tree, path: str) -> list[str]:
    """Returns the sub-folders that are classes, [] if they are not.

    Raises:
      ValueError: images are both inside and outside of sub-folders.
    """
    inside = sorted({file.split("/")[0] for file in tree.images if "/" in file}, key=nfc)
    outside = [file for file in tree.images if "/" not in file]
    if len(inside) > 1 and outside:
        raise ValueError(
            f"folder {path!r} has images in sub-folders, which would be classes, and "
            f"{len(outside)} outside of them ({some(outside)}): move those, or list all labels"
            f" in {LABELS}"
        )
    if not inside or outside:
        return []
    empty = [folder for folder in tree.folders if folder not in inside]
    # Annotations often lie beside the classes; a class whose images are gone has no files at all.
    foreign = [folder for folder in empty if folder in tree.others and not _numbered(folder)]
    empty = [folder for folder in empty if folder not in foreign]
    if len(inside) == 1 and not empty and not _numbered(inside[0]):
        (only,) = inside
        warnings.warn(
            f"all images in folder {path!r} are in its sub-folder {only!r}, so they have no "
            f"labels: if the folders in {only!r} are classes, give its path; if {only!r} is one "
            f"class, list the labels in {LABELS}",
            stacklevel=3,
        )
        return []
    if foreign:
        warnings.warn(
            f"{len(foreign)} folders in {path!r} have files but no images that can be read, and do "
            f"not count as classes: {some(foreign)}",
            stacklevel=3,
        )
    return [*inside, *empty]


def _numbered(folder: str) -> bool:
    """Returns whether a folder is a class by its name: a number or a synset id."""
    return bool(re.fullmatch(r"[0-9]+", folder) or class_numbers.SYNSET.fullmatch(folder))


def _warn_of_odd_classes(tree: _Tree, folders: Sequence[str], path: str) -> None:
    """Warns of classes without images, and of classes that may hold classes themselves."""
    inside = {file.split("/")[0] for file in tree.images}
    empty = [folder for folder in folders if folder not in inside]
    if empty:
        warnings.warn(
            f"{len(empty)} class folders in {path!r} have no images, and count as classes: "
            f"{some(empty)}",
            stacklevel=3,
        )
    deeper: dict[str, set[str]] = {}
    for folder, below, *rest in (file.split("/") for file in tree.images):
        if rest:
            deeper.setdefault(folder, set()).add(below)
    nested = {folder: sorted(names) for folder, names in deeper.items() if len(names) > 1}
    if nested:
        folder, names = next(iter(nested.items()))
        warnings.warn(
            f"{len(nested)} class folders in {path!r} hold several folders of images: all images "
            f"in {folder!r} count as class {folder!r}, whether in {some(names)}",
            stacklevel=3,
        )


def _corrupt(root: storage.Path, files: Sequence[str]) -> dict[str, str]:
    """Returns file -> reason for the files that cannot be read, in order."""

    def reason(file: str) -> str | None:
        try:
            open_image(root / file)
        except ValueError as error:
            return str(error)
        return None

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        checked = tqdm(pool.map(reason, files), "checking images", len(files), unit="image")
        return {file: r for file, r in zip(files, checked, strict=True) if r is not None}
