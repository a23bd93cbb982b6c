"""Geometries: boxes against samples drawn from the formulas, pixels against formulas in float64."""

import numpy as np
import pytest
from PIL import Image

from vitcnn.data import Preprocess, augment

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)


def geometry(text):
    (augmentation,) = augment.parse(text)
    return augmentation


def boxes(text, height, width, n=3000, seed=0):
    rng = np.random.default_rng(seed)
    crop = geometry(text)
    return np.array([crop.box(height, width, rng) for _ in range(n)])


def distance(a, b):
    """Kolmogorov-Smirnov distance of two samples."""
    both = np.sort(np.concatenate([a, b]))
    cdf = [np.searchsorted(np.sort(x), both, side="right") / len(x) for x in (a, b)]
    return np.abs(cdf[0] - cdf[1]).max()


def assert_same_distribution(a, b):
    assert distance(a, b) < 1.95 * np.sqrt(1 / len(a) + 1 / len(b))  # one in a thousand by chance


def inception_sides(height, width, low, n, rng):
    """Uniform aspect, then uniform height between those of the least and the greatest area."""
    aspect = rng.uniform(0.75, 1.33, n)
    least = np.sqrt(low * height * width / aspect)
    most = np.minimum.reduce([np.sqrt(height * width / aspect), np.full(n, height), width / aspect])
    rows = rng.uniform(least, np.maximum(most, least))
    return rows, rows * aspect


@pytest.mark.parametrize(("height", "width", "low"), [(375, 500, 0.05), (500, 333, 0.25)])
def test_inception_crop_draws_googles_boxes(height, width, low):
    top, left, rows, columns = boxes(f"inception_crop({low})", height, width).T
    area = rows * columns / (height * width)
    assert low <= area.min() and area.max() <= 1
    assert (columns / rows).min() > 0.74 and (columns / rows).max() < 1.34
    # The last offset is never taken, unless the crop has the whole side.
    assert ((top + rows < height) | (rows == height)).all() and top.min() == 0
    assert ((left + columns < width) | (columns == width)).all() and left.min() == 0
    rng = np.random.default_rng(1)
    expected_rows, expected_columns = inception_sides(height, width, low, 20_000, rng)
    assert_same_distribution(rows, expected_rows)
    assert_same_distribution(columns, expected_columns)
    assert_same_distribution(top / np.maximum(height - rows, 1), rng.uniform(0, 1, 20_000))


def test_inception_crop_of_tiny_and_narrow_images():
    for height, width in ((1, 1), (2, 1), (1, 300), (300, 1), (2, 3)):
        top, left, rows, columns = boxes("inception_crop", height, width, n=300).T
        assert (top + rows <= height).all() and (left + columns <= width).all()
        assert (rows > 0).all() and (columns > 0).all()
    # A line of 300 pixels has no crop of 5 % with this aspect ratio: it is taken whole.
    assert (boxes("inception_crop", 1, 300, n=50) == (0, 0, 1, 300)).all()
    # Sides are rounded, but areas are within their bounds.
    area = boxes("inception_crop(0.5, 0.6)", 9, 9, n=300)[:, 2:].prod(1)
    assert set(area) == {42, 48}  # 6 x 7, 7 x 6, 6 x 8, 8 x 6 of 40.5 to 48.6


def bilinear(crop, height, width):
    """Bilinear between the centres of the four nearest pixels, edges repeated, in float64."""
    weights = []
    for size, whole in ((height, crop.shape[0]), (width, crop.shape[1])):
        at = (np.arange(size) + 0.5) * whole / size - 0.5
        low = np.floor(at)
        matrix = np.zeros((size, whole))
        for i in range(size):
            for pixel, weight in ((low[i], 1 - (at[i] - low[i])), (low[i] + 1, at[i] - low[i])):
                matrix[i, int(np.clip(pixel, 0, whole - 1))] += weight
        weights.append(matrix)
    return np.einsum("ir,jc,rck->ijk", *weights, crop.astype(np.float64))


@pytest.mark.parametrize("size", [(16, 16), (64, 48)])
def test_inception_crop_is_bilinear_without_antialias_and_rounded_down(size):
    crop = geometry("inception_crop")
    for seed in range(5):
        actual = crop(IMAGE, Preprocess(size=size), np.random.default_rng(seed))
        top, left, rows, columns = crop.box(40, 60, np.random.default_rng(seed))
        expected = bilinear(IMAGE[top : top + rows, left : left + columns], *size)
        whole = np.abs(expected - np.round(expected)) < 1e-6  # either side is right
        np.testing.assert_array_equal(actual[~whole], np.floor(expected)[~whole])
        assert np.abs(actual - expected).max() <= 1 + 1e-6


@pytest.mark.parametrize(("height", "width"), [(375, 500), (64, 256)])
def test_random_resized_crop_draws_torchvisions_boxes(height, width):
    top, left, rows, columns = boxes("random_resized_crop", height, width).T
    rng = np.random.default_rng(1)
    n = 60_000
    area = rng.uniform(0.08, 1, n) * height * width
    aspect = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3), n))
    expected = np.round([np.sqrt(area / aspect), np.sqrt(area * aspect)])
    fits = (expected[0] <= height) & (expected[1] <= width)
    misses = (1 - fits.mean()) ** 10
    central = (rows == height) & (columns == min(width, round(height * 4 / 3)))
    if misses > 0.001:  # ten attempts fail: the largest central crop
        assert abs(central.mean() - misses) < 5 * np.sqrt(misses / 3000) + 0.01
        assert (left[central] == (width - columns[central]) // 2).mean() > 0.9
    drawn = ~central
    accepted = expected[:, fits]
    accepted = accepted[:, ~((accepted[0] == height) & (accepted[1] == round(height * 4 / 3)))]
    assert_same_distribution(rows[drawn], accepted[0])
    assert_same_distribution(columns[drawn], accepted[1])
    # The last offset is taken, unlike by the inception crop.
    assert ((top + rows == height) & (rows < height)).any()
    assert ((left + columns == width) & (columns < width)).any()
    assert (top + rows <= height).all() and (left + columns <= width).all()


@pytest.mark.parametrize(
    ("side", "expected"),
    [((30, 400), (0, 180, 30, 40)), ((400, 30), (180, 0, 40, 30)), ((1, 1), (0, 0, 1, 1))],
)
def test_random_resized_crop_falls_back_to_the_centre(side, expected):
    """With areas of 90 % or more, nothing else fits these shapes."""
    assert (boxes("random_resized_crop(0.9)", *side, n=30) == expected).all()


def test_random_resized_crop_is_antialiased_by_the_models_interpolation_or_its_own():
    for text, preprocess, method in (
        ("random_resized_crop", Preprocess(size=16, resize=20), Image.Resampling.BILINEAR),
        ("random_resized_crop", Preprocess(16, interpolation="box"), Image.Resampling.BOX),
        ("random_resized_crop(interpolation='bicubic')", Preprocess(16), Image.Resampling.BICUBIC),
    ):
        crop = geometry(text)
        actual = crop(IMAGE, preprocess, np.random.default_rng(3))
        top, left, rows, columns = crop.box(40, 60, np.random.default_rng(3))
        part = Image.fromarray(IMAGE[top : top + rows, left : left + columns])
        np.testing.assert_array_equal(actual, np.asarray(part.resize((16, 16), method)))


def windows(image, height, width):
    return {
        image[top : top + height, left : left + width].tobytes(): (top, left)
        for top in range(image.shape[0] - height + 1)
        for left in range(image.shape[1] - width + 1)
    }


def assert_every_window(text, preprocess, resized, size, n):
    """The crops are windows of the resized image, all of them about equally often."""
    expected = windows(np.asarray(resized), *size)
    crop, rng = geometry(text), np.random.default_rng(0)
    counts = dict.fromkeys(expected.values(), 0)
    for _ in range(n):
        counts[expected[crop(IMAGE, preprocess, rng).tobytes()]] += 1
    mean = n / len(expected)
    assert np.abs(np.array([*counts.values()]) - mean).max() < 5 * np.sqrt(mean)


def test_resize_crop_crops_a_square():
    square = Image.fromarray(IMAGE).resize((20, 20), Image.Resampling.BILINEAR)
    assert_every_window("resize_crop(20)", Preprocess(size=(16, 18)), square, (16, 18), 600)


def test_resize_small_crop_keeps_the_aspect():
    small = Image.fromarray(IMAGE).resize((27, 18), Image.Resampling.BOX)
    preprocess = Preprocess(size=16, resize=24, interpolation="bicubic")
    text = "resize_small_crop(18, interpolation='box')"
    assert_every_window(text, preprocess, small, (16, 16), 1400)


def test_simple_random_crop_pads_by_reflection():
    small = np.asarray(Image.fromarray(IMAGE).resize((24, 16), Image.Resampling.BICUBIC))
    rows, columns = (np.abs(np.arange(-2, n + 2)) for n in small.shape[:2])
    rows, columns = (np.where(k >= n, 2 * n - 2 - k, k) for k, n in ((rows, 16), (columns, 24)))
    padded = small[rows][:, columns]
    preprocess = Preprocess(size=16, interpolation="bicubic")
    assert_every_window("simple_random_crop(2)", preprocess, padded, (16, 16), 2600)
