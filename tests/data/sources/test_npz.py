import json

import numpy as np
import pytest

from vitcnn import data


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (6, 5, 4, 3), np.uint8)


def test_reads_what_was_written(tmp_path, images):
    labels = np.array([0, 3, 1, 2, 0, 3])
    np.savez(tmp_path / "a.npz", image=images, label=labels)
    source = data.load("npz", path=str(tmp_path / "a.npz"))
    assert (len(source), source.labelled, source.classes) == (6, True, 4)
    for i in range(6):
        np.testing.assert_array_equal(source[i]["image"], images[i])
        assert source[i]["label"] == labels[i] and type(source[i]["label"]) is int
    known = json.loads(json.dumps(source.provenance))
    assert known["path"] == "a.npz" and known["images"] == 6
    # the fingerprint follows the content
    np.savez(tmp_path / "b.npz", image=images, label=labels[::-1])
    other = data.load("npz", path=str(tmp_path / "b.npz")).provenance
    assert other["crc32"]["image"] == known["crc32"]["image"]
    assert other["crc32"]["label"] != known["crc32"]["label"]


def test_keys_by_config_and_column_labels(tmp_path, images):
    np.savez_compressed(tmp_path / "a.npz", x_test=images, y_test=np.arange(6)[:, None])
    source = data.load("npz", path=str(tmp_path / "a.npz"), image="x_test", label="y_test")
    assert [source[i]["label"] for i in range(6)] == [0, 1, 2, 3, 4, 5]
    unlabelled = data.load("npz", path=str(tmp_path / "a.npz"), image="x_test", label="")
    assert (unlabelled.labelled, unlabelled.classes, unlabelled[2]["label"]) == (False, None, -1)


def test_grey_and_rgba_become_rgb(tmp_path, images):
    grey = images[..., 0]
    alpha = np.full((6, 5, 4, 1), 7, np.uint8)
    rgba = np.concatenate([images, alpha], 3)
    np.savez(tmp_path / "a.npz", flat=grey, one=grey[..., None], four=rgba, label=np.arange(6))
    for key, expected in (("flat", np.stack([grey] * 3, -1)), ("four", images)):
        source = data.load("npz", path=str(tmp_path / "a.npz"), image=key)
        for i in range(6):
            np.testing.assert_array_equal(source[i]["image"], expected[i])
    one = data.load("npz", path=str(tmp_path / "a.npz"), image="one")
    np.testing.assert_array_equal(one[3]["image"], np.stack([grey[3]] * 3, -1))


def test_missing_key_lists_the_keys(tmp_path, images):
    np.savez(tmp_path / "a.npz", x=images, y=np.arange(6))
    with pytest.raises(ValueError, match=r"no key 'image', 'label': its keys are 'x', 'y'"):
        data.load("npz", path=str(tmp_path / "a.npz"))
    with pytest.raises(ValueError, match=r"'label'.*label='' reads images without labels"):
        data.load("npz", path=str(tmp_path / "a.npz"), image="x")


def test_damaged_and_foreign_files(tmp_path, images):
    good = tmp_path / "good.npz"
    np.savez(good, image=images, label=np.arange(6))
    content = good.read_bytes()
    broken = {
        "cut.npz": content[: len(content) // 2],
        "flipped.npz": content[:300] + bytes([content[300] ^ 255]) + content[301:],
        "text.npz": b"this is no archive",
        "empty.npz": b"",
    }
    for name, bytes_ in broken.items():
        (tmp_path / name).write_bytes(bytes_)
        with pytest.raises(ValueError, match=f"{name}' cannot be read as npz"):
            data.load("npz", path=str(tmp_path / name))
    np.save(tmp_path / "array.npy", images)
    with pytest.raises(ValueError, match="cannot be read as npz"):
        data.load("npz", path=str(tmp_path / "array.npy"))
    with pytest.raises(FileNotFoundError, match=r"did you mean 'good.npz'"):
        data.load("npz", path=str(tmp_path / "god.npz"))


def test_pickles_are_not_read(tmp_path, images):
    objects = np.array([None] * 6, object)
    np.savez(tmp_path / "a.npz", image=images, label=objects)
    with pytest.raises(ValueError, match="cannot be read"):
        data.load("npz", path=str(tmp_path / "a.npz"))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (dict(label=np.arange(5)), "6 images and 5 labels"),
        (dict(label=np.arange(6) / 2), "expected whole numbers"),
        (dict(label=np.eye(6, dtype=int)), "expected whole numbers"),
        (dict(image=np.zeros((6, 5, 4, 3), np.float32)), "expected images as uint8"),
        (dict(image=np.zeros((6, 5, 4, 2), np.uint8)), "1 .grey., 3 .RGB. or 4 .RGBA. channels"),
        (dict(image=np.zeros((6, 5), np.uint8)), "expected images as uint8"),
    ],
)
def test_wrong_arrays(tmp_path, images, arrays, message):
    np.savez(tmp_path / "a.npz", **({"image": images, "label": np.arange(6)} | arrays))
    with pytest.raises(ValueError, match=message):
        data.load("npz", path=str(tmp_path / "a.npz"))


def test_names_of_the_classes(tmp_path, images):
    names = np.array(["cat", "dog", "emu"])
    labels = np.array([0, 1, 0, 1, 0, 1])
    for stored in (names, names.astype("S")):
        np.savez(tmp_path / "a.npz", image=images, label=labels, class_names=stored)
        source = data.load("npz", path=str(tmp_path / "a.npz"))
        assert (source.class_names, source.classes) == (["cat", "dog", "emu"], 3)
        assert source.provenance["crc32"].keys() == {"image", "label", "class_names"}
    np.savez(tmp_path / "a.npz", image=images, label=labels, class_names=names[:1])
    with pytest.raises(ValueError, match="labels up to 1, but 1 names of classes"):
        data.load("npz", path=str(tmp_path / "a.npz"))
    np.savez(tmp_path / "a.npz", image=images, label=labels, class_names=np.arange(2))
    with pytest.raises(ValueError, match=r"int64 .2,.: expected texts"):
        data.load("npz", path=str(tmp_path / "a.npz"))
    with pytest.raises(ValueError, match="no key 'nmes'"):
        data.load("npz", path=str(tmp_path / "a.npz"), class_names="nmes")


def test_real_cifar10(shared_data):
    source = data.load("npz", path=str(shared_data / "cifar10_test.npz"))
    assert (len(source), source.classes) == (10_000, 10)
    assert source[0]["image"].shape == (32, 32, 3)
    assert source[0]["label"] == 3  # a cat
