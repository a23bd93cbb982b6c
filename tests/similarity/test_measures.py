"""Every measure of similarity against float64 NumPy, from the formula on features, not on Grams."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import (
    CCA,
    NEIGHBOURS,
    K,
    canonical,
    flat,
    pairs,
    procrustes,
    pwcca,
    ranked,
    rbf,
    rbf_kernel,
    song,
)
from oracles import SIMILARITY as ORACLES

import vitcnn
from vitcnn.numerics.exact import to_host
from vitcnn.similarity import distances, gram, measures
from vitcnn.similarity.maps import rank_correlation
from vitcnn.similarity.measure import default_options, group_sums, matrices

OPTIONS = {m: {"components": K} for m in CCA}
OPTIONS |= {m: {"neighbours": NEIGHBOURS} for m in ("neighbours", "cknna")}


def related(n=64, seed=0):
    """Two layers with a plain spectrum of few strong directions, the second noisy."""
    rng = np.random.default_rng(seed)
    strong = rng.normal(size=(n, 6)) * [5, 4, 3, 1, 0.8, 0.6]
    x = strong @ rng.normal(size=(6, 40)) + rng.normal(size=(n, 40))
    strong += rng.normal(size=(n, 6)) * [4, 3, 2, 0.3, 0.3, 0.3]
    y = strong @ rng.normal(size=(6, 90)) + rng.normal(size=(n, 90))
    return np.float32(x), np.float32(y)


def table(x, y, measure, **more):
    return vitcnn.compare({"x": x}, {"y": y}, measure, **{**OPTIONS.get(measure, {}), **more})


def value(*args, **more):
    return float(table(*args, **more)[args[2]][0, 0])


@pytest.mark.parametrize("measure", ORACLES)
def test_equals_numpy_on_the_features_of_any_mean_and_scale(measure):
    x, y = related()
    truth = ORACLES[measure](flat(x), flat(y))
    assert 0.05 < truth < 0.97
    assert value(x, y, measure) == pytest.approx(truth, rel=1e-5)
    # 1e3 standard deviations away, and other scales: the oracle sees the same stored values.
    far = np.float32(x * 1e-3 + 1e1), np.float32(y * 1e8 - 1e12)
    truth = ORACLES[measure](flat(far[0]), flat(far[1]))
    assert value(*far, measure) == pytest.approx(truth, rel=1e-5)
    # Rotations, isotropic scalings and shifts change nothing; float64 features keep their digits.
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(90, 90)))[0]
    truth = ORACLES[measure](flat(x), flat(y))
    turned = 7e5 + 3e-4 * y.astype(np.float64) @ rotation
    assert value(x, turned, measure) == pytest.approx(truth, rel=1e-5)


def test_every_measure_has_an_oracle_and_pwcca_alone_is_not_symmetric():
    assert set(ORACLES) == set(measures.registered())
    x, y = related()
    for measure in ORACLES:
        found = vitcnn.compare({"x": x, "y": y}, None, measure, **OPTIONS.get(measure, {}))
        matrix = found[measure].values
        assert found[measure].dims == ("layer_x", "layer_y")
        np.testing.assert_allclose(np.diagonal(matrix), 1, rtol=1e-5)
        assert (abs(matrix[0, 1] - matrix[1, 0]) < 1e-6) == (measure != "pwcca")
        assert np.isnan(found[f"{measure}_standard_error"]).all()
    assert matrix.shape == (2, 2)
    truth = [pwcca(flat(a), flat(b)) for a, b in ((x, y), (y, x))]
    found = vitcnn.compare({"x": x, "y": y}, None, "pwcca", components=K).pwcca.values
    np.testing.assert_allclose([found[0, 1], found[1, 0]], truth, rtol=1e-5)


@pytest.mark.parametrize("rank", [5, 100])
def test_procrustes_of_any_rank(rank):
    """Directions in which features do not vary count nothing, though their rounding has a root."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(64, rank))
    y = x @ rng.normal(size=(rank, rank + 5)) + 3 * rng.normal(size=(64, rank + 5))
    assert value(x, y, "procrustes") == pytest.approx(procrustes(flat(x), flat(y)), rel=1e-5)


@pytest.mark.parametrize("bandwidth", [0.3, 1.0, 30.0])
def test_bandwidth_of_the_rbf_kernel(bandwidth):
    x, y = related()
    truth = rbf(flat(x), flat(y), bandwidth)
    assert value(x, y, "cka_rbf", bandwidth=bandwidth) == pytest.approx(truth, rel=1e-5)


def test_wide_rbf_kernel_is_the_linear_one():
    """For a large bandwidth K = 1 - d^2 / (2 sigma^2), which centring makes linear."""
    x, y = related()
    wide = value(x, y, "cka_rbf", bandwidth=1e3)
    assert wide == pytest.approx(value(x, y, "cka"), abs=1e-5)


def test_independent_layers_are_near_chance():
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(2, 200, 30)).astype(np.float32)
    chosen = list(measures.registered().values())
    options = default_options(chosen) | {"neighbours": NEIGHBOURS, "components": 10}

    def measure(*layers):
        grams = [gram.linear(a) for a in layers]
        squared = [distances.squared(a, k) for a, k in zip(layers, grams, strict=True)]
        return group_sums(grams, squared, chosen, options)

    sums = jax.jit(measure)(x, y)
    found = {k: m[0, 1] for k, m in matrices(to_host(sums), chosen, ["x", "y"]).items()}
    zero = [measure.name for measure in chosen if measure.chance == 0]
    assert set(zero) == {"cka", "cka_rbf", "rsa_pearson", "rsa_spearman"}
    for name in zero:
        assert abs(found[name]) < 0.1, name
    assert found["neighbours"] == pytest.approx(NEIGHBOURS / 199, abs=0.02)
    assert found["cca_chance"] == pytest.approx(10 / 199)
    for name in CCA:
        assert found[name] == pytest.approx(found[f"{name}_chance"], abs=0.04), name
    assert found["cka_biased"] > 0.1 and found["procrustes"] > 0.3  # these have no such zero


def test_chance_of_cca_is_its_mean_over_permutations():
    x, y = (flat(a) for a in related(40))
    rng = np.random.default_rng(4)
    draws = [(canonical(x, rng.permutation(y))[0] ** 2).mean() for _ in range(2000)]
    error = np.std(draws) / np.sqrt(2000)
    assert abs(np.mean(draws) - K / 39) < 4 * error


def test_groups_are_averaged_by_their_images():
    x, y = related(100)
    parts = [slice(0, 40), slice(40, 80), slice(80, 100)]
    for measure in ("procrustes", "neighbours"):
        values = [ORACLES[measure](flat(x[p]), flat(y[p])) for p in parts]
        found = table(x, y, measure, group=40)
        truth = np.average(values, weights=[40, 40, 20])
        assert float(found[measure][0, 0]) == pytest.approx(truth, rel=1e-5)
    # Leaving one block out of a mean: the error is that of a weighted mean of unequal blocks.
    assert np.isfinite(found.neighbours_standard_error).all()
    with pytest.warns(UserWarning, match="^20 of 100 images are left out, .*: cca needs 40"):
        found = vitcnn.compare({"x": x}, {"y": y}, "cca", group=40)
    assert float(found.cca_chance[0, 0]) == pytest.approx(2 / 39)


def test_ties_share_their_mean_rank():
    values = np.array([3, 1, 1, 2, 3, 3, 0, 1.0])
    np.testing.assert_array_equal(distances.ranks(values), ranked(values))
    grid = np.random.default_rng(5).integers(0, 3, size=(2, 30, 4)).astype(np.float32)
    truth = ORACLES["rsa_spearman"](grid[0], grid[1])
    assert len(np.unique(pairs(grid[0]))) < 20
    assert value(*grid, "rsa_spearman") == pytest.approx(truth, rel=1e-5)


@pytest.mark.parametrize("measure", ["cka_rbf", "procrustes", "cca", "rsa_spearman", "neighbours"])
def test_dead_layers_are_nan_and_named(measure):
    x, y = related()
    rng = np.random.default_rng(6)
    eps = np.finfo(np.float32).eps
    layers = {
        "good": x,
        "constant": np.full((64, 8), 7.0, np.float32),
        "rounding": np.float32(1e4 * (1 + eps * rng.integers(0, 2, size=(64, 30)))),
        "nan": np.where(np.arange(64)[:, None] == 5, np.nan, y),
        "faint": np.float32(1e-9 * y),
    }
    with pytest.warns(UserWarning) as caught:
        found = vitcnn.compare(layers, None, measure, **OPTIONS.get(measure, {}))[measure]
    messages = [str(w.message) for w in caught]
    assert any("do not vary" in m and m.endswith(": constant, rounding") for m in messages)
    assert any("NaN or infinite" in m and m.endswith(": nan") for m in messages)
    assert all(f"{measure} is NaN" in m for m in messages)
    for name in ("constant", "rounding", "nan"):
        assert np.isnan(found.sel(layer_x=name)).all() and np.isnan(found.sel(layer_y=name)).all()
    truth = ORACLES[measure](flat(x), flat(layers["faint"]))
    assert float(found.sel(layer_x="good", layer_y="faint")) == pytest.approx(truth, rel=1e-5)


def test_a_group_in_which_a_layer_is_dead():
    """CKA goes on, as the dead group adds nothing; a mean over groups is undefined."""
    x, y = related()
    x[:32] = 1.0
    found = table(x, y, "cka_rbf", group=32).cka_rbf
    kx, before, ky = (rbf_kernel(flat(a)) for a in (x[32:], y[:32], y[32:]))
    truth = song(kx, ky) / np.sqrt(song(kx, kx) * (song(before, before) + song(ky, ky)))
    assert float(found[0, 0]) == pytest.approx(truth, rel=1e-5)
    with pytest.warns(UserWarning, match=r"do not vary.*procrustes is NaN: xs\['x'\]"):
        assert np.isnan(table(x, y, "procrustes", group=32).procrustes).all()


def test_a_layer_whose_images_are_mostly_alike_has_no_rbf_kernel():
    x, y = related()
    x[:50] = x[0]
    with pytest.warns(UserWarning, match=r"cka_rbf is NaN: xs\['x'\]"):
        assert np.isnan(table(x, y, "cka_rbf").cka_rbf).all()
    assert value(x, y, "procrustes") == pytest.approx(procrustes(flat(x), flat(y)), rel=1e-5)


def test_equidistant_images_have_no_rsa():
    x, y = np.eye(32, dtype=np.float32), related(32)[1]
    for measure in ("rsa_pearson", "rsa_spearman"):
        with pytest.warns(UserWarning, match=rf"{measure} is NaN: xs\['x'\]"):
            assert np.isnan(table(x, y, measure)[measure]).all()


def test_bad_input_is_named():
    x, y = related()
    layers = {"x": x, "y": y}
    for arguments, message in [
        ({"measure": "prokrustes"}, "unknown measure 'prokrustes': did you mean 'procrustes'"),
        ({"measure": "cka", "neighbours": 3}, "unknown option of cka 'neighbours': there is none"),
        ({"measure": "cca", "component": 3}, "unknown option of cca 'component': did you mean"),
        ({"measure": "cca", "components": 4}, "groups of at least 20 k.*64, so components <= 3 w"),
        ({"measure": "svcca", "group": 16}, "no number of components fits"),
        ({"measure": "neighbours", "neighbours": 63}, "expected 1 <= neighbours <= 62"),
        ({"measure": "cka_rbf", "bandwidth": 0}, "bandwidth = 0: expected a number above 0"),
        (
            {"measure": "procrustes", "group": 3},
            "procrustes needs groups of at least 4 images, but group = 3 ",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            vitcnn.compare(layers, **arguments)
    with pytest.raises(ValueError, match=r"xs\['x'\] has 2; set components <= 2"):
        vitcnn.compare({"x": x[:, :2], "y": y}, measure="cca")
    flatter = x.copy()
    flatter[:, 2:] = 0
    with pytest.raises(
        ValueError,
        match=r"pwcca is not defined with components = 3 for layers that vary in fewer dir.*: z;",
    ):
        vitcnn.compare({"z": flatter, "y": y}, measure="pwcca")
    with pytest.raises(ValueError, match="rsa_pearson compares the same images"):
        vitcnn.compare({"x": x}, {"y": y[:60]}, "rsa_pearson")


def test_rank_correlation_of_two_maps():
    rng = np.random.default_rng(7)
    a = rng.normal(size=(6, 6)).round(1)
    a, b = a + a.T, np.exp(a + a.T)
    assert rank_correlation(a, b, within=True) == pytest.approx(1)
    assert rank_correlation(a, -b, within=True) == pytest.approx(-1)
    b = rng.normal(size=(6, 6)).round(1)
    b[2, :] = np.nan
    off = [(i, j) for i in range(6) for j in range(6) if i != j and i != 2]
    left, right = (np.array([m[at] for at in off]) for m in (a, b))
    truth = np.corrcoef(ranked(left), ranked(right))[0, 1]
    assert rank_correlation(a, b, within=True) == pytest.approx(truth)
    every = [(i, j) for i in range(6) for j in range(6) if i != 2]
    left, right = (np.array([m[at] for at in every]) for m in (a, b))
    truth = np.corrcoef(ranked(left), ranked(right))[0, 1]
    assert rank_correlation(a, b, within=False) == pytest.approx(truth), "of two models"
    assert np.isnan(rank_correlation(a, np.full((6, 6), np.nan), within=True))
    assert rank_correlation(a[:2], a[:2] ** 3, within=False) == pytest.approx(1)
    with pytest.raises(ValueError, match=r"\[6, 6\] and \[2, 6\]"):
        rank_correlation(a, b[:2], within=True)
    with pytest.raises(ValueError, match="square within a model"):
        rank_correlation(a[:2], b[:2], within=True)


def test_centred_gram_is_that_of_the_features():
    x, _ = related(32)
    found = gram.linear(jnp.asarray(x))
    scale = 2.0 ** int(found.exponent)
    truth = flat(x) @ flat(x).T
    np.testing.assert_allclose(
        gram.centre(found.matrix) * scale, truth, rtol=1e-5, atol=1e-6 * np.trace(truth) / 32
    )
