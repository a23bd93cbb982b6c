"""The streamed measures against `vitcnn.compare` on the taps themselves; CKA by kernel, tokens."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from networks import randomised
from oracles import song

import vitcnn
from vitcnn import data, figures, tap_layout
from vitcnn.analyses import cka, similarity
from vitcnn.similarity import measures
from vitcnn.taps import TapInfo

GROUP = 20
TAPS = ("block*/out", "stage*/unit*/out", "logits")
WHOLE = ("procrustes", "rsa_spearman", "neighbours")
POOLED = ("cka", "svcca", "pwcca", "cca", "rsa_pearson")


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    models = {
        "v": randomised(vitcnn.load("vit", "mini/4", depth=2, width=48, mlp_dim=64)),
        "r": randomised(vitcnn.load("resnet", "mini", units=(1, 1, 1))),
    }
    source = data.load("scenes", size=40)
    config = {
        "analyses": {
            "whole": {"analysis": "similarity", "taps": TAPS, "neighbours": 4},
            "pooled": {
                "analysis": "similarity",
                "taps": TAPS,
                "measures": POOLED,
                "tokens": "spatial",
                "pool": "mean",
                "components": 1,
            },
            "rbf": {"analysis": "cka", "taps": TAPS, "kernel": "rbf", "bandwidth": 0.5},
            "class": {"analysis": "cka", "taps": TAPS, "tokens": "class"},
        },
        "group": GROUP,
    }
    workdir = tmp_path_factory.mktemp("similarity")
    results = vitcnn.analyze(config, workdir, models=models, source=source, progress=False)
    images = [source[int(i)]["image"] for i in data.order(40, 40, 0, 0)]
    taps = {}
    for name, model in models.items():
        chosen = [t for t in model.taps.select([p for p in TAPS if model.taps.match(p)])]
        for tap, x in model.run(model.preprocess(images), chosen)[1].items():
            taps[f"{name}/{tap}"] = (np.asarray(x), model.taps[tap])
    return results, taps


def test_whole_features_equal_compare_on_the_taps(measured):
    results, taps = measured
    result = results["whole"]
    assert list(result.layer_x.values) == list(taps) and len(taps) == 7
    for measure in WHOLE:
        options = {"neighbours": 4} if measure == "neighbours" else {}
        layers = {name: x for name, (x, _) in taps.items()}
        table = vitcnn.compare(layers, None, measure, GROUP, **options)
        for name in (measure, f"{measure}_standard_error"):
            np.testing.assert_allclose(result[name], table[name], rtol=1e-4, atol=2e-5)
    assert result.attrs["neighbours_chance"] == pytest.approx(4 / 19)
    assert set(result.model_of_x.values) == {"v", "r"} and result.depth_x.values[-1] == 1


def test_pooled_features_equal_compare_on_their_means(measured):
    results, taps = measured
    result = results["pooled"]
    layers = {}
    for name, (x, info) in taps.items():
        x = x[:, 1:] if info.prefix_tokens else x
        layers[name] = x.reshape(len(x), -1, x.shape[-1]).mean(1, dtype=np.float64)
    for measure in POOLED:
        options = {"components": 1} if measures.find(measure).vectors_only else {}
        table = vitcnn.compare(layers, None, measure, GROUP, **options)
        for name in [n for n in table if "error" not in n]:
            np.testing.assert_allclose(result[name], table[name], rtol=1e-4, atol=1e-4)
    assert result.attrs["components"] == 1
    assert result.pwcca.attrs["long_name"] == (
        "projection-weighted canonical correlation, image positions, mean over positions"
    )
    assert float(result.cca_chance[0, 1]) == pytest.approx(1 / 19)


def groups(x):
    x = np.asarray(x, np.float64).reshape(len(x), -1)
    return [x[start : start + GROUP] for start in range(0, len(x), GROUP)]


def minibatch(xs, ys):
    """CKA of kernels of the groups: HSIC summed, then the ratio."""
    cross, x, y = (
        sum(song(a, b) for a, b in zip(left, right, strict=True))
        for left, right in ((xs, ys), (xs, xs), (ys, ys))
    )
    return cross / np.sqrt(x * y)


def rbf(x, bandwidth):
    d = np.array([[np.linalg.norm(a - b) for b in x] for a in x])
    median = np.median(d[np.triu_indices(len(x), 1)])
    return np.exp(-(d**2) / (2 * (bandwidth * median) ** 2))


def test_cka_with_an_rbf_kernel(measured):
    results, taps = measured
    result = results["rbf"].cka
    assert result.attrs["long_name"] == "unbiased CKA, RBF kernel"
    for a, b in [("v/block00/out", "r/stage2/unit01/out"), ("v/block01/out", "v/logits")]:
        xs, ys = ([rbf(g, 0.5) for g in groups(taps[name][0])] for name in (a, b))
        expected = minibatch(xs, ys)
        assert abs(float(result.sel(layer_x=a, layer_y=b)) - expected) < 1e-5


def test_cka_of_the_class_token(measured):
    """Layers without one are taken whole."""
    results, taps = measured
    result = results["class"].cka
    assert result.attrs["long_name"] == "unbiased linear CKA, class token"
    a, b = "v/block00/out", "r/stage2/unit01/out"
    kernels = [
        [(g - g.mean(0)) @ (g - g.mean(0)).T for g in groups(x)]
        for x in (taps[a][0][:, 0], taps[b][0])
    ]
    assert abs(float(result.sel(layer_x=a, layer_y=b)) - minibatch(*kernels)) < 1e-6
    assert abs(float(results["rbf"].cka[0, 1] - result[0, 1])) > 1e-3


def test_the_figure_shows_the_numbers_side_by_side(measured):
    result = measured[0]["whole"]
    figure = similarity.draw([result])
    drawn = [axes for axes in figure.axes if axes.images and axes.get_ylabel()]
    assert len(drawn) == 9
    titles = [measures.find(m).title for m in WHOLE]
    assert [axes.get_title(loc="left") for axes in drawn] == [t for t in titles for _ in range(3)]
    at = {"layer_x": result.model_of_x.values == "r", "layer_y": result.model_of_y.values == "v"}
    for i, measure in enumerate(WHOLE):
        image = drawn[3 * i + 2].images[0]
        expected = result[measure].isel(at).transpose("layer_y", "layer_x")
        np.testing.assert_array_equal(image.get_array(), expected)
        low = min(axes.images[0].get_array().min() for axes in drawn[3 * i : 3 * i + 3])
        assert image.get_clim()[0] <= low < image.get_clim()[0] + 0.1 + 1e-9
        assert image.get_clim()[1] == 1
    single = figures.heatmaps([result], {"procrustes": "Procrustes"})
    assert single.axes[0].images[0].get_clim() == (0, 1)
    assert single.axes[-1].get_title(loc="left") == "Procrustes"
    with pytest.raises(ValueError, match="no measure in common"):
        similarity.draw([result.drop_vars(WHOLE)])


def test_a_dataset_of_compare_can_be_drawn():
    rng = np.random.default_rng(0)
    table = vitcnn.compare(
        {f"x{i}": rng.normal(size=(16, 5)) for i in range(3)}, None, "procrustes"
    )
    figure = similarity.draw([table])
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), table.procrustes.values.T)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"measures": ("procrustis",)}, "unknown measure 'procrustis': did you mean 'procrustes'"),
        ({"measures": ()}, "measures is empty: name at least one of svcca, pwcca, cca, cka, "),
        ({"measures": "cca"}, 'v/block00/out, r/stage1/unit01/out have one at.* set pool = "mean"'),
        ({"measures": ("svcca",), "tokens": "class"}, "r/stage1/unit01/out has one at each"),
        (
            {"measures": "cca", "pool": "mean", "components": 2},
            "20 k images.* has 20, so components <= 1",
        ),
        ({"pool": "max"}, "unknown pool 'max'"),
        ({"tokens": "clas"}, "unknown tokens 'clas'"),
        ({"neighbours": 19}, "expected 1 <= neighbours <= 18"),
    ],
)
def test_bad_fields_are_named(fields, message):
    infos = (
        TapInfo("block00/out", shape=(17, 8), grid=(4, 4), prefix_tokens=1, class_token=True),
        TapInfo("stage1/unit01/out", shape=(4, 4, 8), grid=(4, 4)),
    )
    from vitcnn.analyses import Config, Group, View

    views = {}
    for model, info in zip("vr", infos, strict=True):
        x = jnp.zeros((GROUP, *info.shape))
        views[model] = View(None, {info.name: x}, None, {info.name: info}, None)
    config = Config(similarity.Settings(**fields), infos=infos)
    with pytest.raises(ValueError, match=message):
        similarity.measure(Group(jnp.zeros(GROUP), None, views), config, {})


def test_pool_is_the_mean_over_positions():
    x = np.random.default_rng(1).normal(size=(3, 5, 4, 6)).astype(np.float32)
    info = TapInfo("a", shape=(5, 4, 6), grid=(5, 4))
    np.testing.assert_allclose(similarity.pool(x, info), x.mean((1, 2)), rtol=1e-5, atol=1e-6)
    info = TapInfo("a", shape=(5, 4, 6), grid=(2, 2), prefix_tokens=1)  # per head
    part = info.tokens(x, "spatial")
    np.testing.assert_allclose(similarity.pool(part, info), x[:, 1:].mean(1), rtol=1e-5, atol=1e-6)
    info = TapInfo("a", role="attention_weights", shape=(5, 4, 6), grid=(2, 2))
    np.testing.assert_allclose(similarity.pool(x, info), x.mean(2), rtol=1e-5, atol=1e-6)
    assert similarity.pool(x, TapInfo("pooled", shape=(5, 4, 6))) is x


def test_registers_are_no_class_token():
    x = np.random.default_rng(1).normal(size=(3, 6, 8)).astype(np.float32)
    info = TapInfo("block00/out", shape=(6, 8), grid=(2, 2), prefix_tokens=2)
    np.testing.assert_array_equal(info.tokens(x, "class"), x)
    np.testing.assert_array_equal(info.tokens(x, "spatial"), x[:, 2:])
    with pytest.raises(ValueError, match="none of the taps has a class token"):
        tap_layout.check_tokens("class", [info])
    having = dataclasses.replace(info, class_token=True)
    np.testing.assert_array_equal(having.tokens(x, "class"), x[:, :1])
    tap_layout.check_tokens("class", [info, having])


def test_default_taps_are_those_of_cka():
    assert similarity.TAPS is cka.TAPS and similarity.Settings().measures == WHOLE


def test_cka_rejects_an_unknown_kernel():
    from vitcnn.analyses import Config, Group, View

    info = TapInfo("stage1/unit01/out", shape=(4, 4, 8), grid=(4, 4))
    view = View(None, {info.name: jnp.zeros((GROUP, *info.shape))}, None, {info.name: info}, None)
    config = Config(cka.Settings(kernel="rfb"), infos=(info,))
    with pytest.raises(ValueError, match="unknown kernel 'rfb': did you mean 'rbf'"):
        cka.measure(Group(jnp.zeros(GROUP), None, {"r": view}), config, {})
