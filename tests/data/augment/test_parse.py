"""Names and calls of augmentations: what they mean, and what is refused before images are read."""

import sys
import types

import numpy as np
import pytest

from vitcnn import data
from vitcnn.data import Preprocess, augment
from vitcnn.data.augment import cutout, flip, inception_crop, pad_crop, randaugment
from vitcnn.lookup import REQUIRED

FLIP = flip.AUGMENTATION
PAD_CROP = pad_crop.AUGMENTATION
RANDAUGMENT = randaugment.AUGMENTATION
INCEPTION_CROP = inception_crop.AUGMENTATION


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ((), ()),
        ("", ()),
        ("flip", (FLIP(),)),
        (("flip()", "pad_crop"), (FLIP(), PAD_CROP(4, "reflect"))),
        ("flip,pad_crop", (FLIP(), PAD_CROP())),
        ("flip | pad_crop(2, 'zero')", (FLIP(), PAD_CROP(2, "zero"))),
        (["pad_crop(mode='zero')"], (PAD_CROP(4, "zero"),)),
        (("cutout(16)", "cutout(size=8, fill=0)"), (cutout.Cutout(16), cutout.Cutout(8, 0))),
        (
            "inception_crop(0.08)|flip|randaugment(2, magnitude=15)",
            (INCEPTION_CROP(0.08, 1.0), FLIP(), RANDAUGMENT(2, 15.0)),
        ),
    ],
)
def test_texts_and_what_they_mean(texts, expected):
    assert augment.parse(texts) == expected


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("flp", "unknown augmentation 'flp': did you mean 'flip'"),
        (
            "randaugment(layer=2)",
            "argument of augmentation 'randaugment': 'layer': did you",
        ),
        ("flip(2)", r"'flip' has 0 arguments \(\), but 'flip\(2\)' gives 1"),
        ("pad_crop(1, 'zero', 3)", r"'pad_crop' has 2 arguments \(pad, mode\), but .* gives 3"),
        ("pad_crop(1, pad=2)", "gives pad twice"),
        ("cutout", r"'cutout' needs size: write cutout\(size=...\)"),
        ("pad_crop(2.5)", r"pad of augmentation 'pad_crop' = 2.5: expected a whole number"),
        ("pad_crop(mode=3)", "mode of augmentation 'pad_crop' = 3: expected text"),
        ("pad_crop(0)", "'pad_crop': pad is 0: expected 1 or more"),
        ("pad_crop(mode='reflex')", "'pad_crop': unknown mode 'reflex': did you mean 'reflect'"),
        ("cutout(4, 256)", "'cutout': fill is 256: expected 0 to 255"),
        ("pad_crop(mode=zero)", "expected a name, or a call whose arguments are numbers"),
        ("pad_crop(", "expected a name, or a call"),
        ("flip + flip", "expected a name, or a call"),
        ("inception_crop(0.5, 0.2)", "min_area is 0.5: expected 0 to 0.2"),
        ("inception_crop(0)", "min_area is 0: expected a share of the image above 0"),
        ("random_resized_crop(interpolation='cubic')", "unknown interpolation 'cubic'"),
        ("randaugment(0)", "'randaugment': layers is 0: expected 1 or more"),
        ("randaugment(2, 31)", "magnitude is 31: expected 0 to 30"),
        ("randaugment_timm(magnitude=11)", "magnitude is 11: expected 0 to 10"),
        ("randaugment_timm(fill=(1, 2))", r"fill is \(1, 2\): expected three whole numbers"),
        (("flip", "inception_crop"), "'inception_crop' comes after 'flip': .* has to come first"),
        ("inception_crop|resize_crop(256)", r"'resize_crop\(256\)' comes after 'inception_crop'"),
    ],
)
def test_wrong_texts(texts, message):
    with pytest.raises(ValueError, match=message):
        augment.parse(texts)


@pytest.mark.parametrize(
    ("texts", "size", "message"),
    [
        ("inception_crop", None, "preprocess.size is not set, .* of InceptionCrop"),
        ("resize_crop(100)", 128, "resize is 100: expected at least 128"),
        ("resize_small_crop(100)", (90, 128), "resize is 100: expected at least 128"),
        ("simple_random_crop(8)", 8, "crops larger than pad = 8"),
        ("pad_crop", 4, "larger than 4 pixels, not 4 x 4; lower pad, or set mode='zero'"),
        ("cutout(9)", 8, r"cutout\(9\) greys squares that are larger than the images, 8 x 8"),
    ],
)
def test_what_does_not_fit_the_images_is_refused_before_any_is_read(texts, size, message):
    chain = augment.parse(texts)
    with pytest.raises(ValueError, match=message):
        augment.check(chain, Preprocess(size=size))


def test_translations_that_leave_nothing_warn():
    for text, side in (("randaugment(2, 10)", 100), ("randaugment(2, 20)", 192)):
        with pytest.warns(UserWarning, match="2 of its 16 operations.*randaugment_relative"):
            augment.check(augment.parse(text), Preprocess(size=side))
    augment.check(augment.parse("randaugment(2, 20)"), Preprocess(size=224))
    augment.check(augment.parse("randaugment_relative(2, 20)"), Preprocess(size=32))


def test_every_augmentation_is_documented():
    for name in augment.names():
        for field, description in augment.fields(name).items():
            assert description.meaning, f"{name}: {field}"
            assert description.default is REQUIRED or description.type in (int, float, str, tuple)


def test_an_augmentation_from_elsewhere(monkeypatch):
    module = types.ModuleType("my_package.my_flip")
    module.AUGMENTATION = FLIP
    monkeypatch.setitem(sys.modules, "my_package", types.ModuleType("my_package"))
    monkeypatch.setitem(sys.modules, "my_package.my_flip", module)
    assert augment.parse("my_package.my_flip") == (FLIP(),)


CHANGES = (
    "flip",
    "pad_crop(1)",
    "pad_crop(mode='zero')",
    "cutout(3)",
    "randaugment",
    "randaugment_relative",
    "randaugment_timm(probability=1)",
    "three_augment",
    "color_jitter",
)
GEOMETRIES = (
    "inception_crop",
    "random_resized_crop",
    "resize_crop(20)",
    "resize_small_crop(20)",
    "simple_random_crop",
)


def test_the_lists_above_are_complete():
    assert {text.partition("(")[0] for text in CHANGES + GEOMETRIES} == set(augment.names())


@pytest.mark.parametrize("text", CHANGES + GEOMETRIES)
@pytest.mark.parametrize("side", [(1, 1), (2, 3), (9, 1), (40, 30)])
def test_images_of_every_size_work_and_only_the_generator_is_random(text, side):
    image = np.random.default_rng(0).integers(0, 256, (*side, 3), np.uint8)
    before = image.copy()
    chain = augment.parse(text)
    is_geometry = text in GEOMETRIES
    if text == "pad_crop(1)" and min(side) == 1:
        with pytest.raises(ValueError, match="larger than 1 pixels"):
            augment.augmented(image, Preprocess(), chain, np.random.default_rng(0))
        return
    preprocess = Preprocess(size=(16, 12) if is_geometry else None)
    augment.check(chain, preprocess)
    seen = set()
    for seed in range(40):
        results = [
            augment.augmented(image, preprocess, chain, np.random.default_rng(seed))
            for _ in range(2)
        ]
        np.testing.assert_array_equal(*results)
        assert results[0].shape == ((16, 12, 3) if is_geometry else image.shape)
        assert results[0].dtype == np.uint8
        seen.add(results[0].tobytes())
    np.testing.assert_array_equal(image, before)
    assert len(seen) > 1 or min(side) == 1


def test_without_a_geometry_that_of_the_model_comes_first():
    source = data.load("scenes", size=4, image_size=32)
    preprocess = Preprocess(size=16, resize=20)
    (plain,) = (next(data.batches(source, preprocess, 4, seed=1)),)
    crop = next(data.batches(source, preprocess, 4, seed=1, augment="random_resized_crop"))
    both = next(data.batches(source, preprocess, 4, seed=1, augment=("pad_crop", "cutout(2)")))
    np.testing.assert_array_equal(plain["index"], crop["index"])
    for i, index in enumerate(plain["index"]):
        stored = source[int(index)]["image"]
        np.testing.assert_array_equal(plain["images"][i], preprocess.geometry(stored))
        rng = np.random.default_rng(np.random.SeedSequence(1, spawn_key=(0, i)))
        top, left, height, width = augment.parse("random_resized_crop")[0].box(32, 32, rng)
        expected = Preprocess(size=16)(stored[None, top : top + height, left : left + width])
        actual = Preprocess()(crop["images"][i][None])
        np.testing.assert_array_equal(actual, expected)
        rng = np.random.default_rng(np.random.SeedSequence(1, spawn_key=(0, i)))
        image = cutout.Cutout(2)(PAD_CROP()(plain["images"][i], rng), rng)
        np.testing.assert_array_equal(both["images"][i], image)
