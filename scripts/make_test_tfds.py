"""Writes the small TFDS set that tests/data/test_tfds.py reads: 12 images in array_record files.

    pip install "vitcnn[tfds]"
    python scripts/make_test_tfds.py --archive=tests/data/sources/tiny_ramps.zip

Writing a TFDS set needs TensorFlow; reading one, as the tests do, does not. The set is committed,
so this script has to run again only to change it. It is committed as a zip file (5 kB), because
array_record pads each of its files to 128 kB. Every image is a simple function of its index,
`pixels` below. The test computes the same function to know what it should read.
"""

import pathlib
import shutil
import tempfile

import numpy as np
from absl import app, flags

ARCHIVE = flags.DEFINE_string(
    "archive", "tests/data/sources/tiny_ramps.zip", "The zip file to write."
)

SPLITS = {"train": 8, "test": 4}
CLASSES = ("ridge", "slope", "valley")


def pixels(split: str, i: int) -> np.ndarray:
    """Returns image i of a split, uint8 [6 + i % 2, 7, 3]: sizes differ as in photographs."""
    y, x, channel = np.mgrid[0 : 6 + i % 2, 0:7, 0:3]
    return ((30 * y + 7 * x + 60 * channel + 11 * i + 100 * (split == "test")) % 256).astype(
        "uint8"
    )


def main(_):
    import tensorflow_datasets as tfds

    class TinyRamps(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(
                    {
                        "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
                        "grey": tfds.features.Image(shape=(None, None, 1), encoding_format="png"),
                        "label": tfds.features.ClassLabel(names=CLASSES),
                    }
                ),
                description="Twelve computed images in three classes, to test reading.",
                disable_shuffling=True,  # example i of the set is then image i
            )

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(split, n) for split, n in SPLITS.items()}

        def _generate_examples(self, split, n):
            for i in range(n):
                image = pixels(split, i)
                yield i, {"image": image, "grey": image[..., :1], "label": i % len(CLASSES)}

    with tempfile.TemporaryDirectory() as folder:
        TinyRamps(data_dir=folder, file_format="array_record").download_and_prepare()
        shutil.make_archive(str(pathlib.Path(ARCHIVE.value).with_suffix("")), "zip", folder)


if __name__ == "__main__":
    app.run(main)
