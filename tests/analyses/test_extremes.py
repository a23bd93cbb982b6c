"""CKA without extreme images against NumPy, and where an outlier makes it."""

import numpy as np
import oracles
import pytest
from views import measured, vector

from vitcnn.analyses import extremes

N = 40


def layers(seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N, 7)).astype(np.float32)
    y = (x @ rng.normal(size=(7, 9)) + rng.normal(size=(N, 9))).astype(np.float32)
    return x, y


def without(x, y, of, groups, left_out):
    """CKA of x and y without the images that are farthest from the mean of a layer."""
    sums = np.zeros(3)
    for part in np.split(np.arange(N), groups):
        far = ((np.float64(of[part]) - np.float64(of[part]).mean(0)) ** 2).sum(1)
        kept = part[np.argsort(far)[:-left_out]]
        k, h = oracles.linear(x[kept]), oracles.linear(y[kept])
        n = len(kept)
        pairs = (k, h), (k, k), (h, h)
        sums += n * (n - 3) * np.array([oracles.song(*pair) for pair in pairs])
    return sums[0] / np.sqrt(sums[1] * sums[2])


def test_equals_numpy_without_these_images():
    x, y = layers()
    taps = {"a": [(vector("x", x), x)], "b": [(vector("y", y), y)]}
    result = measured(extremes, taps, share=0.06)
    assert list(result.layer_x.values) == ["a/x", "b/y"]
    for i, of in enumerate((x, y)):  # 0.06 of 20 images is 2, rounded up
        for j, other in enumerate((x, y)):
            expected = without(of, other, of, 2, 2)
            np.testing.assert_allclose(result.cka_without[i, j], expected, atol=1e-5)
    whole = oracles.minibatch_cka(x, y, 20)
    np.testing.assert_allclose(result.cka[0, 1], whole, atol=1e-5)
    np.testing.assert_allclose(result.influence, result.cka - result.cka_without)
    shares = []
    for group in np.split(np.float64(x), 2):
        far = np.sort(((group - group.mean(0)) ** 2).sum(1))
        shares.append(far[-2:].sum() / far.sum())
    np.testing.assert_allclose(result.extreme_energy[0], np.mean(shares), 1e-5)


def test_two_images_that_make_a_cka_are_found():
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=(N, 30)).astype(np.float32) for _ in range(2))
    x[3:5] += 40  # one alone would be on the diagonal, which unbiased CKA leaves out
    y[3:5] += 40
    dead = np.ones((N, 4), np.float32)
    taps = [(vector("x", x), x), (vector("y", y), y), (vector("dead", dead), dead)]
    with pytest.warns(UserWarning, match="do not vary.*: m/dead"):
        result = measured(extremes, {"m": taps}, groups=1, share=0.05)
    assert float(result.cka[0, 1]) > 0.95
    assert abs(float(result.cka_without[0, 1])) < 0.3
    assert np.isnan(result.cka_without[2]).all() and np.isnan(result.cka_without[:, 2]).all()
    assert len(extremes.draw([result]).axes) == 4


def test_errors():
    x, _ = layers()
    with pytest.raises(ValueError, match=r"share = 0.9 leaves 2 of 20 images of a group"):
        measured(extremes, {"m": [(vector("x", x), x)]}, share=0.9)
