"""Every operation of RandAugment at magnitudes 0, 10, 15 and 20, against NumPy and fixed arrays."""

import numpy as np
import pytest
from generators import Sign
from PIL import Image

from vitcnn.data.augment.randaugment import OPERATIONS, RandAugment
from vitcnn.data.augment.randaugment_relative import RelativeRandAugment

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
RAMP = np.stack([np.arange(256, dtype=np.uint8)] * 3, axis=-1)[None]  # every grey level
# Magnitude -> the factor of the enhancing operations in tenths: 1.8 m / 10 + 0.1.
TENTHS = {0: 1, 10: 19, 15: 28, 20: 37}
MAGNITUDES = tuple(TENTHS)


def apply(operation, magnitude, image=IMAGE, rng=None, augmentation=RandAugment):
    picture = getattr(augmentation(1, magnitude), operation)(
        Image.fromarray(image), rng or np.random.default_rng(0)
    )
    return np.asarray(picture)


def levels(operation, magnitude):
    """Returns what becomes of the grey levels 0 to 255."""
    image = apply(operation, magnitude, RAMP)
    assert (image[..., 0] == image[..., 1]).all() and (image[..., 0] == image[..., 2]).all()
    return image[0, :, 0]


V = np.arange(256)
PROBES = [0, 1, 100, 127, 128, 129, 200, 254, 255]


@pytest.mark.parametrize("magnitude", MAGNITUDES)
def test_invert_is_the_negative(magnitude):
    np.testing.assert_array_equal(apply("invert", magnitude), 255 - IMAGE)


@pytest.mark.parametrize("magnitude", MAGNITUDES)
def test_auto_contrast_stretches_each_channel(magnitude):
    image = np.array([[[10, 0, 7], [60, 128, 7], [110, 255, 7], [35, 1, 7]]], np.uint8)
    expected = [
        [[0, 0, 7], [127, 128, 7], [255, 255, 7], [63, 1, 7]]
    ]  # 127.5 and 63.75, rounded down
    np.testing.assert_array_equal(apply("auto_contrast", magnitude, image), expected)


@pytest.mark.parametrize("magnitude", MAGNITUDES)
def test_equalize_flattens_the_histogram(magnitude):
    """Level v becomes (pixels below v + step // 2) // step; step = pixels below the top // 255."""
    image = (np.random.default_rng(1).beta(2, 5, (40, 50, 3)) * 255).astype(np.uint8)
    image[..., 2] = 9  # a channel of one level stays
    expected = image.copy()
    for channel in (0, 1):
        values = image[..., channel]
        step = (values < values.max()).sum() // 255
        for level in np.unique(values):
            flat = ((values < level).sum() + step // 2) // step
            expected[..., channel][values == level] = min(flat, 255)
    np.testing.assert_array_equal(apply("equalize", magnitude, image), expected)
    few = image[:2, :3]  # fewer pixels than levels: unchanged
    np.testing.assert_array_equal(apply("equalize", magnitude, few), few)


@pytest.mark.parametrize(
    ("magnitude", "expected"),
    [
        (0, [0, 0, 0, 0, 128, 128, 128, 128, 128]),  # 0 bits: TensorFlow keeps one
        (10, [0, 0, 96, 112, 128, 128, 192, 240, 240]),  # 4 bits
        (15, [0, 0, 100, 124, 128, 128, 200, 252, 252]),  # 6 bits
        (20, PROBES),  # 8 bits
        (25, PROBES),
    ],
)
def test_posterize(magnitude, expected):
    np.testing.assert_array_equal(levels("posterize", magnitude)[PROBES], expected)


@pytest.mark.parametrize(
    ("magnitude", "expected"),
    [
        (0, [255, 254, 155, 128, 127, 126, 55, 1, 0]),  # threshold 0
        (5, [0, 1, 100, 127, 127, 126, 55, 1, 0]),  # 128
        (10, [255, 254, 155, 128, 127, 126, 55, 1, 0]),  # 256 is 0 as a byte
        (15, [0, 1, 100, 127, 127, 126, 55, 1, 0]),  # 384 is 128
        (20, [255, 254, 155, 128, 127, 126, 55, 1, 0]),  # 512 is 0
    ],
)
def test_solarize_wraps_its_threshold(magnitude, expected):
    np.testing.assert_array_equal(levels("solarize", magnitude)[PROBES], expected)


@pytest.mark.parametrize(
    ("magnitude", "expected"),
    [
        (0, PROBES),
        (10, [110, 111, 210, 237, 128, 129, 200, 254, 255]),
        (15, [165, 166, 255, 255, 128, 129, 200, 254, 255]),
        (20, [220, 221, 255, 255, 128, 129, 200, 254, 255]),
    ],
)
def test_solarize_add(magnitude, expected):
    np.testing.assert_array_equal(levels("solarize_add", magnitude)[PROBES], expected)


def blended(base, image, magnitude):
    """base + factor (image - base), clipped and rounded down, in whole tenths."""
    tenths = 10 * base + TENTHS[magnitude] * (image.astype(int) - base)
    return np.clip(tenths, 0, 2550) // 10


@pytest.mark.parametrize("magnitude", MAGNITUDES)
def test_brightness_blends_with_black(magnitude):
    np.testing.assert_array_equal(levels("brightness", magnitude), blended(0, V, magnitude))


@pytest.mark.parametrize(
    ("side", "constant"), [((224, 224), 196), ((32, 32), 4), ((384, 384), 255), ((40, 56), 8)]
)
@pytest.mark.parametrize("magnitude", MAGNITUDES)
def test_contrast_blends_with_a_constant_of_the_size(side, constant, magnitude):
    image = np.resize(IMAGE, (*side, 3))
    expected = blended(constant, image, magnitude)
    np.testing.assert_array_equal(apply("contrast", magnitude, image), expected)


@pytest.mark.parametrize("magnitude", MAGNITUDES)
def test_color_blends_with_grey_levels_rounded_down(magnitude):
    grey = np.floor(IMAGE @ np.array([0.2989, 0.5870, 0.1140]) / 255 * 255.5).astype(int)
    expected = blended(grey[..., None], IMAGE, magnitude)
    np.testing.assert_array_equal(apply("color", magnitude), expected)


@pytest.mark.parametrize("magnitude", MAGNITUDES)
def test_sharpness_blends_with_the_smoothed_inside(magnitude):
    image = IMAGE.astype(int)
    smooth = image.copy()
    rows, columns = image.shape[:2]
    for y in range(1, rows - 1):
        for x in range(1, columns - 1):
            around = image[y - 1 : y + 2, x - 1 : x + 2].sum((0, 1))
            smooth[y, x] = (around + 4 * image[y, x]) // 13
    expected = blended(smooth, IMAGE, magnitude)
    np.testing.assert_array_equal(apply("sharpness", magnitude), expected)


def test_enhancements_on_one_pixel():
    """By hand: the grey level of (200, 100, 50) is 124.4; 1.9 of the way is beyond it."""
    pixel = np.array([[[200, 100, 50]]], np.uint8)
    for operation, magnitude, expected in (
        ("color", 0, (131, 121, 116)),
        ("color", 10, (255, 78, 0)),
        ("brightness", 0, (20, 10, 5)),
        ("brightness", 10, (255, 190, 95)),
        ("contrast", 0, (20, 10, 5)),  # the constant of one pixel is 0
        ("sharpness", 0, (200, 100, 50)),  # the border is not smoothed
    ):
        assert tuple(apply(operation, magnitude, pixel)[0, 0]) == expected, (operation, magnitude)


def moved(matrix, offset, image=IMAGE):
    """Returns (image, certain): the nearest pixel at matrix (x, y) + offset, grey where none is.

    Coordinates are of the centres of pixels, the first of them 0. Where they lie within 0.01 pixels
    of the middle between two, either is right.
    """
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width]
    at = np.einsum("ij,jyx->iyx", np.array(matrix, float), np.stack([x, y]))
    at += np.array(offset, float)[:, None, None]
    certain = (np.abs(at - np.floor(at) - 0.5) > 0.01).all(0)
    column, row = np.floor(at + 0.5).astype(int)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    result = np.full_like(image, 128)
    result[inside] = image[row[inside], column[inside]]
    return result, certain


def assert_moved(actual, expected_and_certain, at_least=0.9):
    expected, certain = expected_and_certain
    assert certain.mean() > at_least
    np.testing.assert_array_equal(actual[certain], expected[certain])


@pytest.mark.parametrize("positive", [True, False])
@pytest.mark.parametrize("magnitude", MAGNITUDES)
def test_rotate_turns_about_the_centre(magnitude, positive):
    degrees = {0: 0, 10: 30, 15: 45, 20: 60}[magnitude] * (1 if positive else -1)
    cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    turn = np.array([[cosine, -sine], [sine, cosine]])
    centre = np.array([27.5, 19.5])
    actual = apply("rotate", magnitude, rng=Sign(positive))
    assert_moved(actual, moved(turn, centre - turn @ centre))


@pytest.mark.parametrize("positive", [True, False])
@pytest.mark.parametrize("magnitude", MAGNITUDES)
def test_shears_keep_the_first_row_or_column(magnitude, positive):
    shear = {0: 0, 10: 0.3, 15: 0.45, 20: 0.6}[magnitude] * (1 if positive else -1)
    rng = Sign(positive)
    x, y = apply("shear_x", magnitude, rng=rng), apply("shear_y", magnitude, rng=rng)
    assert_moved(x, moved([[1, shear], [0, 1]], (0, 0)), 0.8)
    assert_moved(y, moved([[1, 0], [shear, 1]], (0, 0)), 0.8)
    np.testing.assert_array_equal(x[0], IMAGE[0])
    np.testing.assert_array_equal(y[:, 0], IMAGE[:, 0])


def test_translations_are_in_pixels():
    image = np.resize(IMAGE, (230, 240, 3))
    for magnitude, pixels in ((0, 0), (10, 100), (15, 150), (20, 200), (7, 70)):
        left = apply("translate_x", magnitude, image, Sign(True))
        right = apply("translate_x", magnitude, image, Sign(False))
        up = apply("translate_y", magnitude, image, Sign(True))
        expected = np.full((230, 240 + pixels, 3), 128, np.uint8)
        expected[:, :240] = image
        np.testing.assert_array_equal(left, expected[:, pixels:])
        expected = np.full((230, 240, 3), 128, np.uint8)
        expected[:, pixels:] = image[:, : 240 - pixels]
        np.testing.assert_array_equal(right, expected)
        assert_moved(up, moved(np.eye(2), (0, pixels), image), 0.99)
    grey = apply("translate_y", 10)  # 100 pixels of a height of 40
    assert (grey == 128).all()


@pytest.mark.parametrize(("magnitude", "half"), [(0, 0), (1, 4), (10, 40), (15, 60), (20, 80)])
def test_cutout_greys_a_square_that_may_leave_the_image(magnitude, half):
    for seed in range(5):
        actual = apply("cutout", magnitude, rng=np.random.default_rng(seed))
        rng = np.random.default_rng(seed)
        x, y = int(rng.integers(56)), int(rng.integers(40))
        expected = IMAGE.copy()
        for row in range(40):
            for column in range(56):
                if y - half <= row < y + half and x - half <= column < x + half:
                    expected[row, column] = 128
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("augmentation", [RandAugment, RelativeRandAugment])
def test_layers_follow_each_other_and_each_operation_is_as_likely(augmentation, monkeypatch):
    calls = []

    def recorded(name, original):
        def operation(self, picture, rng):
            calls.append(name)
            return original(self, picture, rng)

        return operation

    for name in OPERATIONS:
        monkeypatch.setattr(augmentation, name, recorded(name, getattr(augmentation, name)))
    image = IMAGE[:8, :8]
    for seed in range(1600):
        augmentation(2, 10)(image, np.random.default_rng(seed))
    counts = np.array([calls.count(name) for name in OPERATIONS])
    assert len(OPERATIONS) == 16 and counts.sum() == 3200
    assert np.abs(counts - 200).max() < 4.5 * np.sqrt(200)
    repeated = np.mean([a == b for a, b in zip(calls[::2], calls[1::2], strict=True)])
    assert abs(repeated - 1 / 16) < 4 * np.sqrt(1 / 16 / 1600)  # with replacement
    calls.clear()
    actual = augmentation(3, 15)(IMAGE, np.random.default_rng(7))
    rng, picture = np.random.default_rng(7), Image.fromarray(IMAGE)
    for name in list(calls):
        assert OPERATIONS[rng.integers(16)] == name
        picture = getattr(augmentation(1, 15), name)(picture, rng)
    np.testing.assert_array_equal(actual, np.asarray(picture))


def test_both_signs_are_as_likely():
    image = np.resize(IMAGE, (1, 210, 3))
    left = apply("translate_x", 10, image, Sign(True))
    same = [
        np.array_equal(apply("translate_x", 10, image, np.random.default_rng(seed)), left)
        for seed in range(400)
    ]
    assert abs(np.mean(same) - 0.5) < 4 * np.sqrt(0.25 / 400)


# Relative to the size of the image.


@pytest.mark.parametrize("magnitude", MAGNITUDES)
def test_relative_translations_and_squares_are_those_of_224_pixels(magnitude):
    image = np.resize(IMAGE, (32, 32, 3))
    shift = 100 * magnitude / 10 * 32 / 224
    for operation, offset in (("translate_x", (shift, 0)), ("translate_y", (0, shift))):
        actual = apply(operation, magnitude, image, Sign(True), RelativeRandAugment)
        assert_moved(actual, moved(np.eye(2), offset, image), 0.99)
    half = {0: 0, 10: 5, 15: 8, 20: 11}[magnitude]  # 40 m / 10 / 7, rounded down
    rng = np.random.default_rng(3)
    x, y = int(rng.integers(32)), int(rng.integers(32))
    expected = image.copy()
    expected[max(0, y - half) : y + half, max(0, x - half) : x + half] = 128
    actual = apply("cutout", magnitude, image, np.random.default_rng(3), RelativeRandAugment)
    np.testing.assert_array_equal(actual, expected)
    large = np.resize(IMAGE, (224, 224, 3))
    for operation in ("translate_x", "translate_y", "cutout"):
        relative = apply(operation, magnitude, large, None, RelativeRandAugment)
        np.testing.assert_array_equal(relative, apply(operation, magnitude, large))


@pytest.mark.parametrize("magnitude", MAGNITUDES)
def test_relative_contrast_blends_with_the_mean_grey(magnitude):
    luma = (IMAGE.astype(int) @ np.array([19595, 38470, 7471]) + 2**15) >> 16
    expected = blended(int(luma.mean() + 0.5), IMAGE, magnitude)
    actual = apply("contrast", magnitude, augmentation=RelativeRandAugment)
    np.testing.assert_array_equal(actual, expected)


def test_few_small_images_become_grey():
    image = np.resize(IMAGE, (32, 32, 3))
    plain = {}
    for augmentation in (RandAugment, RelativeRandAugment):
        results = (augmentation(2, 10)(image, np.random.default_rng(s)) for s in range(600))
        plain[augmentation] = np.mean([(r == r[0, 0]).all() for r in results])
    # Both translations move 32 pixels by 100, and the square has 80 or, at the border, 40 pixels.
    assert abs(plain[RandAugment] - (1 - (13 / 16) ** 2)) < 4 * np.sqrt(0.34 * 0.66 / 600)
    assert plain[RelativeRandAugment] == 0
