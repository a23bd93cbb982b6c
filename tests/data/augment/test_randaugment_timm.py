"""RandAugment of timm: against Pillow at arguments worked out by hand, and against timm itself."""

import numpy as np
import pytest
from generators import Sign
from PIL import Image, ImageEnhance, ImageOps

from vitcnn.data.augment.randaugment_timm import OPERATIONS, TimmRandAugment
from vitcnn.data.augment.random_resized_crop import RandomResizedCrop
from vitcnn.data.preprocess import Preprocess

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
PICTURE = Image.fromarray(IMAGE)
FILL = (124, 116, 104)
BICUBIC = Image.Resampling.BICUBIC
MAGNITUDES = (0, 5, 9, 10)


def apply(operation, magnitude, positive=True, **fields):
    augmentation = TimmRandAugment(**fields)
    picture = getattr(augmentation, operation)(PICTURE, magnitude / 10, Sign(positive))
    return np.asarray(picture)


def assert_is(operation, magnitude, picture, positive=True):
    np.testing.assert_array_equal(apply(operation, magnitude, positive), np.asarray(picture))


@pytest.mark.parametrize("magnitude", MAGNITUDES)
def test_operations_without_strength(magnitude):
    assert_is("auto_contrast", magnitude, ImageOps.autocontrast(PICTURE))
    assert_is("equalize", magnitude, ImageOps.equalize(PICTURE))
    assert_is("invert", magnitude, 255 - IMAGE)


def test_larger_magnitudes_leave_fewer_bits_and_levels():
    for magnitude, bits in ((0, 4), (5, 2), (9, 1)):
        assert_is("posterize", magnitude, ImageOps.posterize(PICTURE, bits))
    assert (apply("posterize", 10) == 0).all()
    for magnitude, threshold in ((0, 256), (5, 128), (9, 26), (10, 0)):
        expected = np.where(threshold > IMAGE, IMAGE, 255 - IMAGE)
        assert_is("solarize", magnitude, expected)
    for magnitude, addition in ((0, 0), (5, 55), (9, 99), (10, 110)):
        expected = np.where(IMAGE < 128, IMAGE + np.uint8(addition), IMAGE)
        assert_is("solarize_add", magnitude, expected)


@pytest.mark.parametrize(
    ("operation", "enhancer"),
    [
        ("color", ImageEnhance.Color),
        ("contrast", ImageEnhance.Contrast),
        ("brightness", ImageEnhance.Brightness),
        ("sharpness", ImageEnhance.Sharpness),
    ],
)
def test_enhancements_go_both_ways(operation, enhancer):
    for magnitude, more, less in ((0, 1, 1), (5, 1.45, 0.55), (9, 1.81, 0.19), (10, 1.9, 0.1)):
        assert_is(operation, magnitude, enhancer(PICTURE).enhance(more), True)
        assert_is(operation, magnitude, enhancer(PICTURE).enhance(less), False)


@pytest.mark.parametrize(("positive", "sign"), [(True, 1), (False, -1)])
def test_motions(positive, sign):
    def affine(*matrix):
        kind = Image.Transform.AFFINE
        return PICTURE.transform((56, 40), kind, matrix, BICUBIC, fillcolor=FILL)

    rotated = PICTURE.rotate(27 * sign, BICUBIC, fillcolor=FILL)
    assert_is("rotate", 9, rotated, positive)
    assert_is("shear_x", 9, affine(1, 0.27 * sign, 0, 0, 1, 0), positive)
    assert_is("shear_y", 9, affine(1, 0, 0, 0.27 * sign, 1, 0), positive)
    assert_is("translate_x", 9, affine(1, 0, 0.9 * 0.45 * sign * 56, 0, 1, 0), positive)
    assert_is("translate_y", 9, affine(1, 0, 0, 0, 1, 0.9 * 0.45 * sign * 40), positive)
    moved = apply("translate_x", 10, fill=(1, 2, 3), interpolation="nearest")  # 25.2 pixels
    np.testing.assert_array_equal(moved[:, :30], IMAGE[:, 25:55])
    assert (moved[:, 31:] == (1, 2, 3)).all()


def test_interpolation_may_be_random():
    bilinear, bicubic = (apply("rotate", 9, interpolation=i) for i in ("bilinear", "bicubic"))
    augmentation = TimmRandAugment(interpolation="random")
    kinds = []
    for seed in range(200):
        picture = augmentation.rotate(PICTURE, 0.9, np.random.default_rng(seed))
        kinds.append([np.array_equal(picture, kind) for kind in (bilinear, bicubic)])
    # Half of the rotations go to the other side.
    assert np.abs(np.mean(kinds, axis=0) - 0.25).max() < 4 * np.sqrt(0.25 * 0.75 / 200)


def test_operations_are_applied_half_of_the_time_at_varied_levels(monkeypatch):
    calls = []

    def recorded(name, original):
        def operation(self, picture, level, rng):
            calls.append((name, level))
            return original(self, picture, level, rng)

        return operation

    for name in OPERATIONS:
        monkeypatch.setattr(TimmRandAugment, name, recorded(name, getattr(TimmRandAugment, name)))
    augmentation, image, unchanged = TimmRandAugment(), IMAGE[:8, :8], 0
    for seed in range(1500):
        before = len(calls)
        result = augmentation(image, np.random.default_rng(seed))
        if len(calls) == before:
            unchanged += 1
            np.testing.assert_array_equal(result, image)
    assert abs(unchanged / 1500 - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 1500)
    counts = np.array([sum(name == n for n, _ in calls) for name in OPERATIONS])
    assert len(OPERATIONS) == 15 and np.abs(counts - 100).max() < 4.5 * np.sqrt(100)
    levels = np.array([level for _, level in calls])
    # Normal, mean 0.9 and deviation 0.05; 2.3 % lie above 1 and are cut.
    assert abs(np.median(levels) - 0.9) < 0.006 and levels.max() == 1
    assert abs(np.mean(levels == 1) - 0.0228) < 0.016
    assert abs(np.mean(levels < 0.85) - 0.1587) < 0.04


@pytest.mark.oracle
def test_operations_are_those_of_timm():
    from timm.data import auto_augment

    names = {
        "auto_contrast": "AutoContrast",
        "equalize": "Equalize",
        "invert": "Invert",
        "rotate": "Rotate",
        "posterize": "PosterizeIncreasing",
        "solarize": "SolarizeIncreasing",
        "solarize_add": "SolarizeAdd",
        "color": "ColorIncreasing",
        "contrast": "ContrastIncreasing",
        "brightness": "BrightnessIncreasing",
        "sharpness": "SharpnessIncreasing",
        "shear_x": "ShearX",
        "shear_y": "ShearY",
        "translate_x": "TranslateXRel",
        "translate_y": "TranslateYRel",
    }
    assert [names[name] for name in OPERATIONS] == auto_augment._RAND_INCREASING_TRANSFORMS
    for operation, name in names.items():
        for magnitude in (0, 3, 5, 9, 10):
            if operation == "posterize" and magnitude == 10:
                continue  # Pillow refuses the 0 bits that timm asks for
            seen = set()
            for _ in range(20):  # of both signs
                options = {"img_mean": FILL, "interpolation": BICUBIC}
                theirs = auto_augment.AugmentOp(name, 1.0, magnitude, options)(PICTURE)
                signs = [
                    np.array_equal(apply(operation, magnitude, positive), np.asarray(theirs))
                    for positive in (True, False)
                ]
                assert any(signs), (operation, magnitude)
                seen.add(tuple(signs))
            assert len(seen) <= 2


@pytest.mark.oracle
def test_random_resized_crop_is_torchvisions():
    import torch
    from torchvision import transforms

    torch.manual_seed(0)
    crop = RandomResizedCrop(interpolation="bicubic")
    theirs = transforms.RandomResizedCrop(16, interpolation=BICUBIC)
    rng = np.random.default_rng(0)
    boxes = np.array([crop.box(40, 56, rng) for _ in range(4000)])
    expected = np.array(
        [theirs.get_params(PICTURE, theirs.scale, theirs.ratio) for _ in range(4000)]
    )
    for column in range(4):
        both = np.sort(np.concatenate([boxes[:, column], expected[:, column]]))
        ours, other = (
            np.searchsorted(np.sort(sample[:, column]), both, side="right") / 4000
            for sample in (boxes, expected)
        )
        assert np.abs(ours - other).max() < 1.95 * np.sqrt(2 / 4000)
    for seed in range(10):
        top, left, rows, columns = crop.box(40, 56, np.random.default_rng(seed))
        resized = transforms.functional.resized_crop(
            PICTURE, top, left, rows, columns, [16, 16], transforms.InterpolationMode.BICUBIC
        )
        actual = crop(IMAGE, Preprocess(size=16), np.random.default_rng(seed))
        np.testing.assert_array_equal(actual, np.asarray(resized))


@pytest.mark.oracle
def test_color_jitter_has_torchvisions_operations():
    from torchvision.transforms import functional

    from vitcnn.data.augment.color_jitter import ColorJitter

    adjust = (
        functional.adjust_brightness,
        functional.adjust_contrast,
        functional.adjust_saturation,
    )
    for seed in range(20):
        rng, picture = np.random.default_rng(seed), PICTURE
        for step in rng.permutation(3):
            picture = adjust[step](picture, rng.uniform(0.7, 1.3))
        actual = ColorJitter(0.3)(IMAGE, np.random.default_rng(seed))
        np.testing.assert_array_equal(actual, np.asarray(picture))
