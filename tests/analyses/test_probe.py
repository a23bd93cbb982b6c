"""Linear probes against NumPy's ridge on the taps, and on data where the answer is known."""

import dataclasses
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import randomised

import vitcnn
from vitcnn import config as configs
from vitcnn import data, results
from vitcnn.analyses import probe, probe_fit
from vitcnn.probes import features as probe_features
from vitcnn.probes import scoring
from vitcnn.taps import TapInfo

PENALTIES = (4.0, 64.0, 1024.0)
POSITIONS = (0, 11)
FIT = {"size": 200, "classes": 4, "noise": 0.1}
HELD_OUT = {"size": 60, "classes": 4, "noise": 0.1, "seed": 1}
TEST = {"size": 60, "classes": 4, "noise": 0.1, "split": "test"}
FEW = {"shots": 10, "draws": 2}  # 2 draws of 40 images


def config(fit, features, group=20, **fields):
    """Returns the config of three passes."""
    scored = {"analyses": {"probe": configs.analysis("probe", penalties=PENALTIES)}}
    fitted = configs.analysis("probe_fit", features=features, **fields)
    return {
        "stages": {
            "fit": {"data": {"source": "scenes", **fit}, "analyses": {"probe": fitted}},
            "held_out": {"data": {"source": "scenes", **HELD_OUT}, **scored},
        },
        **scored,
        "data": {"source": "scenes", **TEST},
        "group": group,
    }


@pytest.fixture(scope="module")
def models():
    return {
        "v": randomised(vitcnn.load("vit", "mini/4", depth=2, width=48, mlp_dim=64)),
        "r": randomised(vitcnn.load("resnet", "mini", units=(1, 1, 1))),
    }


@pytest.fixture(scope="module")
def measured(models, tmp_path_factory):
    """Few-shot probes of both networks: the workdir, and the Results on the test images."""
    workdir = tmp_path_factory.mktemp("probe")
    settings = config(
        {**FIT, **FEW},
        ("class", "spatial", "tokens"),
        token_taps=("block01/out", "stage2/*"),
        positions=POSITIONS,
    )
    return workdir, vitcnn.analyze(settings, workdir, models=models, progress=False)


def features_of(model, source, tap, feature, positions=POSITIONS):
    """Returns ([probe, image, channel] in float64, labels) of a feature, from the taps."""
    items = [source[i] for i in range(len(source))]
    _, taps = model.run(model.preprocess([item["image"] for item in items]), [tap])
    x = np.asarray(taps[tap], np.float64)
    if feature == "class":
        x = x[None, :, 0]
    elif model.taps[tap].prefix_tokens:
        x = (
            x[:, 1:].mean(1)[None]
            if feature == "spatial"
            else x[:, 1:][:, positions].swapaxes(0, 1)
        )
    elif feature == "spatial":
        x = x.mean((1, 2))[None]
    else:  # 8 x 8 to the 4 x 4 of the last stage
        x = x.reshape(-1, 4, 2, 4, 2, x.shape[-1]).mean((2, 4)).reshape(len(x), 16, -1)
        x = x[:, positions].swapaxes(0, 1)
    return x, np.array([item["label"] for item in items])


def ridge(x, label, penalty, classes=4):
    """Ridge with an intercept that costs nothing, by the normal equations of the whitened x."""
    mean, deviation = x.mean(0), x.std(0)
    scale = deviation + 1e-5 * np.sqrt((deviation**2).mean())
    white = np.concatenate([(x - mean) / scale, np.ones((len(x), 1))], 1)
    target = 2 * np.eye(classes)[label] - 1
    cost = np.diag([penalty] * x.shape[1] + [0.0])
    weights = np.linalg.solve(white.T @ white + cost, white.T @ target)

    def right(x, label):
        scores = (x - mean) / scale @ weights[:-1] + weights[-1]
        return (scores.argmax(1) == label).mean()

    return weights, right


@pytest.mark.parametrize(
    ("name", "tap", "feature"),
    [
        ("v", "block00/out", "class"),
        ("v", "block01/out", "spatial"),
        ("v", "block01/out", "tokens"),
        ("r", "stage3/unit01/out", "spatial"),
        ("r", "stage2/unit01/out", "tokens"),
    ],
)
def test_equals_the_normal_equations_of_each_draw(models, measured, name, tap, feature):
    workdir, measurements = measured
    fit = results.load(workdir / f"fit/probe.{name}.nc")
    part = {p: fit[f"{tap.replace('/', '.')}.{feature}.{p}"].values for p in scoring.PARTS}
    few = data.load("scenes", **FIT, **FEW)
    x, label = features_of(models[name], few, tap, feature)
    legs = {
        "held_out": results.load(workdir / f"held_out/probe.{name}.nc"),
        "test": measurements[f"probe.{name}"],
    }
    unseen = {
        "held_out": features_of(models[name], data.load("scenes", **HELD_OUT), tap, feature),
        "test": features_of(models[name], data.load("scenes", **TEST), tap, feature),
    }
    for draw in range(2):
        own = slice(40 * draw, 40 * draw + 40)
        accuracy = {leg: np.zeros((len(x), 3)) for leg in legs}
        for p in range(len(x)):
            of = (draw, p) if feature == "tokens" else draw
            for k, penalty in enumerate(PENALTIES):
                weights, right = ridge(x[p, own], label[own], penalty)
                shrunk = part["projection"][of] / (part["eigenvalues"][of] + penalty)[:, None]
                coefficients = part["basis"][of] @ shrunk
                np.testing.assert_allclose(
                    coefficients, weights[:-1], rtol=1e-5, atol=1e-5 * np.abs(weights).max()
                )
                np.testing.assert_allclose(fit.target_mean[draw], weights[-1], atol=1e-9)
                for leg, (x_leg, label_leg) in unseen.items():
                    accuracy[leg][p, k] = right(x_leg[p], label_leg)
        where = {"layer": tap, "feature": feature, "draw": draw}
        for leg, result in legs.items():
            mean = accuracy[leg].mean(0)
            np.testing.assert_allclose(result.accuracy_penalty.sel(**where), mean, rtol=1e-12)
        # The largest of the best on the held-out images; the test images play no part.
        mean = accuracy["held_out"].mean(0)
        best = max(k for k in range(3) if mean[k] == mean.max())
        for result in legs.values():
            assert float(result.chosen_penalty.sel(**where)) == PENALTIES[best]
        expected = accuracy["test"].mean(0)[best]
        np.testing.assert_allclose(legs["test"].accuracy_draw.sel(**where), expected, rtol=1e-12)
    assert legs["held_out"].attrs["penalty_chosen_on"] == "these images"
    assert legs["test"].attrs == {**legs["test"].attrs, "penalty_chosen_on": "held_out"}
    assert fit.images.values.tolist() == [40, 40]


def test_a_penalised_intercept_is_the_weight_of_a_constant_feature():
    """Ridge on (whitened x, 100), all of whose weights cost 2^10 each, as in big_vision."""
    rng = np.random.default_rng(0)
    label = np.array([0] * 12 + [1] * 5 + [2] * 3)
    white = rng.normal(size=(20, 4))
    white = (white - white.mean(0)) / white.std(0)
    x, target = np.concatenate([white, np.full((20, 1), 100.0)], 1), 2 * np.eye(3)[label] - 1
    weights = np.linalg.solve(x.T @ x + 1024 * np.eye(5), x.T @ target)
    mean = target.mean(0)[None]
    found = scoring.intercepts(
        jnp.asarray(mean), jnp.array([20]), jnp.array([[1024.0, 1e-9]]), 100.0
    )
    np.testing.assert_allclose(found[0, 0], 100 * weights[-1], rtol=1e-5)
    np.testing.assert_allclose(found[0, 1], mean[0], rtol=1e-6)
    free = scoring.intercepts(jnp.asarray(mean), jnp.array([20]), jnp.array([[1024.0]]), 0.0)
    np.testing.assert_allclose(free[0, 0], mean[0], rtol=1e-6)


@pytest.mark.parametrize("offset", [0, 1000])
def test_fit_is_exact_whatever_the_mean(offset):
    """Against NumPy on the same stored numbers, of which 120 make 3 groups and 2 draws."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, 120)
    x = (rng.normal(size=(120, 6)) @ rng.normal(size=(6, 6)) + offset).astype(np.float32)
    x[:, 0] += label
    draw = np.arange(120) % 2
    weight = (draw == np.arange(2)[:, None]).astype(np.float32)
    moments = sum(
        probe_fit._moments(x[a : a + 40], np.eye(3)[label][a : a + 40], weight[:, a : a + 40])
        .to_host()
        for a in (0, 40, 80)
    )  # fmt: skip
    for d in range(2):
        fit = probe_fit.fit(moments[d], 3, 1e-5, 6)
        for penalty in (0.25, 1e4):
            fitted = fit["basis"] @ (fit["projection"] / (fit["eigenvalues"] + penalty)[:, None])
            weights, _ = ridge(x[draw == d].astype(np.float64), label[draw == d], penalty, 3)
            # A mean of a group is rounded to float32, which moves its images by that much.
            atol = (1e-6 + 1e-7 * offset) * np.abs(weights[:-1]).max()
            np.testing.assert_allclose(fitted, weights[:-1], rtol=1e-5, atol=atol)


def test_result_has_means_intervals_and_gaps(measured):
    vit, resnet = measured[1]["probe.v"], measured[1]["probe.r"]
    assert vit.layer.values.tolist() == ["block00/out", "block01/out"]
    assert vit.feature.values.tolist() == ["class", "spatial", "tokens"]
    assert resnet.feature.values.tolist() == ["spatial", "tokens"]
    assert vit.depth.values.tolist() == [0, 1] and vit.attrs["chance"] == 0.25
    assert np.isnan(vit.accuracy.sel(layer="block00/out", feature="tokens"))
    assert np.isfinite(vit.accuracy_standard_error.sel(layer="block01/out")).all()
    np.testing.assert_allclose(vit.accuracy, vit.accuracy_draw.mean("draw"))
    error = np.abs(np.diff(vit.accuracy_draw, axis=2))[..., 0] / 2  # of the mean of two draws
    np.testing.assert_allclose(vit.accuracy_spread, error, rtol=1e-12, atol=1e-15)
    assert not any(name.startswith("accuracy_spread_st") for name in vit)
    assert float(vit.accuracy.max()) > 0.5  # four classes, noise of 0.1: the texture is seen
    p, n, z = vit.accuracy.values, 60, 1.96
    half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    np.testing.assert_allclose(vit.accuracy_interval[..., 0], middle - half)
    np.testing.assert_allclose(vit.accuracy_interval[..., 1], middle + half)
    assert not any(name.startswith("accuracy_interval_st") for name in vit)
    maps = vit.token_accuracy.values
    assert maps.shape == (2, 8, 8) and np.isfinite(maps).sum() == 2
    assert np.isfinite(maps[1, 0, 0]) and np.isfinite(maps[1, 1, 3])  # 11 = 8 + 3
    expected = vit.accuracy.sel(layer="block01/out", feature="tokens")
    np.testing.assert_allclose(np.nanmean(maps[1]), expected, rtol=1e-12)
    assert np.isfinite(resnet.token_accuracy.sel(layer="stage2/unit01/out")[2, 3])  # 2 * 4 + 3


def test_gain_is_over_the_last_layer_that_has_the_feature(measured):
    workdir, measurements = measured
    for name in ("v", "r"):
        result = measurements[f"probe.{name}"]
        for feature in result.feature.values:
            rows = result.sel(feature=feature)
            there = np.flatnonzero(np.isfinite(rows.accuracy))
            by_draw = rows.accuracy_draw - rows.accuracy_draw[there[-1]]
            np.testing.assert_allclose(rows.gain, by_draw.mean("draw"), atol=1e-12)
            spread = by_draw.std("draw", ddof=1) / np.sqrt(2)
            np.testing.assert_allclose(rows.gain_spread, spread, atol=1e-12)
            assert float(rows.gain_standard_error[there[-1]]) < 1e-9
        held_out = results.load(workdir / f"held_out/probe.{name}.nc")
        np.testing.assert_allclose(result.held_out_accuracy, held_out.accuracy, atol=1e-6)


def test_wilson_interval_of_a_half():
    np.testing.assert_allclose(probe.wilson(np.array(0.5), 100), [0.403830, 0.596170], atol=1e-6)


def test_group_size_does_not_matter(models, measured, tmp_path):
    settings = config({**FIT, **FEW}, ("class", "spatial"), group=10)
    again = vitcnn.analyze(settings, tmp_path, models={"v": models["v"]}, progress=False)["probe.v"]
    before = measured[1]["probe.v"].sel(feature=["class", "spatial"])
    for name in ("accuracy", "accuracy_penalty", "chosen_penalty"):
        np.testing.assert_array_equal(again[name], before[name])


class Quadrants:
    """Four classes: which quadrant is bright; noise beside."""

    labelled, classes, provenance = True, 4, {"source": "quadrants"}

    def __init__(self, seed, size=40):
        rng = np.random.default_rng(seed)
        self.images = rng.integers(0, 20, (size, 32, 32, 3), np.uint8)
        for i, image in enumerate(self.images):
            y, x = divmod(i % 4, 2)
            image[16 * y : 16 * y + 16, 16 * x : 16 * x + 16] += 30

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return {"image": self.images[i], "label": i % 4}


class Eyes(nn.Module):
    """Mean of each quadrant on top of a large constant; every other channel never varies."""

    image_size = 32

    @nn.compact
    def __call__(self, images):
        x = images.reshape(-1, 2, 16, 2, 16, 3).mean((2, 4))
        x = 300 + np.array([1, 0, 1]) * x
        x = vitcnn.tap(self, "stage1/unit01/out", x, grid=(2, 2), role="residual")
        return vitcnn.tap(self, "pooled", x.mean((1, 2)), role="pooled")


def test_separable_classes_are_told_apart_where_the_patch_holds_them(tmp_path):
    """Quadrants flattened into channels tell the class, their mean does not; the offset is 300."""
    model = vitcnn.Model(Eyes(), {"params": {}}, vitcnn.Preprocess(size=32))
    taps = ("stage1/unit01/out", "pooled")
    accuracy = {}
    for patch in (2, 1):
        fit = configs.analysis("probe_fit", features=("spatial",), patch=patch, taps=taps)
        settings = {
            "stages": {"fit": {"analyses": {"probe": fit}}},
            "analyses": {"probe": {"taps": taps, "penalties": (1.0,)}},
            "group": 8,
        }
        measurements = vitcnn.analyze(
            settings,
            tmp_path / str(patch),
            models={"m": model},
            source=Quadrants(0),
            progress=False,
        )
        accuracy[patch] = measurements["probe.m"].accuracy
        assert measurements["probe.m"].attrs["penalty_chosen_on"] == ""
        assert np.isnan(measurements["probe.m"].accuracy_spread).all()  # one draw
    assert float(accuracy[2].sel(layer="stage1/unit01/out", feature="spatial")) == 1
    assert float(accuracy[1].sel(layer="stage1/unit01/out", feature="spatial")) < 0.7
    assert float(accuracy[2].sel(layer="pooled", feature="whole")) < 0.7
    assert np.isnan(accuracy[2].sel(layer="pooled", feature="spatial"))


def test_chance_is_that_of_the_classes_of_the_fit(tmp_path):
    """The test images are of two of the four classes; a guess is right once in four."""
    model = vitcnn.Model(Eyes(), {"params": {}}, vitcnn.Preprocess(size=32))
    fit = configs.analysis("probe_fit", features=("spatial",), taps=("stage1/unit01/out",))
    four = {"source": "scenes", "size": 20, "classes": 4}
    settings = {
        "stages": {"fit": {"data": four, "analyses": {"probe": fit}}},
        "analyses": {"probe": {"taps": ("stage1/unit01/out",), "penalties": (1.0,)}},
        "data": {**four, "classes": 2},
        "group": 10,
    }
    measurements = vitcnn.analyze(settings, tmp_path, models={"m": model}, progress=False)
    assert measurements["probe.m"].attrs["chance"] == 0.25


def test_a_draw_without_labels_is_named():
    moments = np.zeros((2, 3, 5))
    moments[0, -1, -1] = 4
    settings = SimpleNamespace(classes=2, epsilon=1e-5)
    with pytest.raises(ValueError, match=r"draws \[1\] of 2 .*config\.stages\.<stage>\.data"):
        probe_fit.finalize({"a/out": {"spatial": moments}}, settings)


def test_map_is_split_into_channels_and_averaged_to_the_last_grid():
    info = TapInfo("stage1/unit01/out", "residual", (8, 8, 3), (8, 8))
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    patches = np.zeros((2, 4, 4, 12))
    for r in range(4):
        for c in range(4):
            patches[:, r, c] = x[:, 2 * r : 2 * r + 2, 2 * c : 2 * c + 2].reshape(2, -1)
    pooled = np.zeros((2, 2, 2, 12))
    for r in range(2):
        for c in range(2):
            pooled[:, r, c] = patches[:, 2 * r : 2 * r + 2, 2 * c : 2 * c + 2].mean((1, 2))
    take = lambda feature: np.asarray(probe_features.take(x, info, feature, 2, (2, 2)))  # noqa: E731
    np.testing.assert_allclose(take("tokens"), pooled.reshape(2, 4, 12), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(take("first"), pooled[:, 0, 0], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(take("spatial"), patches.mean((1, 2)), rtol=1e-5, atol=1e-7)


def test_tokens_are_taken_as_their_names_say():
    info = TapInfo("block00/out", "residual", (6, 3), (2, 2), prefix_tokens=2, class_token=True)
    x = np.random.default_rng(0).normal(size=(5, 6, 3)).astype(np.float32)
    take = lambda feature: np.asarray(probe_features.take(x, info, feature, 1, (2, 2)))  # noqa: E731
    np.testing.assert_array_equal(take("class"), x[:, 0])
    np.testing.assert_array_equal(take("first"), x[:, 2])
    np.testing.assert_array_equal(take("tokens"), x[:, 2:])
    np.testing.assert_allclose(take("all"), x.mean(1), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(take("spatial"), x[:, 2:].mean(1), rtol=1e-5, atol=1e-7)
    assert probe_features.available(info, ("class", "all", "first")) == ("class", "all", "first")
    registers = dataclasses.replace(info, class_token=False)
    assert probe_features.available(registers, ("class", "all", "first")) == ("all", "first")
    with pytest.raises(ValueError, match=r"block00/out has none .* without a class token"):
        probe_features.available(registers, ("class",))


def test_automatic_patches_are_those_of_the_paper():
    """ResNet-50: 2 x 2 in stages 1 and 2 (1024 and 2048 channels), none above; none in a ViT."""
    sides = [
        probe_features.patch_side(TapInfo("", "", (n, n, c), (n, n)), "auto", (7, 7), 2048)
        for n, c in ((56, 256), (28, 512), (14, 1024), (7, 2048))
    ]
    assert sides == [2, 2, 1, 1]
    assert probe_features.patch_side(TapInfo("", "", (49, 768), (7, 7)), "auto", (7, 7), 3072) == 1


def test_channels_that_do_not_vary_are_left_out():
    rng = np.random.default_rng(0)
    x, label = rng.normal(size=(30, 5)), rng.integers(0, 3, 30)
    x[:, 2] = 7.25
    ones = np.ones((30, 1))
    left, right = np.c_[x, ones], np.c_[x, np.eye(3)[label], ones]
    fit = probe_fit.fit(left.T @ right, 3, 1e-5, 5)
    assert np.isinf(fit["scale"][2]) and np.isfinite(np.delete(fit["scale"], 2)).all()
    keep = [0, 1, 3, 4]
    weights, _ = ridge(x[:, keep], label, 2.0, classes=3)
    fitted = fit["basis"] @ (fit["projection"] / (fit["eigenvalues"] + 2.0)[:, None])
    np.testing.assert_allclose(fitted[keep], weights[:-1], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(fitted[2], 0, atol=1e-7)


def test_features_that_are_nan_or_constant_are_named():
    settings = SimpleNamespace(classes=2, epsilon=1e-5)
    broken = np.full((1, 3, 5), np.nan)
    broken[:, -1, -1] = 4
    constant = np.zeros((1, 3, 5))
    constant[:, -1] = constant[:, :, -1] = 4
    constant[0, -1, 2:4] = 2
    sums = {"a/out": {"spatial": broken}, "b/out": {"spatial": constant}}
    with pytest.warns(UserWarning, match=r"a/out \(spatial\), b/out \(spatial\).*nothing to probe"):
        fits = probe_fit.finalize(sums, settings)
    assert np.isnan(fits["a.out.spatial.basis"]).all()
    assert (fits["b.out.spatial.projection"] == 0).all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"features": ("clas",)}, "unknown feature 'clas': did you mean 'class'"),
        ({"features": ("all",), "models": ("r",)}, 'all.* would be "spatial"'),
        ({"images": 10}, "images = 10 and repeats = 1: a fit reads each of the 20 images"),
        ({"features": ("tokens",), "positions": (64,)}, "positions = .64,.: .* 0 to 63"),
        (
            {"features": ("tokens",), "token_taps": ("blok*",)},
            "token_taps = .'blok.*match no tap of",
        ),
        ({"patch": 3, "models": ("r",)}, "patch = 3 does not divide the grid .16, 16."),
        ({"patch": "big", "models": ("r",)}, 'expected "auto" or a side'),
        ({"taps": ("block00/attn_weights",)}, "attn_weights is .* one vector at each position"),
    ],
)
def test_bad_fields_of_the_fit_are_named(models, tmp_path, fields, message):
    job = configs.analysis("probe_fit", **{"models": ("v",), **fields})
    settings = {"analyses": {"probe": job}, "group": 8}
    with pytest.raises(ValueError, match=message):
        vitcnn.analyze(
            settings, tmp_path, models=models, source=data.load("scenes", size=20), progress=False
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"given": {}}, "no probe of this model; give both jobs the same models"),
        ({"classes": 9}, "here have 9 classes, those of the fit 4"),
        ({"layers": (("v", "block00/out"), ("v", "block01/out"))}, "no probe of block01/out"),
        ({"layers": ()}, "also has probes of block00.out.class; give both jobs the same taps"),
        ({"width": 7}, "has 7 channels, the layer here 3"),
        ({"penalties": (0.0, 1.0)}, "penalties = .*: expected numbers above 0"),
        ({"held_out": "tune"}, "held_out = 'tune': no such stage"),
        ({"chosen": (2, 1, 1)}, "chose .2, 1, 1. penalties, expected .1, 1, 1."),
    ],
)
def test_a_fit_of_something_else_is_refused(changes, message):
    width = changes.get("width", 3)
    shapes = {"mean": (width,), "scale": (width,), "basis": (width, width)}
    shapes |= {"eigenvalues": (width,), "projection": (width, 4)}
    fit = {f"block00.out.class.{p}": np.zeros((1, *s), np.float32) for p, s in shapes.items()}
    given = {"fit": {**fit, "target_mean": np.zeros((1, 4), np.float32)}}
    if "chosen" in changes:
        given["held_out"] = {"chosen_penalty": np.ones(changes["chosen"], np.float32)}
    layers = changes.get("layers", (("v", "block00/out"),))
    info = TapInfo("block00/out", "residual", (5, 3), (2, 2), prefix_tokens=1, class_token=True)
    settings = SimpleNamespace(
        layers=layers,
        infos=(info,) * len(layers),
        classes=changes.get("classes", 4),
        penalties=changes.get("penalties", (1.0,)),
        fit="fit",
        held_out=changes.get("held_out", "held_out"),
    )
    view = SimpleNamespace(taps={"block00/out": np.zeros((2, 5, 3), np.float32)})
    group = SimpleNamespace(label=np.zeros(2, np.int32), models={"v": view})
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda: probe.measure(group, settings, changes.get("given", given)))


def test_figures_show_the_numbers(measured):
    measurements = list(measured[1].values())
    figure = probe.draw(measurements)
    vit = measured[1]["probe.v"]
    axes = figure.axes[0]
    lines = {line.get_label(): line for line in axes.lines}
    assert list(lines) == ["class token", "mean of positions", "single positions", "chance"]
    np.testing.assert_allclose(lines["class token"].get_ydata(), 100 * vit.accuracy[:, 0])
    np.testing.assert_allclose(lines["single positions"].get_xdata(), [1])
    assert axes.get_xlabel() == "relative depth (first layer 0, last 1)"
    assert set(lines["chance"].get_ydata()) == {25} and axes.get_ylabel() == "test accuracy (%)"
    band = axes.collections[0].get_paths()[0].vertices
    error = np.hypot(vit.accuracy_standard_error, vit.accuracy_spread)[:, 0]
    high = 100 * (vit.accuracy[:, 0] + 1.96 * error)
    assert float(vit.accuracy_spread[:, 0].max()) > 0
    for x, y in zip(vit.depth.values, high.values, strict=True):
        assert np.isclose(band, [x, y]).all(axis=1).any()
    chosen_here = vit.assign_attrs(penalty_chosen_on="these images")
    assert "best penalty" in probe.draw([chosen_here]).axes[0].get_ylabel()
    maps = probe.draw_tokens(measurements)
    shown = np.asarray(maps.axes[0].images[0].get_array().filled(np.nan))
    np.testing.assert_allclose(shown, 100 * vit.token_accuracy[1])
    assert probe.draw_tokens([vit.drop_vars("token_accuracy")]) is None
