"""Images of a TensorFlow Datasets (TFDS) set that was prepared as array_record files.

Reading such a set by index does not need TensorFlow. Preparing it needs TensorFlow, once:

    pip install "vitcnn[tfds]"
    python -c "import tensorflow_datasets as tfds;
    tfds.data_source('cifar10', data_dir='DATA_DIR')"

Pillow decodes the images, as in `folder`, whether or not OpenCV is installed; a feature that stores
arrays of pixels is used as it is. Grey is repeated over the channels and alpha is dropped.
"""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from vitcnn import storage
from vitcnn.data import classes as class_numbers
from vitcnn.data import content
from vitcnn.data.preprocess import as_rgb
from vitcnn.data.sources.folder import open_image
from vitcnn.lookup import nearest

LOCATION = ("data_dir",)  # says where the images are, not what they are
MOST_BOXES = 128  # of an image; that of COCO with most objects has 93


def load(
    name: str,
    split: str,
    data_dir: str = "",
    image: str = "image",
    label: str = "label",
    boxes: str = "",
) -> Prepared:
    """Opens a prepared set.

    Args:
      name: name in TFDS, such as "cifar10", "imagenet2012:5.1.0" or "set/config".
      split: a split such as "train", or a slice such as "train[:10%]".
      data_dir: folder of the prepared sets, here or in a bucket; "" means $TFDS_DATA_DIR or
        ~/tensorflow_datasets.
      image: name of the feature with the images.
      label: name of the feature with the labels; "" for a source without labels.
      boxes: name of the feature with the boxes of objects, such as "objects/bbox" of voc and coco;
        "" for a source without boxes.

    Raises:
      ValueError: the set, split or feature does not exist (the message gives the nearest ones), or
        the set is not prepared as array_record files (the message says how to prepare it).
    """
    data_dir = str(storage.as_path(data_dir, "data.data_dir")) if data_dir else ""
    features, _ = _open(name, split, data_dir or None)
    for feature in (image,) if not label else (image, label):
        if feature not in features:
            hint = "; label='' reads images without labels" if feature == label else ""
            raise ValueError(
                f"TFDS set {name!r} has no feature {feature!r}: "
                f"its features are {', '.join(map(repr, sorted(features)))}{hint}"
            )
    _check_boxes(name, features, boxes)
    shape, dtype = (features[label].shape, features[label].np_dtype) if label else ((), np.int64)
    if shape or np.dtype(dtype).kind not in "iub":
        raise ValueError(
            f"feature {label!r} of TFDS set {name!r} is {np.dtype(dtype).name} {list(shape)}: "
            "expected one whole number an image; label='' reads images without labels"
        )
    # Encoded images arrive as bytes, so images of features that are not used are never decoded.
    encoded = [key for key, feature in features.items() if isinstance(feature, tfds.features.Image)]
    decoders = {key: tfds.decode.SkipDecoding() for key in encoded}
    _, data = _open(name, split, data_dir or None, decoders)
    # A plain integer feature knows neither the number of its classes nor their names.
    classes = getattr(features[label], "num_classes", None) if label else None
    names = class_numbers.named(getattr(features[label], "names", None) or ()) if label else ()
    provenance = {
        "source": "tfds",
        "name": data.dataset_info.full_name,
        "split": split,
        "image": image,
        "label": label,
        "images": len(data),
        **({"boxes": boxes} if boxes else {}),
    }
    decodes = image in encoded
    return Prepared(data, image, label, classes, list(names) or None, provenance, boxes, decodes)


def _check_boxes(name: str, features: Any, boxes: str) -> None:
    """Raises ValueError unless a feature, such as "objects/bbox", is a list of boxes."""
    if not boxes:
        return
    inside, kind = features, tfds.features
    for key in boxes.split("/"):
        inside = getattr(inside, "feature", inside)  # of a sequence, what it is a sequence of
        if not hasattr(inside, "keys") or key not in inside:
            choices = list(inside) if hasattr(inside, "keys") else []
            raise ValueError(
                f"data.boxes = {boxes!r}: TFDS set {name!r} has no feature {key!r}: "
                f"{nearest(key, choices)}"
            )
        inside = inside[key]
    inside = getattr(inside, "feature", inside)
    if not isinstance(inside, kind.BBoxFeature):
        raise ValueError(
            f"data.boxes = {boxes!r} of TFDS set {name!r} is {type(inside).__name__}: expected a "
            "sequence of BBoxFeature"
        )


class Prepared:
    """The source: an example is read and decoded when it is used."""

    def __init__(
        self,
        data: Any,
        image: str,
        label: str | None,
        classes: int | None,
        class_names: Sequence[str] | None,
        provenance: dict[str, Any],
        boxes: str = "",
        decodes: bool = True,
    ):
        self._data = data
        self._boxes = boxes
        self.most_boxes = MOST_BOXES if boxes else 0
        self._image = image
        self.decodes = decodes
        self._label = label or None
        self._classes = classes
        self.class_names = class_names
        self.provenance = provenance
        self.labelled = bool(label)

    @functools.cached_property
    def classes(self) -> int | None:
        """Number of classes, None without labels; all labels are read if the set does not say."""
        if self._classes is not None or not self.labelled:
            return self._classes
        return max((self.label(i) for i in range(len(self))), default=-1) + 1

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, i: int) -> dict[str, Any]:
        example = self.opened(i)
        return {**example, "image": np.asarray(example["image"])}

    def opened(self, i: int) -> dict[str, Any]:
        """Returns example i; an image that is stored encoded is as Pillow has it."""
        example = self._data[i]
        image = example[self._image]
        if isinstance(image, bytes):
            try:
                image = open_image(io.BytesIO(image))
            except ValueError as error:
                raise ValueError(f"{self.provenance['name']}, example {i}: {error}") from error
        else:
            image = as_rgb(image)
        read = {"image": image, "label": self._label_in(example)}
        return read | {"boxes": self._boxes_in(example, i)} if self._boxes else read

    def label(self, i: int) -> int:
        """Returns the label of example i without decoding its image, -1 without labels."""
        return self._label_in(self._data[i])

    def digests(self, indices: Sequence[int]) -> list[str]:
        """Returns a digest of each stored image, not decoded, and its label."""
        examples = (self._data[int(i)] for i in indices)
        return [_digest(example[self._image], self._label_in(example)) for example in examples]

    def _boxes_in(self, example: dict[str, Any], i: int) -> np.ndarray:
        """Returns the boxes of an example: TFDS too has top, left, bottom, right in parts."""
        boxes: Any = example
        for key in self._boxes.split("/"):
            boxes = boxes[key]
        boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
        if len(boxes) > MOST_BOXES:
            raise ValueError(
                f"{self.provenance['name']}, example {i}, has {len(boxes)} boxes: expected at most "
                f"{MOST_BOXES}"
            )
        return boxes

    def _label_in(self, example: dict[str, Any]) -> int:
        return -1 if self._label is None else int(example[self._label])


def _digest(image: Any, label: int) -> str:
    of_bytes = isinstance(image, bytes)
    return content.of_bytes(image, label) if of_bytes else content.of_pixels(image, label)


def _open(name: str, split: str, data_dir: str | None, decoders: Any = None) -> tuple[Any, Any]:
    """Returns the features and the data source of a set."""
    prepare = (
        'prepare it once, with TensorFlow (pip install "vitcnn[tfds]"): '
        f"tfds.data_source({name!r}, data_dir={data_dir!r})"
    )
    try:
        data = tfds.data_source(
            name, split=split, data_dir=data_dir, download=False, decoders=decoders
        )
    # TFDS looks up a name with a namespace on the network, with packages that may be absent.
    except (tfds.core.DatasetNotFoundError, ImportError):
        names = {*tfds.list_builders(with_community_datasets=False), *_folders(data_dir)}
        raise ValueError(
            f"no TFDS set {name!r} in {data_dir or 'the default data_dir'}, and TFDS cannot "
            f"prepare it: {nearest(name, sorted(names))}"
        ) from None
    # A KeyError is the answer to a slice, such as train[:99%], of a set that was never prepared.
    except (NotImplementedError, AssertionError, FileNotFoundError, KeyError) as error:
        raise ValueError(
            f"TFDS set {name!r} is not in {data_dir or 'the default data_dir'} as array_record "
            f"files; {prepare}"
        ) from error
    except ValueError as error:
        raise ValueError(f"TFDS set {name!r}, split {split!r}: {error}") from error
    return data.dataset_info.features, data


def _folders(data_dir: str | None) -> list[str]:
    folder = data_dir or os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    path = storage.as_path(folder, "data.data_dir")
    return [p.name for p in path.iterdir() if p.is_dir()] if path.is_dir() else []
