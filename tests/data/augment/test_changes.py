"""Changes that keep the geometry of an image, against formulas in NumPy."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from vitcnn.data import augment

IMAGE = np.random.default_rng(0).integers(0, 256, (12, 10, 3), np.uint8)


def change(text):
    (augmentation,) = augment.parse(text)
    return augmentation


def test_flip_mirrors_half_of_the_images():
    rng = np.random.default_rng(0)
    mirrored = 0
    for _ in range(400):
        image = change("flip")(IMAGE, rng)
        mirrored += np.array_equal(image, IMAGE[:, ::-1])
        assert np.array_equal(image, IMAGE[:, ::-1]) or np.array_equal(image, IMAGE)
    assert abs(mirrored - 200) < 4 * np.sqrt(100)


def reflected(k, n):
    """... 2 1 | 0 1 2 ... n-1 | n-2 ..."""
    k = np.abs(k)
    return np.where(k >= n, 2 * (n - 1) - k, k)


def shifted(dy, dx, mode):
    rows, columns = np.arange(12) + dy, np.arange(10) + dx
    if mode == "reflect":
        return IMAGE[reflected(rows, 12)][:, reflected(columns, 10)]
    inside = ((rows >= 0) & (rows < 12))[:, None] & ((columns >= 0) & (columns < 10))
    return IMAGE[rows % 12][:, columns % 10] * inside[..., None].astype(np.uint8)


@pytest.mark.parametrize(("pad", "mode"), [(4, "reflect"), (4, "zero"), (2, "zero")])
def test_pad_crop_shifts_up_to_its_border(pad, mode):
    offsets = range(-pad, pad + 1)
    windows = {shifted(dy, dx, mode).tobytes(): (dy, dx) for dy in offsets for dx in offsets}
    crop, rng = change(f"pad_crop({pad}, '{mode}')"), np.random.default_rng(1)
    shifts = [windows[crop(IMAGE, rng).tobytes()] for _ in range(2000)]
    counts = np.unique(shifts, axis=0, return_counts=True)[1]
    expected = 2000 / len(offsets) ** 2
    assert len(counts) == len(offsets) ** 2  # every shift happens, none much more than another
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)


def test_pad_crop_cannot_reflect_more_than_the_image():
    with pytest.raises(ValueError, match="larger than 4 pixels, not 4 x 9"):
        change("pad_crop")(np.zeros((4, 9, 3), np.uint8), np.random.default_rng(0))


@pytest.mark.parametrize(("size", "fill"), [(4, 128), (5, 0)])
def test_cutout_greys_a_square_around_each_pixel_alike(size, fill):
    """The centre is uniform, so rows that lie within half a square of the border are rarer."""
    squares = {}
    for y in range(12):
        for x in range(10):
            image = IMAGE.copy()
            for row in range(12):
                for column in range(10):
                    if 0 <= row - y + size // 2 < size and 0 <= column - x + size // 2 < size:
                        image[row, column] = fill
            squares[image.tobytes()] = (y, x)
    assert len(squares) == 120
    cutout, rng = change(f"cutout({size}, fill={fill})"), np.random.default_rng(2)
    centres = [squares[cutout(IMAGE, rng).tobytes()] for _ in range(2400)]
    counts = np.unique(centres, axis=0, return_counts=True)[1]
    assert len(counts) == 120 and np.abs(counts - 20).max() < 5 * np.sqrt(20)


def grey(image):
    """Rec. 601 luma, rounded, as Pillow's mode L."""
    weights = np.array([19595, 38470, 7471])  # of 2 ** 16
    return ((image.astype(int) * weights).sum(-1) + 2**15) >> 16


def blended(base, image, factor):
    """base + factor (image - base), clipped and rounded down."""
    values = base + np.float64(factor) * (image.astype(int) - base)
    return np.clip(values, 0, 255)


def test_color_jitter_blends_in_random_order():
    """Against float64; a rounding down may fall to either side of a whole number."""
    jitter = change("color_jitter(0.4)")
    orders, factors = set(), []
    for seed in range(60):
        actual = jitter(IMAGE, np.random.default_rng(seed))
        rng = np.random.default_rng(seed)
        order = rng.permutation(3).tolist()
        expected = IMAGE
        for step in order:
            factor = rng.uniform(0.6, 1.4)
            factors.append(factor)
            base = {
                0: 0,  # brightness
                1: np.floor(grey(expected).mean() + 0.5),  # contrast
                2: grey(expected)[..., None],  # saturation
            }[step]
            expected = np.floor(blended(base, expected, factor) + 1e-9).astype(np.uint8)
        difference = np.abs(actual.astype(int) - expected)
        assert difference.max() <= 2 and (difference > 0).mean() < 0.02
        orders.add(tuple(order))
    assert len(orders) == 6 and min(factors) < 0.65 and max(factors) > 1.35
    np.testing.assert_array_equal(change("color_jitter(0)")(IMAGE, np.random.default_rng(0)), IMAGE)


def test_three_augment_takes_one_of_three():
    three = change("three_augment")
    solarised = np.where(IMAGE < 128, IMAGE, 255 - IMAGE)
    greyed = np.repeat(grey(IMAGE)[..., None], 3, axis=-1)
    counts = np.zeros(3, int)
    radii = []
    for seed in range(300):
        actual = three(IMAGE, np.random.default_rng(seed))
        if np.array_equal(actual, greyed):
            counts[0] += 1
        elif np.array_equal(actual, solarised):
            counts[1] += 1
        else:
            rng = np.random.default_rng(seed)
            assert rng.integers(3) == 2
            radii.append(rng.uniform(0.1, 2.0))
            blurred = Image.fromarray(IMAGE).filter(ImageFilter.GaussianBlur(radii[-1]))
            np.testing.assert_array_equal(actual, np.asarray(blurred))
            counts[2] += 1
    assert np.abs(counts - 100).max() < 4 * np.sqrt(300 * 2 / 9)
    assert min(radii) < 0.3 and max(radii) > 1.8
