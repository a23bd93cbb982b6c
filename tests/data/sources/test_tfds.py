import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

from vitcnn import data

ARCHIVE = pathlib.Path(__file__).parent / "tiny_ramps.zip"  # by scripts/make_test_tfds.py


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    shutil.unpack_archive(ARCHIVE, folder)
    return str(folder)


def pixels(split, i):
    """Image i of a split, as scripts/make_test_tfds.py wrote it."""
    y, x, channel = np.mgrid[0 : 6 + i % 2, 0:7, 0:3]
    return (30 * y + 7 * x + 60 * channel + 11 * i + 100 * (split == "test")) % 256


@pytest.mark.parametrize(
    ("split", "first", "n"), [("train", 0, 8), ("test", 0, 4), ("train[3:5]", 3, 2)]
)
def test_reads_what_was_written(data_dir, split, first, n):
    source = data.load("tfds", name="tiny_ramps", split=split, data_dir=data_dir)
    assert (len(source), source.labelled, source.classes) == (n, True, 3)
    for i in range(n):
        assert source[i]["image"].dtype == np.uint8
        np.testing.assert_array_equal(source[i]["image"], pixels(split[:5].strip("["), first + i))
        assert source[i]["label"] == (first + i) % 3 and type(source[i]["label"]) is int
    known = json.loads(json.dumps(source.provenance))
    assert known["name"] == "tiny_ramps/1.0.0" and known["split"] == split


def test_other_features_and_grey(data_dir):
    source = data.load(
        "tfds", name="tiny_ramps", split="test", data_dir=data_dir, image="grey", label=""
    )
    assert (source.labelled, source.classes, source[1]["label"]) == (False, None, -1)
    np.testing.assert_array_equal(source[1]["image"], np.repeat(pixels("test", 1)[..., :1], 3, 2))


def test_names_of_the_classes_and_digests(data_dir, tmp_path):
    fields = {"name": "tiny_ramps", "split": "train"}
    source = data.load("tfds", **fields, data_dir=data_dir)
    assert len(source.class_names) == 3
    digests = source.digests(range(8))
    shutil.copytree(data_dir, tmp_path / "copy")
    copy = data.load("tfds", **fields, data_dir=str(tmp_path / "copy"), start=2, stop=8)
    assert copy.digests(range(6)) == digests[2:] and len(set(digests)) == 8
    assert data.load("tfds", **fields, data_dir=data_dir, label="").digests([0]) != digests[:1]


def test_integer_labels_are_counted():
    from vitcnn.data.sources.tfds import Prepared

    image = np.zeros((2, 2, 3), np.uint8)
    examples = [{"image": image, "number": np.int64(i % 3)} for i in range(9)]
    source = Prepared(examples, "image", "number", None, None, {"name": "numbers"})
    assert source.classes == 3 and source.class_names is None
    part = data.few_shot(source, shots=2)
    assert [part.label(i) for i in range(6)] == [0, 0, 1, 1, 2, 2] and part.classes == 3


def test_threads_read_it(data_dir):
    source = data.load("tfds", name="tiny_ramps", split="train", data_dir=data_dir)
    indices = [np.array([5, 0]), np.array([7, 1, 2])]
    preprocess = data.Preprocess(size=(4, 4))
    seen = list(data.groups(source, {"m": preprocess}, indices, threads=2))
    for index, group in zip(indices, seen, strict=True):
        np.testing.assert_array_equal(group["label"], index % 3)
        for i, image in zip(index, group["images"]["m"], strict=True):
            expected = preprocess.geometry(pixels("train", i).astype(np.uint8))
            np.testing.assert_array_equal(image, expected)


def test_tensorflow_is_not_imported(data_dir):
    program = (
        "import sys\n"
        "from vitcnn import data\n"
        f"s = data.load('tfds', name='tiny_ramps', split='train', data_dir={data_dir!r})\n"
        "print([s[i]['label'] for i in range(len(s))])\n"
        "print([m for m in sys.modules if m.split('.')[0] == 'tensorflow'])"
    )
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert out.stdout.splitlines() == ["[0, 1, 2, 0, 1, 2, 0, 1]", "[]"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(name="tiny_rampz"), "did you mean 'tiny_ramps'"),
        (dict(name="tiny_ramps:2.0.0"), "did you mean 'tiny_ramps'"),
        (dict(name="cifar10"), r"not in .* as array_record files; prepare .*vitcnn\[tfds\]"),
        (dict(name="cifar10", split="train[:98%]"), "not in .* as array_record files; prepare it"),
        (dict(split="trian"), "'trian'.*'train', 'test'"),
        (dict(split="trian[:50%]"), "'trian'.*'train', 'test'"),
        (dict(image="img"), "no feature 'img': its features are 'grey', 'image', 'label'"),
        (dict(label="grey"), r"'grey' .* is uint8 .* expected one whole number an image"),
        (dict(data_dir="hdfs://tfds-data/datasets"), "data.data_dir .*unknown scheme hdfs://"),
        (dict(label="labels"), "label='' reads images without labels"),
    ],
)
def test_wrong_names(data_dir, fields, message):
    fields = {"name": "tiny_ramps", "split": "train", "data_dir": data_dir} | fields
    with pytest.raises(ValueError, match=message):
        data.load("tfds", **fields)


def test_boxes_of_objects():
    from vitcnn.data.sources import tfds as source_file

    image, box = np.zeros((2, 2, 3), np.uint8), np.array([0.1, 0.2, 0.3, 0.4], np.float32)
    examples = [{"image": image, "objects": {"bbox": [box] * k}} for k in (0, 1, 2, 129)]
    of_boxes = {"name": "voc"}, "objects/bbox"
    source = source_file.Prepared(examples, "image", None, None, None, *of_boxes)
    assert source.most_boxes == 128
    assert [source[i]["boxes"].shape for i in range(3)] == [(0, 4), (1, 4), (2, 4)]
    np.testing.assert_array_equal(source[1]["boxes"], [box])
    with pytest.raises(ValueError, match="voc, example 3, has 129 boxes: expected at most 128"):
        source[3]
    plain = source_file.Prepared(examples, "image", None, None, None, {"name": "voc"})
    assert "boxes" not in plain[0] and plain.most_boxes == 0


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ("object/bbox", "has no feature 'object': did you mean 'objects'"),
        ("objects/box", "has no feature 'box': did you mean 'bbox'"),
        ("label", "is ClassLabel: expected a sequence of BBoxFeature"),
    ],
)
def test_features_that_are_no_boxes(boxes, message):
    from tensorflow_datasets import features

    from vitcnn.data.sources import tfds as source_file

    objects = features.Sequence({"bbox": features.BBoxFeature()})
    label = features.ClassLabel(num_classes=2)
    of_set = features.FeaturesDict({"objects": objects, "label": label})
    source_file._check_boxes("voc", of_set, "objects/bbox")
    with pytest.raises(ValueError, match=message):
        source_file._check_boxes("voc", of_set, boxes)
