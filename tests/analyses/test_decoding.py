"""Decoding against cross-validation in NumPy on explicit tokens, and where the answer is known."""

import jax.numpy as jnp
import numpy as np
import pytest
from networks import randomised
from oracles import cross_validation, fold_of

import vitcnn
from vitcnn import analyses, data
from vitcnn.analyses import decoding
from vitcnn.numerics import exact
from vitcnn.taps import TapInfo

SIZE = 40


def patches(images, grid):
    """Pixels of each patch [n, positions, pixels], cut out one by one."""
    h, w = images.shape[1] // grid[0], images.shape[2] // grid[1]
    cut = [
        images[:, r * h : (r + 1) * h, c * w : (c + 1) * w].reshape(len(images), -1)
        for r in range(grid[0])
        for c in range(grid[1])
    ]
    return np.stack(cut, 1)


def targets(images, grid):
    pixels = patches(np.asarray(images, np.float64), grid)
    colour = pixels.reshape(*pixels.shape[:2], -1, 3).mean(2)
    places = [
        (r / max(grid[0] - 1, 1), c / max(grid[1] - 1, 1))
        for r in range(grid[0])
        for c in range(grid[1])
    ]
    position = np.broadcast_to(np.array(places), (len(images), len(places), 2))
    return {"position": position, "colour": colour, "pixels": pixels}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    models = {
        "v": randomised(vitcnn.load("vit", "mini/4", depth=1, width=48, mlp_dim=64)),
        "r": randomised(vitcnn.load("resnet", "mini", units=(1, 1, 1))),
    }
    source = data.load("scenes", size=SIZE)
    config = {"analyses": {"decoding": {}}, "group": 20}
    workdir = tmp_path_factory.mktemp("decoding")
    return (
        models,
        source,
        vitcnn.analyze(config, workdir, models=models, source=source, progress=False),
    )


@pytest.mark.parametrize("name", ["v", "r"])
def test_a_network_equals_cross_validation_on_explicit_tokens(measured, name):
    models, source, results = measured
    result, model = results[f"decoding.{name}"], models[name]
    images = model.preprocess([source[i]["image"] for i in range(SIZE)])
    seen = np.asarray(model.preprocess.normalise(images), np.float64)
    fold = np.array([fold_of(i, 4) for i in range(SIZE)])
    layers = {"v": ["embed", "block00/out"], "r": [f"stage{s}/unit01/out" for s in (1, 2, 3)]}
    assert list(result.layer.values) == layers[name]
    np.testing.assert_allclose(result.depth, np.linspace(0, 1, len(layers[name])))
    _, taps = model.run(images, layers[name])
    for layer, x in taps.items():
        grid = model.taps[layer].grid
        x = np.asarray(x, np.float64)
        x = x[:, 1:] if name == "v" else x.reshape(SIZE, -1, x.shape[-1])
        for target, y in targets(seen, grid).items():
            expected, penalty = cross_validation(x, y, fold, 4, decoding.Settings().penalties)
            row = result.sel(layer=layer, target=target)
            np.testing.assert_array_equal(row.penalty, penalty)
            np.testing.assert_allclose(row.r2_fold, expected, rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(row.r2, expected.mean(), rtol=1e-5, atol=1e-5)
            error = expected.std(ddof=1) / 2
            np.testing.assert_allclose(row.r2_standard_error, error, rtol=1e-3, atol=1e-6)


def test_group_size_does_not_matter(measured, tmp_path):
    models, source, results = measured
    config = {"analyses": {"decoding": {}}, "group": 40}
    again = vitcnn.analyze(
        config, tmp_path, models={"v": models["v"]}, source=source, progress=False
    )["decoding.v"]
    np.testing.assert_allclose(again.r2_fold, results["decoding.v"].r2_fold, rtol=1e-5, atol=1e-5)


def result_of(x, images, **fields):
    """Runs measure and finalize on maps [n, rows, columns, channels] alone."""
    info = TapInfo("a", "", x.shape[1:], x.shape[1:3])
    view = analyses.View(jnp.asarray(images), {"a": jnp.asarray(x)}, None, {"a": info}, None)
    group = analyses.Group(None, jnp.arange(len(x)), {"m": view})
    config = analyses.Config(decoding.Settings(**fields), (("m", "a"),), (info,))
    return decoding.finalize(exact.to_host(decoding.measure(group, config, {})), config).isel(
        layer=0
    )


def pictures(n=60, seed=0):
    return np.random.default_rng(seed).normal(size=(n, 8, 12, 3)).astype(np.float32)


def test_copied_patches_are_decoded_and_say_nothing_of_their_place():
    images = pictures()
    copies = patches(images, (4, 4)).reshape(60, 4, 4, -1) * 3 + 5
    result = result_of(copies, images)
    np.testing.assert_allclose(result.r2.sel(target=["colour", "pixels"]), 1, atol=1e-6)
    assert -0.1 < float(result.r2.sel(target="position")) < 0.02


@pytest.mark.parametrize("mean", [0, 1e4])
def test_positions_that_a_token_holds_are_decoded_exactly_whatever_its_mean(mean):
    row, column = np.meshgrid(np.arange(4.0), np.arange(6.0), indexing="ij")
    x = np.stack([row + column, row - 2 * column, 0 * row], -1)  # and a dead channel
    x = np.tile(x, (60, 1, 1, 1)).astype(np.float32) + np.float32(mean)
    result = result_of(x, pictures(), targets=("position",))
    assert list(result.target.values) == ["position"]
    np.testing.assert_allclose(result.r2_fold, 1, atol=1e-6)


def test_tokens_that_are_alike_within_an_image_have_no_place():
    level = pictures()[:, :1, :1]
    images = np.broadcast_to(level, (60, 8, 12, 3))
    x = np.broadcast_to(level @ np.random.default_rng(1).normal(size=(3, 5)), (60, 4, 4, 5))
    result = result_of(x.astype(np.float32), images)
    assert -1e-6 < float(result.r2.sel(target="position")) <= 0
    np.testing.assert_allclose(result.r2.sel(target=["colour", "pixels"]), 1, atol=1e-6)


def test_what_does_not_vary_is_nan_and_named():
    x = np.random.default_rng(2).normal(size=(60, 4, 4, 5)).astype(np.float32)
    result = result_of(x, np.full((60, 8, 8, 3), 0.3, np.float32))
    assert np.isnan(result.r2_fold.sel(target=["colour", "pixels"])).all()
    assert np.isfinite(result.r2_fold.sel(target="position")).all()
    for broken in (np.full_like(x, 7), np.where(x == x[0, 0, 0, 0], np.inf, x)):
        with pytest.warns(UserWarning, match="constant, NaN or infinite.* a$"):
            assert np.isnan(result_of(broken, pictures()[:, :8, :8]).r2).all()


def test_empty_folds_are_said_and_left_out():
    index = np.array([fold_of(i, 4) for i in range(60)])
    kept = np.sort(np.concatenate([np.flatnonzero(index == f)[:3] for f in (0, 1, 3)]))
    x = np.random.default_rng(3).normal(size=(60, 2, 2, 3)).astype(np.float32)
    info = TapInfo("a", "", (2, 2, 3), (2, 2))
    view = analyses.View(jnp.asarray(pictures()[kept]), {"a": jnp.asarray(x[kept])}, None, {}, None)
    view = analyses.View(view.image, view.taps, None, {"a": info}, None)
    config = analyses.Config(decoding.Settings(), (("m", "a"),), (info,))
    group = analyses.Group(None, jnp.asarray(kept), {"m": view})
    sums = exact.to_host(decoding.measure(group, config, {}))
    with pytest.warns(UserWarning, match="9 images leave 1 of 4 folds empty"):
        result = decoding.finalize(sums, config)
    assert np.isnan(result.r2_fold.sel(fold=2)).all()
    others = result.r2_fold.sel(fold=[0, 1, 3])
    np.testing.assert_allclose(result.r2, others.mean("fold"))


def test_folds_do_not_follow_the_order_of_the_source():
    folds = np.asarray(decoding.fold_of(jnp.arange(10_000), 4))
    assert [fold_of(i, 4) for i in range(500)] == folds[:500].tolist()
    for period in (1, 2, 4, 10, 1000):
        counts = np.bincount(folds[::period], minlength=4)
        share = counts / counts.sum()
        assert abs(share - 0.25).max() < 4 * np.sqrt(0.19 / counts.sum())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"targets": ("position", "color")}, "unknown target 'color': did you mean 'colour'"),
        ({"targets": ()}, "name one or more"),
        ({"folds": 2}, "folds = 2: at least 3"),
        ({"penalties": (0.0, 1.0)}, "all above 0"),
        ({"taps": ("norm", "pooled")}, "pooled holds no vector .* leave it out of the field taps"),
        ({"taps": ("block00/attn_weights",)}, "attn_weights holds no vector"),
    ],
)
def test_what_does_not_fit_is_named(measured, tmp_path, fields, message):
    models, source, _ = measured
    config = {"analyses": {"decoding": fields}}
    with pytest.raises(ValueError, match=message):
        vitcnn.analyze(config | {"group": 8}, tmp_path, models={"v": models["v"]}, source=source)


def test_a_grid_that_does_not_divide_the_image_is_named():
    x = np.zeros((60, 3, 5, 2), np.float32)
    with pytest.raises(ValueError, match=r"a has a grid of 3 x 5, .* of 8 x 12: .*field taps"):
        result_of(x, pictures())


def test_curves_show_the_numbers(measured):
    result = measured[2]["decoding.r"]
    axes = decoding.draw([result]).axes[0]
    assert [line.get_label() for line in axes.lines] == list(decoding.TARGETS.values())
    for line, target in zip(axes.lines, result.target.values, strict=True):
        np.testing.assert_allclose(line.get_xdata(), [0, 0.5, 1])
        np.testing.assert_allclose(line.get_ydata(), result.r2.sel(target=target))
