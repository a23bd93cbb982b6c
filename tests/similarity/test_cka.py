"""CKA against an oracle in float64 written from the formula of Song et al. 2012, on hard inputs."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import minibatch_cka as oracle
from oracles import song

from vitcnn.engine.compare import cka
from vitcnn.similarity import hsic


@pytest.fixture
def pair():
    """Two related layers of 96 images."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(96, 5, 40)).astype(np.float32)
    mix = rng.normal(size=(200, 30)) / 10
    y = x.reshape(96, -1) @ mix + rng.normal(size=(96, 30))
    return x, y.astype(np.float32)


def value(x, y, **kwargs):
    return float(cka({"x": x}, {"y": y}, **kwargs).cka[0, 0])


def test_equals_the_formula(pair):
    x, y = pair
    assert 0.2 < oracle(x, y) < 0.95
    assert abs(value(x, y) - oracle(x, y)) < 1e-6
    assert abs(value(x, y, group=32) - oracle(x, y, 32)) < 1e-6


def test_self_similarity_is_one_and_rotations_and_scales_do_not_matter(pair):
    x, y = pair
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(30, 30)))[0]
    assert abs(value(x, x) - 1) < 1e-6
    assert abs(value(x, 3 * y @ rotation.astype(np.float32)) - oracle(x, y)) < 1e-6


@pytest.mark.parametrize("offset", [1e1, 1e2, 1e3, 1e4])
def test_features_with_a_large_mean(pair, offset):
    """Public tools return 0, 1, inf, NaN or 1e4 here."""
    x, y = (
        np.float32(a + offset * np.sign(np.arange(a[0].size) % 3 - 1.1).reshape(a[0].shape))
        for a in pair
    )
    assert abs(value(x, y) - oracle(x, y)) < 1e-6
    assert abs(value(x, y, group=24) - oracle(x, y, 24)) < 1e-6


@pytest.mark.parametrize("sx", [1e-10, 1e-6, 1, 1e6, 1e10])
@pytest.mark.parametrize("sy", [1e-10, 1, 1e10])
def test_scales_from_1e_10_to_1e10_mixed(pair, sx, sy):
    x, y = np.float32(pair[0] * sx), np.float32(pair[1] * sy)
    assert abs(value(x, y) - oracle(x, y)) < 1e-6
    assert abs(value(x, y, group=40) - oracle(x, y, 40)) < 1e-6


def test_scales_that_leave_float32_even_before_the_product(pair):
    x, y = np.float32(pair[0] * 1e25), np.float32(pair[1] * 1e-25)
    assert abs(value(x, y) - oracle(x, y)) < 1e-6


def test_scale_that_differs_between_groups(pair):
    x, y = pair[0].copy(), pair[1].copy()
    x[:48] *= 1e8
    y[48:] *= 1e-9
    assert abs(value(x, y, group=24) - oracle(x, y, 24)) < 1e-6


@pytest.mark.parametrize("size", [30.0, 1e3, 1e5])
def test_the_image_that_gives_the_shift_is_an_outlier(pair, size):
    """The shift is taken from one image of the group; the Gram matrix shows that it is far off."""
    x, y = pair[0] + 3, pair[1] - 5
    x[0] *= size
    for first in (0, 1):
        assert abs(value(x[first:], y[first:]) - oracle(x[first:], y[first:])) < 1e-6


def test_independent_wide_layers_are_near_zero_and_signed():
    """The biased form reads 0.975 here (Nguyen et al.: n = 128, p = 5000)."""
    rng = np.random.default_rng(2)
    values = []
    for _ in range(8):
        x, y = rng.normal(size=(2, 128, 5000)).astype(np.float32)
        values.append(value(x, y))
        assert abs(values[-1] - oracle(x, y)) < 1e-6
    assert max(np.abs(values)) < 0.05
    assert min(values) < 0, "negative estimates are reported as they are"


def test_outlier_and_tiny_scale_together(pair):
    x, y = pair[0].copy(), pair[1]
    x[0] *= 1e3
    x = np.float32(x * 1e-25)
    assert abs(value(x, y) - oracle(x, y)) < 1e-6


@pytest.mark.parametrize("offset", [0, 1e4, 1e7])
@pytest.mark.parametrize("scale", [1, 1e40, 1e-40])
def test_float64_features_are_not_rounded_before_they_are_shifted(pair, offset, scale):
    x, y = (scale * (a.astype(np.float64) + offset) for a in pair)
    assert abs(value(x, y) - oracle(x / scale, y / scale)) < 1e-6
    assert abs(value(x, pair[1], group=40) - oracle(x / scale, pair[1], 40)) < 1e-6


def test_integer_and_boolean_features(pair):
    x = np.int64(1000 * pair[0]) + 2**40
    y = pair[1] > 0
    assert abs(value(x, y) - oracle(x - 2**40, y.astype(float))) < 1e-6
    x = np.uint8(pair[0] * 20 + 128)
    assert abs(value(x, pair[1]) - oracle(x, pair[1])) < 1e-6


def test_lists_and_one_feature(pair):
    x = pair[0][:, 0, 0]
    assert abs(value(x.tolist(), pair[1]) - oracle(x[:, None], pair[1])) < 1e-6


def test_bfloat16_activations(pair):
    x, y = (jnp.asarray(a + 2, jnp.bfloat16) for a in pair)
    assert abs(value(x, y) - oracle(x, y)) < 1e-6


def test_hsic_is_summed_before_the_ratio():
    """Groups of very different energy: the mean of the ratios is elsewhere."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(40, 20)).astype(np.float32)
    y = rng.normal(size=(40, 20)).astype(np.float32)
    y[:20] = x[:20]
    y[20:] *= 6
    x[20:] *= 6
    mean_of_ratios = (oracle(x[:20], y[:20]) + oracle(x[20:], y[20:])) / 2
    assert abs(oracle(x, y, 20) - mean_of_ratios) > 0.3
    assert abs(value(x, y, group=20) - oracle(x, y, 20)) < 1e-6


@pytest.mark.parametrize("n", [64 + 17, 64 + 5, 64 + 4])
def test_ragged_last_group_has_weight_n_times_n_minus_3(pair, n):
    x, y = pair[0][:n], pair[1][:n]
    assert abs(value(x, y, group=32) - oracle(x, y, 32)) < 1e-6


@pytest.mark.parametrize("tail", [1, 2, 3])
def test_tail_of_1_to_3_images_is_dropped_with_a_warning(pair, tail):
    x, y = pair[0][: 64 + tail], pair[1][: 64 + tail]
    with pytest.warns(UserWarning, match=f"^{tail} of {64 + tail} images are left out"):
        assert value(x, y, group=32) == value(x[:64], y[:64], group=32)


def test_dead_and_nan_layers_read_nan_and_the_rest_goes_on(pair):
    x, y = pair
    rng = np.random.default_rng(4)
    noise = np.float32(1e4 * (1 + np.finfo(np.float32).eps * rng.integers(0, 2, size=(96, 30))))
    xs = {
        "good": x,
        "constant": np.full((96, 10), 7.0, np.float32),
        "zero": np.zeros((96, 10), np.float32),
        "rounding": noise,
        "nan": np.where(np.arange(96)[:, None] == 5, np.nan, y),
        "faint": np.float32(1e-9 * y),
    }
    with pytest.warns(UserWarning) as caught:
        table = cka(xs)
    messages = [str(w.message) for w in caught]
    assert any("do not vary" in m and m.endswith("constant, zero, rounding") for m in messages)
    assert any("NaN or infinite" in m and m.endswith(": nan") for m in messages)
    for name in ("constant", "zero", "rounding", "nan"):
        assert np.isnan(table.cka.sel(layer_x=name)).all()
        assert np.isnan(table.cka.sel(layer_y=name)).all()
    assert abs(float(table.cka.sel(layer_x="good", layer_y="faint")) - oracle(x, y)) < 1e-6


def test_rows_and_columns_carry_their_names(pair):
    x, y = pair
    table = cka({"a": x, "b": y}, {"c": y, "d": x})
    assert table.cka.dims == ("layer_x", "layer_y")
    assert list(table.layer_x.values) == ["a", "b"] and list(table.layer_y.values) == ["c", "d"]
    assert abs(float(table.cka.sel(layer_x="a", layer_y="d")) - 1) < 1e-6
    assert abs(float(table.cka.sel(layer_x="b", layer_y="c")) - 1) < 1e-6
    assert abs(float(table.cka.sel(layer_x="a", layer_y="c")) - oracle(x, y)) < 1e-6


def test_standard_error_is_nan_for_one_group_and_calibrated_for_many():
    """Over fresh samples, the jackknife error matches the spread of the estimate."""
    rng = np.random.default_rng(5)
    mix = rng.normal(size=(20, 20)) / 4
    estimates, errors = [], []
    for _ in range(40):
        x = rng.normal(size=(320, 20)).astype(np.float32)
        y = np.float32(x @ mix + rng.normal(size=(320, 20)))
        table = cka({"x": x}, {"y": y}, group=16)
        estimates.append(float(table.cka[0, 0]))
        errors.append(float(table.cka_standard_error[0, 0]))
    assert np.isnan(cka({"x": x}, {"y": y}).cka_standard_error).all()
    ratio = np.mean(errors) / np.std(estimates, ddof=1)
    assert 0.7 < ratio < 1.4, ratio


def test_bad_input_is_named():
    x = np.zeros((8, 3), np.float32)
    with pytest.raises(ValueError, match=r"xs\['a'\] has 8 but ys\['b'\] has 7"):
        cka({"a": x}, {"b": x[:7]})
    with pytest.raises(ValueError, match="at least 4"):
        cka({"a": x}, group=3)
    with pytest.raises(ValueError, match="only 8 images"):
        cka({"a": x}, group=16)
    with pytest.raises(ValueError, match="at least one layer"):
        cka({})
    with pytest.raises(ValueError, match=r"xs\['a'\] is complex64 \[8, 3\]: expected real"):
        cka({"a": x + 1j})
    with pytest.raises(ValueError, match=r"xs\['a'\] is float32 \[8, 0\]"):
        cka({"a": x[:, :0]})
    with pytest.warns(UserWarning, match=r"xs\['a'\], ys\['a'\]$"):
        cka({"a": x}, {"a": x})


def test_u_centring_gives_the_unbiased_estimator(pair):
    x, y = (a.reshape(96, -1).astype(np.float64) for a in pair)
    K, L = x @ x.T, y @ y.T
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        U, V = (np.asarray(hsic.u_centre(jnp.asarray(k, jnp.float32)), np.float64) for k in (K, L))
    assert np.abs(U.sum(0)).max() < 1e-2 and np.diagonal(U).max() == 0
    np.testing.assert_allclose((U * V).sum() / (96 * 93), song(K, L), rtol=1e-5)


def test_gram_does_not_follow_the_default_precision(pair):
    """A program at bfloat16 precision still forms its Gram matrices in float32."""
    x, _ = pair
    with jax.default_matmul_precision("bfloat16"):
        low = jax.jit(hsic.gram).lower(x).as_text()
    assert "HIGHEST" in low
