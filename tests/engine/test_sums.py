"""Sums: blocks, totals, saving, and the jackknife against formulas and known variances."""

import jax.numpy as jnp
import numpy as np
import pytest
import xarray

from vitcnn.engine.sums import Sums, estimate
from vitcnn.numerics.exact import Product, Scaled, host_shapes, to_host
from vitcnn.numerics.statistics import jackknife


def mean_of(tree):
    return xarray.Dataset({"mean": ((), tree["sum"] / tree["n"], {"units": "px"})})


def filled(groups, blocks=64):
    sums = Sums(blocks)
    for k, x in enumerate(groups):
        sums.add({"sum": np.float64(x.sum()), "n": np.float64(len(x))}, len(x), k)
    return sums


def test_scaled_numbers_leave_float32_and_come_back():
    tree = {"a": Scaled(jnp.float32([1.5, 2.0]), jnp.int32([200, -200])), "b": jnp.int32(3)}
    host = to_host(tree)
    np.testing.assert_array_equal(host["a"], [1.5 * 2.0**200, 2.0**-199])
    assert host["b"].dtype == np.float64 and host["b"] == 3
    assert host_shapes(tree)["a"].shape == (2,)


def test_standard_error_of_a_mean_of_equal_groups_is_the_textbook_one():
    """For a mean, the jackknife over groups is the standard error of the group means, exactly."""
    groups = np.random.default_rng(0).normal(size=(10, 7))
    result = estimate(filled(groups), mean_of)
    means = groups.mean(1)
    assert float(result["mean"]) == pytest.approx(groups.mean())
    expected = means.std(ddof=1) / np.sqrt(10)
    assert float(result.mean_standard_error) == pytest.approx(expected)
    assert result.mean_standard_error.attrs["units"] == "px"


def test_unequal_groups_are_weighted_and_calibrated():
    rng = np.random.default_rng(1)
    sizes = [20, 20, 20, 20, 20, 20, 20, 20, 3]
    estimates, errors = [], []
    for _ in range(300):
        result = estimate(filled([rng.normal(size=n) for n in sizes]), mean_of)
        estimates.append(float(result["mean"]))
        errors.append(float(result.mean_standard_error))
    truth = 1 / np.sqrt(sum(sizes))
    assert np.std(estimates) == pytest.approx(truth, rel=0.12)
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(truth, rel=0.12)


def test_jackknife_with_equal_blocks_is_the_plain_one():
    values = np.random.default_rng(2).normal(size=(6, 3))
    whole = np.array([0.1, -0.2, 0.3])
    found = jackknife(whole, values, np.full(6, 5.0))
    plain = np.sqrt(5 / 6 * ((values - values.mean(0)) ** 2).sum(0))
    np.testing.assert_allclose(found, plain)


def test_more_groups_than_blocks_share_them():
    groups = np.random.default_rng(3).normal(size=(200, 4))
    sums = filled(groups)
    left_out = list(sums.left_out())
    assert len(left_out) == 64
    assert sums.total()["n"] == 800
    n, left = left_out[5]
    assert n == 4 * len(range(5, 200, 64)) and left["n"] == 800 - n
    kept = [g.sum() for k, g in enumerate(groups) if k % 64 != 5]
    assert left["sum"] == pytest.approx(sum(kept))


def test_no_standard_error_from_one_block():
    one = estimate(filled(np.ones((1, 5))), mean_of)
    huge = estimate(filled(np.ones((9, 5)), blocks=1), mean_of)
    assert np.isnan(one.mean_standard_error) and np.isnan(huge.mean_standard_error)
    assert float(one["mean"]) == float(huge["mean"]) == 1


def test_saved_sums_are_the_same_bits():
    sums = filled(np.random.default_rng(4).normal(size=(70, 3)))
    again = Sums.from_arrays(sums.to_arrays(), {"sum": 0, "n": 0})
    assert again.images == sums.images
    for slot, tree in sums.trees.items():
        assert all(again.trees[slot][key].tobytes() == tree[key].tobytes() for key in tree)


def test_hosts_that_own_other_blocks_merge_to_the_same_bits():
    groups = np.random.default_rng(5).normal(size=(150, 3))
    parts = [Sums(), Sums()]
    for k, x in enumerate(groups):
        parts[k % 64 % 2].add({"sum": x.sum(), "n": np.float64(3)}, 3, k)
    merged = Sums()
    for part in parts:
        merged.merge(part)
    assert merged.total()["sum"].tobytes() == filled(groups).total()["sum"].tobytes()


def test_later_repeats_count_for_the_estimate_and_not_for_the_error():
    groups = np.random.default_rng(6).normal(size=(8, 5))
    sums = filled(groups)
    for k, x in enumerate(groups + 1):
        sums.add({"sum": x.sum(), "n": np.float64(5)}, 5, k, repeat=1)
    result = estimate(sums, mean_of)
    assert float(result["mean"]) == pytest.approx(groups.mean() + 0.5)
    alone = estimate(filled(groups), mean_of)
    assert float(result.mean_standard_error) == float(alone.mean_standard_error)


@pytest.mark.parametrize("offset", [0, 1e4])
def test_products_are_exact_for_features_of_any_mean(offset):
    """Covariance from raw second moments, where float32 sums would have lost every digit."""
    rng = np.random.default_rng(0)
    x = np.float32(rng.normal(size=(60, 5)) + offset)
    y = np.float32(rng.normal(size=(60, 3)) - offset)
    weight = np.float32(rng.integers(0, 2, 60))
    total, count, sum_x, sum_y = 0, 0, 0, 0
    one = np.ones((60, 1), np.float32)
    for start in range(0, 60, 16):
        part = slice(start, start + 16)
        product = Product.of(x[part], y[part], weight[part])
        total = total + to_host(product)
        sum_x = sum_x + to_host(Product.of(x[part], one[part], weight[part]))
        sum_y = sum_y + to_host(Product.of(y[part], one[part], weight[part]))
        count += weight[part].sum()
    found = total / count - sum_x @ sum_y.T / count**2
    kept = weight > 0
    a, b = np.float64(x[kept]), np.float64(y[kept])
    expected = (a - a.mean(0)).T @ (b - b.mean(0)) / kept.sum()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert host_shapes(product).shape == to_host(product).shape == (5, 3)


def test_what_is_no_estimate_gets_no_standard_error():
    total = Sums()
    for k in range(4):
        total.add({"x": np.float64(k)}, 1, k)

    def finalize(s):
        none = {"standard_error": "none"}
        return xarray.Dataset(
            {
                "x": ((), float(s["x"])),
                "low": ((), 0.0, none),
                "y": ((), 1.0),
                "y_standard_error": ((), 7.0),
            }
        )

    result = estimate(total, finalize)
    assert set(result) == {"x", "x_standard_error", "low", "y", "y_standard_error"}
    assert float(result.y_standard_error) == 7


@pytest.mark.parametrize("odd", [1e8, np.nan])
def test_an_image_of_weight_zero_spoils_no_product(odd):
    rng = np.random.default_rng(8)
    x = np.float32(rng.normal(size=(9, 4)) + 100)
    x[[0, 5]] = odd
    weight = np.float32([0, 1, 1, 2, 1, 0, 1, 1, 1])
    found = to_host(Product.of(x, x, weight))
    kept = np.float64(x[weight > 0])
    np.testing.assert_allclose(found, (kept * weight[weight > 0, None]).T @ kept, rtol=1e-7)
    assert not to_host(Product.of(x, x, np.zeros(9, np.float32))).any()


def test_sums_are_added_in_place():
    sums = Sums(1)
    sums.add({"x": np.ones((3, 2))}, 1, 0)
    held = sums.trees[0]["x"]
    for k in (1, 2):
        sums.add({"x": np.full((3, 2), 2.0)}, 1, k)
    assert sums.trees[0]["x"] is held and (held == 5).all()
