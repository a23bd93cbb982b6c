"""Numbers of classes: from folders, and between images and a head or a fit."""

import pathlib
import types

import pytest

from vitcnn.data import classes
from vitcnn.data.classes import Classes, match

# The ten classes of Imagenette and their numbers in ImageNet-1k, from its README.
IMAGENETTE = {
    "n01440764": 0,
    "n02102040": 217,
    "n02979186": 482,
    "n03000684": 491,
    "n03028079": 497,
    "n03394916": 566,
    "n03417042": 569,
    "n03425413": 571,
    "n03445777": 574,
    "n03888257": 701,
}
MISMATCH = "the numbers do not agree"


def test_the_synset_ids_are_those_of_tensorflow_datasets():
    import tensorflow_datasets as tfds

    file = pathlib.Path(tfds.__file__).parent / "datasets/imagenet2012/labels.txt"
    assert list(classes.imagenet_synsets()) == file.read_text().split()
    assert len(classes.imagenet_synsets()) == 1000


@pytest.mark.parametrize(
    ("folders", "numbers", "names"),
    [
        (["dog", "cat"], {"cat": 0, "dog": 1}, ("cat", "dog")),
        (["10", "2", "0", *"13456789"], {str(i): i for i in range(11)}, ()),
        (["01", "00", "02"], {"00": 0, "01": 1, "02": 2}, ()),
        (["Zebra", "apple"], {"Zebra": 0, "apple": 1}, ("Zebra", "apple")),  # as torchvision
        (["n02102040", "n01440764"], {"n01440764": 0, "n02102040": 1}, ("n01440764", "n02102040")),
        (["train", "bus"], {"bus": 0, "train": 1}, ("bus", "train")),  # a class of CIFAR-100
        (["e\u0301clair", "zebra"], {"zebra": 0, "e\u0301clair": 1}, ("zebra", "\u00e9clair")),
        (["c01", "c02", "c10"], {"c01": 0, "c02": 1, "c10": 2}, ("c01", "c02", "c10")),
    ],
)
def test_folders_have_numbers(folders, numbers, names):
    assert classes.of_folders(folders, "here") == (numbers, names)


@pytest.mark.parametrize(
    ("folders", "numbers", "message"),
    [
        (list("56789"), {c: int(c) for c in "56789"}, "5 to 9.*5 smaller numbers.*first of them 0"),
        (["1", "2"], {"1": 1, "2": 2}, "numbers from 1 to 2.*first of them 0"),
        (["Cat", "cat"], {"Cat": 0, "cat": 1}, "'Cat' and 'cat' in here differ in case alone"),
        (["c2", "c10", "c1"], {"c1": 0, "c10": 1, "c2": 2}, r"c\* .*10 comes before 2"),
        (["0", "1", "x"], {"0": 0, "1": 1, "x": 2}, "not all folders in here are whole numbers"),
    ],
)
def test_numbers_that_may_surprise_come_with_a_warning(folders, numbers, message):
    with pytest.warns(UserWarning, match=message):
        assert classes.of_folders(folders, "here")[0] == numbers


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (["1", "01"], "'1' and '01' in here are both class 1"),
        (["0", "-1"], "'-1' in here: a class number is 0 or more"),
        (["train", "val"], "holds the splits train, val.*give the path of one"),
        (["Train", "Test", "extra"], "holds the splits Train, Test"),
        (["e\u0301", "\u00e9"], "two folders called '\u00e9', in two Unicode forms"),
    ],
)
def test_folders_that_cannot_be_classes_are_refused(folders, message):
    with pytest.raises(ValueError, match=message):
        classes.of_folders(folders, "here")


def test_a_part_of_imagenet_gets_the_numbers_of_a_head_of_a_thousand():
    source = types.SimpleNamespace(classes=10, class_names=list(IMAGENETTE))
    images = classes.of(source)
    met = match(images, Classes(1000), "the logits", MISMATCH)
    assert met.numbers == tuple(IMAGENETTE.values()) and met.count == 1000
    assert classes.statement(met, source) == {
        "compared_by": "synset ids of ImageNet-1k",
        "numbers": IMAGENETTE,
    }
    whole = Classes(1000, classes.imagenet_synsets())
    assert match(whole, Classes(1000), "the logits", MISMATCH).numbers is None
    with pytest.raises(ValueError, match=r"1 of the 2 classes.*the logits: 'n99999999'"):
        match(Classes(2, ("n01440764", "n99999999")), Classes(1000), "the logits", MISMATCH)
    # A head of ten classes was trained on these ten.
    assert match(images, Classes(10), "the logits", MISMATCH).numbers is None


@pytest.mark.parametrize(
    ("images", "other", "numbers"),
    [
        (Classes(2, ("cat", "dog")), Classes(2, ("cat", "dog")), None),
        (Classes(2, ("cat", "dog")), Classes(2, ("dog", "cat")), (1, 0)),
        (Classes(2, ("cat", "dog")), Classes(3, ("bird", "cat", "dog")), (1, 2)),
        (Classes(3, ("cat", "", "dog")), Classes(2, ("cat", "dog")), (0, -1, 1)),
        (Classes(3, ("cat", "", "dog")), Classes(3, ("cat", "cow", "dog")), None),
        (Classes(1, ("\u00e9",)), Classes(2, ("a", "\u00e9")), (1,)),
        (Classes(3, ("cat", "", "dog")), Classes(5), None),  # a part, with numbers of its own
        (Classes(8), Classes(10), None),  # labels alone are what they say
        (Classes(10), Classes(10, tuple("abcdefghij")), None),
    ],
)
def test_classes_meet_by_name_or_by_number(images, other, numbers):
    met = match(images, other, "those of the fit", MISMATCH)
    assert (met.numbers, met.count) == (numbers, other.count)


@pytest.mark.parametrize(
    ("images", "other", "message"),
    [
        (Classes(11), Classes(10), MISMATCH),
        (
            Classes(2, ("cat", "dog")),
            Classes(10),
            f"{MISMATCH}, or add the classes.*known on one side only",
        ),
        (Classes(8), Classes(10, tuple("abcdefghij")), "known on one side only"),
        (Classes(2, ("cat", "dgo")), Classes(2, ("cat", "dog")), "'dgo'; did you mean 'dog'"),
        (Classes(2, ("Cat", "dog")), Classes(2, ("cat", "dog")), "'Cat'; did you mean 'cat'"),
        (Classes(1, ("crane",)), Classes(2, ("crane", "crane")), "several of .*'crane'"),
    ],
)
def test_classes_that_do_not_meet_are_refused(images, other, message):
    with pytest.raises(ValueError, match=message):
        match(images, other, "those of the fit", MISMATCH)


def test_a_thousand_sorted_names_are_not_imagenets_order():
    names = tuple(f"name {i:04}" for i in range(1000))
    with pytest.warns(UserWarning, match="ImageNet's order is that of the synset ids"):
        match(Classes(1000, names), Classes(1000), "the logits", MISMATCH)


def test_names_that_are_the_numbers_again_are_no_names():
    assert classes.named(["0", "1", "2"]) == () and classes.named(["", ""]) == ()
    assert classes.named(["1", "0"]) == ("1", "0")
