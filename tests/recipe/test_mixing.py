"""Mixing: every pixel from its formula, distributions from SciPy, and the same on two devices."""

import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import running
import scipy.stats

from vitcnn.recipe.mixing import Mixing, mix

HEIGHT, WIDTH = 12, 9


STEPS = 2000


@functools.cache
def program(settings):
    """Mixes one batch for each of many keys."""
    return jax.jit(jax.vmap(functools.partial(mix, settings), in_axes=(0, None, None)))


def mixed(settings, images, targets, steps=STEPS, seed=0):
    keys = jax.random.split(jax.random.key(seed), steps)
    batch = map(jnp.asarray, (images, targets))
    return [np.asarray(x) for x in program(settings)(keys, *batch)]


def before(x):
    """The partner of each image: the one before it, the last for the first."""
    return np.stack([x[i - 1] for i in range(len(x))]).astype(np.float64)


def assert_weighted_means(mixed, weights, x):
    """Fails unless each step has the means of an array and its partners, in float64."""
    weights = weights.astype(np.float64).reshape(-1, *[1] * x.ndim)
    np.testing.assert_allclose(mixed, weights * x + (1 - weights) * before(x), atol=1e-6)


@pytest.mark.parametrize("how", ["mixup", "cutmix"])
def test_whole_targets_have_both_classes(how):
    """An image with a partner of its own class keeps one; images without a partner keep theirs."""
    images = np.zeros((3, HEIGHT, WIDTH, 3), np.float32)
    targets = np.eye(4, dtype=np.float32)[[1, 1, 3]]
    settings = Mixing(**{how: 0.8}, probability=0.5, whole_targets=True)
    _, new_targets = mixed(settings, images, targets, steps=200)
    both = np.array([[0, 1, 0, 1], [0, 1, 0, 0], [0, 1, 0, 1]])
    kinds = {tuple(step.ravel()) for step in new_targets}
    assert {tuple(both.ravel()), tuple(targets.ravel())} == kinds


@pytest.mark.parametrize("larger_share", [False, True])
def test_mixup_is_one_weighted_mean_for_images_and_targets(larger_share):
    """A batch of odd size, whose targets tell the weights."""
    images = np.random.default_rng(0).normal(size=(3, 2, 4, 3)).astype(np.float32)
    targets = np.eye(3, dtype=np.float32)
    settings = Mixing(mixup=0.5, larger_share=larger_share)
    new_images, new_targets = mixed(settings, images, targets)
    assert new_images.dtype == new_targets.dtype == np.float32
    weights = new_targets[:, 0, 0]
    assert_weighted_means(new_targets, weights, targets)
    assert_weighted_means(new_images, weights, images)
    beta = scipy.stats.beta(0.5, 0.5)
    cdf = (lambda a: 2 * beta.cdf(a) - 1) if larger_share else beta.cdf
    assert scipy.stats.kstest(weights, cdf).pvalue > 0.01
    if larger_share:
        np.testing.assert_array_equal(new_targets.argmax(-1), [range(3)] * STEPS)


def rectangle(mask):
    """Returns (rows, columns, top, left) of a mask, which has to be one full rectangle."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        return 0, 0, -1, -1
    assert mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    assert mask.sum() == (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
    return len(rows), len(columns), rows[0], columns[0]


def test_cutmix_is_a_box_of_the_partner_and_counts_its_pixels():
    """Any centre, and the mean sides and area of quantiles of Beta."""
    alpha = 0.7
    images = np.random.default_rng(0).normal(size=(3, HEIGHT, WIDTH, 1)).astype(np.float32)
    targets = np.eye(3, dtype=np.float32)
    new_images, new_targets = mixed(Mixing(cutmix=alpha), images, targets)
    of_partner = new_images == before(images).astype(np.float32)
    assert (of_partner | (new_images == images)).all(), "each pixel is one of two"
    assert (of_partner == of_partner[:, :1]).all(), "the same box in every image"
    boxes = np.array([rectangle(mask) for mask in of_partner[:, 0, :, :, 0]])
    areas = boxes[:, 0] * boxes[:, 1]
    assert_weighted_means(new_targets, 1 - areas / (HEIGHT * WIDTH), targets)

    def mean_length(size, side):
        half = int(size * side) // 2
        return np.mean([min(c + half, size) - max(c - half, 0) for c in range(size)])

    quantiles = scipy.stats.beta(alpha, alpha).ppf((np.arange(2000) + 0.5) / 2000)
    lengths = [
        (mean_length(HEIGHT, side), mean_length(WIDTH, side)) for side in np.sqrt(1 - quantiles)
    ]
    for values, expected in (
        (areas, np.mean([rows * columns for rows, columns in lengths])),
        # The rows of a box without columns cannot be seen.
        (boxes[:, 0], np.mean([rows if columns else 0 for rows, columns in lengths])),
        (boxes[:, 1], np.mean([columns if rows else 0 for rows, columns in lengths])),
    ):
        assert abs(values.mean() - expected) < 4 * values.std() / np.sqrt(STEPS)


def test_a_step_is_mixed_with_a_probability_and_switches_between_both():
    """Constant images 0 and 1: a mean is neither, a box is part of both."""
    images = np.stack([np.zeros((6, 6, 1)), np.ones((6, 6, 1))]).astype(np.float32)
    settings = Mixing(mixup=1.0, cutmix=3.0, probability=0.6, switch=0.3)
    new_images, new_targets = mixed(settings, images, np.eye(2, dtype=np.float32))
    first = new_images[:, 0].reshape(STEPS, -1)
    is_mean = ((first > 0) & (first < 1)).any(1)
    is_box = ~is_mean & (first == 1).any(1)
    unmixed = (first == 0).all(1)
    small_boxes = (unmixed & (new_targets[:, 0, 0] == 1)).mean()
    assert (is_mean | is_box | unmixed).all()
    # Some boxes have no pixel: of a side below a third of the 6 pixels.
    empty = 0.6 * 0.3 * scipy.stats.beta(3, 3).sf(1 - (1 / 3) ** 2)
    for share, expected in (
        (is_mean.mean(), 0.6 * 0.7),
        (is_box.mean(), 0.6 * 0.3 - empty),
        (small_boxes, 0.4 + empty),
    ):
        assert abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / STEPS)
    np.testing.assert_array_equal(new_images[unmixed], [images] * unmixed.sum())


def erased_in_a_loop(rng):
    """timm's rule for one image: at most 10 attempts at (rows, columns, top, left)."""
    for _ in range(10):
        area = rng.uniform(0.02, 0.33) * HEIGHT * WIDTH
        aspect = np.exp(rng.uniform(np.log(0.3), np.log(1 / 0.3)))
        rows, columns = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
        if rows < HEIGHT and columns < WIDTH:
            top, left = rng.integers(0, [HEIGHT - rows + 1, WIDTH - columns + 1])
            return rows, columns, top, left
    return 0, 0, -1, -1


def test_erasing_replaces_a_rectangle_by_noise():
    images = np.full((4001, HEIGHT, WIDTH, 3), 50.0, np.float32)
    targets = np.zeros((4001, 2), np.float32)
    targets[::2, 0], targets[1::2, 1] = 1, 1
    (new_images,), (new_targets,) = mixed(Mixing(erasing=0.25), images, targets, 1)
    np.testing.assert_array_equal(new_targets, targets)
    changed = new_images != 50
    assert (changed == changed[..., :1]).all(), "all channels"
    boxes = np.array([rectangle(mask) for mask in changed[..., 0]])
    erased = boxes[:, 0] > 0
    assert abs(erased.mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 4001)
    noise = new_images[changed]
    assert abs(noise.mean()) < 0.02 and abs(noise.std() - 1) < 0.02
    assert len(np.unique(noise)) > 0.99 * noise.size, "each value is drawn"
    rng = np.random.default_rng(1)
    expected = np.array([erased_in_a_loop(rng) for _ in range(4000)])
    for values, oracle in zip(boxes[erased].T, expected.T, strict=True):
        assert scipy.stats.ks_2samp(values, oracle).pvalue > 0.01

    (both,), (shares,) = mixed(Mixing(erasing=0.25, mixup=0.5), images, targets, 1)
    a = np.float64(shares[1, 1])
    np.testing.assert_allclose(both, a * new_images + (1 - a) * before(new_images), atol=2e-5)


def test_what_is_off_does_nothing():
    images, targets = jnp.ones((3, 4, 4, 3)), jnp.eye(3)
    for settings in (Mixing(), Mixing(mixup=1.0, probability=0.0)):
        new_images, new_targets = mix(settings, jax.random.key(0), images, targets)
        assert new_images is images and new_targets is targets


TWO_DEVICES = """
import jax, jax.numpy as jnp, numpy as np
from vitcnn import parallel
from vitcnn.recipe.mixing import Mixing, mix
settings = Mixing(mixup=0.5, cutmix=1.0, erasing=0.5)
images = np.random.default_rng(0).normal(size=(6, 8, 8, 3)).astype(np.float32)
targets = np.eye(6, dtype=np.float32)
assert jax.device_count() == 2
program = jax.jit(lambda key, *batch: mix(settings, key, *batch))
for seed in range(4):
    key = jax.random.key(seed)
    one = program(key, jnp.asarray(images), jnp.asarray(targets))
    two = program(key, *parallel.shard((images, targets), parallel.data_mesh()))
    assert len(two[0].sharding.device_set) == 2
    for a, b in zip(one, two):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
    assert np.any(np.asarray(one[0]) != images)
"""


def test_two_devices_mix_as_one():
    """The partner of the first image of a device lies on the other one."""
    result = subprocess.run(
        [sys.executable, "-c", TWO_DEVICES],
        cwd=running.ROOT,
        env=running.environment(devices=2),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr[-2000:]


BAD = {
    "mixup": (-0.1, "config.mixing.mixup = -0.1: expected a number from 0"),
    "cutmix": (float("nan"), "config.mixing.cutmix = nan: expected a number from 0"),
    "probability": (1.5, "config.mixing.probability = 1.5: expected a probability"),
    "switch": (-1.0, "config.mixing.switch = -1.0: expected a probability"),
    "erasing": (2.0, "config.mixing.erasing = 2.0: expected a probability"),
}


@pytest.mark.parametrize("field", BAD)
def test_bad_settings_are_named(field):
    value, message = BAD[field]
    with pytest.raises(ValueError, match=message):
        Mixing(**{field: value})
