"""CKA of subsets of heads against NumPy on the heads side by side, and what it refuses."""

import numpy as np
import pytest
import xarray
from networks import randomised
from oracles import minibatch_cka

import vitcnn
from vitcnn import data
from vitcnn.analyses import head_cka
from vitcnn.numerics import statistics

GROUP, SIZE, HEADS = 10, 20, 6
LAYERS = ["stage1/unit01/out", "stage2/unit01/out"]
ALL = {
    "head_cka": {"subset": 2},
    "nested": {"analysis": "head_cka", "mode": "nested", "subset": 100},
    "class_token": {"analysis": "head_cka", "tokens": "class", "subset": 1},
    "every_token": {"analysis": "head_cka", "tokens": "all", "subset": 5},
}


def analyze(models, workdir, analyses):
    source = data.load("scenes", size=SIZE)
    config = {"analyses": analyses, "group": GROUP}
    return vitcnn.analyze(config, workdir, models=models, source=source, progress=False)


def networks():
    vit = vitcnn.load("vit", "mini/4", depth=1, width=48, mlp_dim=64, heads=HEADS)
    return {"v": vit, "r": vitcnn.load("resnet", "mini", units=(1, 1, 1))}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    models = {name: randomised(model) for name, model in networks().items()}
    results = analyze(models, tmp_path_factory.mktemp("heads"), ALL)
    source = data.load("scenes", size=SIZE)
    images = [source[int(i)]["image"] for i in data.order(SIZE, SIZE, seed=0, repeat=0)]
    taps = {
        name: {k: np.asarray(a) for k, a in model.run(model.preprocess(images), names)[1].items()}
        for (name, model), names in zip(
            models.items(), (["block00/heads", "block00/attn_weights"], "stage*/out"), strict=True
        )
    }
    return taps, results


def distances(taps):
    """Returns the mean attention distance of every head, patches of 4 px on an 8 x 8 grid."""
    weights = taps["v"]["block00/attn_weights"].astype(np.float64)[:, :, 1:, 1:]
    places = np.array([(4.0 * row, 4.0 * column) for row in range(8) for column in range(8)])
    far = np.sqrt(((places[:, None] - places[None]) ** 2).sum(-1))
    return np.einsum("nhqk,qk->h", weights, far) / (SIZE * 64)


def ranks(values):
    """Average ranks: as many as are smaller, plus half of those that are equal, itself included."""
    return [sum(w < v for w in values) + (sum(w == v for w in values) + 1) / 2 for v in values]


def check(result, taps, subsets, tokens):
    """Compares a result with NumPy on the features of the heads of each subset, side by side."""
    distance = distances(taps)
    assert list(result.layer.values) == [f"r/{layer}" for layer in LAYERS]
    features = taps["v"]["block00/heads"][:, tokens]
    cka = np.zeros((len(subsets), len(LAYERS)))
    for i, heads in enumerate(subsets):
        assert np.flatnonzero(result.heads[i]).tolist() == sorted(heads)
        mean = np.mean([distance[h] for h in heads])
        assert float(result.distance[i]) == pytest.approx(mean, rel=1e-5)
        side_by_side = np.concatenate([features[:, :, h] for h in heads], axis=-1)
        for j, layer in enumerate(LAYERS):
            cka[i, j] = minibatch_cka(side_by_side, taps["r"][layer], GROUP)
    np.testing.assert_allclose(result.cka, cka, rtol=1e-5, atol=1e-6)
    for j, layer in enumerate(result.layer.values):
        if len(subsets) < 3:
            assert np.isnan(result.spearman.sel(layer=layer))
            continue
        x = ranks([np.mean(distance[heads]) for heads in subsets])
        rho = np.corrcoef(x, ranks(cka[:, j]))[0, 1]
        assert float(result.spearman.sel(layer=layer)) == pytest.approx(rho, rel=1e-9, abs=1e-9)


def test_sliding_subsets_equal_numpy(measured):
    taps, results = measured
    order = np.argsort(distances(taps))
    result = results["head_cka"]
    check(result, taps, [[order[k], order[k + 1]] for k in range(5)], slice(1, None))
    assert np.all(np.diff(result.distance) > 0) and result.attrs["heads_of"] == "v/block00/heads"
    np.testing.assert_allclose(result.head_distance, distances(taps), rtol=1e-5)
    for head in range(HEADS):
        x = taps["v"]["block00/heads"][:, 1:, head]
        expected = minibatch_cka(x, taps["r"][LAYERS[1]], GROUP)
        assert float(result.head_cka[head, 1]) == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_nested_subsets_equal_numpy(measured):
    taps, results = measured
    order = np.argsort(distances(taps))
    check(results["nested"], taps, [order[:k] for k in range(1, HEADS + 1)], slice(1, None))


def test_tokens_and_single_heads_and_one_window(measured):
    taps, results = measured
    order = np.argsort(distances(taps))
    check(results["class_token"], taps, [[h] for h in order], slice(0, 1))
    check(results["every_token"], taps, [order[:5], order[1:]], slice(None))


def test_the_order_of_a_left_out_block_is_its_own(measured):
    """Errors from the definition: two blocks, each left out, heads sorted by what is left."""
    taps, results = measured
    left = []
    for half in (slice(0, 10), slice(10, 20)):
        part = {m: {k: a[half] for k, a in t.items()} for m, t in taps.items()}
        distance = distances(part) * SIZE / 10
        order = np.argsort(distance)
        x = part["v"]["block00/heads"][:, 1:, order[:2]]
        left.append((distance[order[:2]].mean(), minibatch_cka(x, part["r"][LAYERS[0]])))
    (d0, c0), (d1, c1) = left
    result = results["head_cka"]
    assert float(result.distance_standard_error[0]) == pytest.approx(abs(d0 - d1) / 2, rel=1e-3)
    assert float(result.cka_standard_error[0, 0]) == pytest.approx(abs(c0 - c1) / 2, rel=1e-3)


def test_ranks_and_intervals():
    x = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    assert head_cka.finite_spearman(x, -(x**3)) == pytest.approx(-1)
    y = np.array([3.0, 3.0, 1.0, 0.0, 1.0])  # ties
    assert head_cka.finite_spearman(x, y) == pytest.approx(np.corrcoef(ranks(x), ranks(y))[0, 1])
    some = np.array([1, np.nan, 2, 4, np.nan])
    assert head_cka.finite_spearman(x, some) == pytest.approx(1)
    assert np.isnan(head_cka.finite_spearman(x[:3], some[:3]))
    assert np.isnan(head_cka.finite_spearman(x, np.ones(5)))
    # One exchange of neighbours takes 12 / (n^3 - n) off: half of it is where z ends.
    step = 1 - head_cka.finite_spearman(x, x[[0, 1, 2, 4, 3]])
    z = statistics.fisher_z(np.array([1.0, -1.0, 0.5]), 5)
    np.testing.assert_allclose(np.tanh(z), [1 - step / 2, step / 2 - 1, 0.5])


def test_ranks_without_pairs_have_no_correlation():
    assert np.isnan(statistics.spearman(np.zeros(0), np.zeros(0)))


def test_intervals_are_those_of_fisher(measured):
    """artanh(0.8) = ln(3), artanh(0.6) = ln(2) and tanh(ln(x)) = (x^2 - 1) / (x^2 + 1)."""
    # With 5 pairs a perfect correlation is moved in by 6 / 120, to 0.95: z = ln(1.95 / 0.05) / 2.
    z = statistics.fisher_z(np.array([0.8, -0.6, 1.0, -1.0]), 5)
    np.testing.assert_allclose(z, [1.0986123, -0.6931472, 1.8317808, -1.8317808], rtol=1e-7)
    error = np.array([0.35364652, 0.0, 0.5, np.nan])  # 1.96 of the first are ln(2)
    result = xarray.Dataset(
        {"spearman_z": ("layer", z), "spearman_z_standard_error": ("layer", error)}
    )
    low, high = head_cka.spearman_interval(result)
    # ends of the first: x = 3 / 2 and 3 * 2; z of the third is 1.8317808 -+ 0.98
    np.testing.assert_allclose(low, [5 / 13, -0.6, 0.6919987, np.nan], rtol=1e-6)
    np.testing.assert_allclose(high, [35 / 37, -0.6, 0.9928025, np.nan], rtol=1e-6)
    result = measured[1]["nested"]
    low, high = head_cka.spearman_interval(result)
    assert np.all(low <= result.spearman_z.pipe(np.tanh)) and np.all(low >= -1)
    assert np.all(high >= result.spearman_z.pipe(np.tanh)) and np.all(high <= 1)


@pytest.mark.parametrize(
    ("models", "fields", "message"),
    [
        ("r", {}, r"models r these .*: none; .*config\.analyses\.<name>\.models"),
        ("vwr", {}, r"models v, w, r these have taps of heads: v, w;"),
        ("v", {}, r"no layer to compare the heads of v with; .*\.models"),
        ("vr", {"subset": 7}, r"subset = 7, but v/block00/heads has 6 heads; .*\.subset"),
        ("vr", {"subset": 0}, r"subset = 0"),
        ("vr", {"mode": "nest"}, r"unknown mode 'nest'.*nested"),
        ("vr", {"tokens": "patch"}, r"unknown tokens"),
        (
            "vr",
            {"taps": ("block00/heads", "stage*/out")},
            r"one block are needed.*v/block00/heads;",
        ),
    ],
)
def test_what_does_not_fit_is_named(models, fields, message, tmp_path):
    models_by_name = networks()
    models_by_name["w"] = models_by_name["v"]
    chosen = {name: models_by_name[name] for name in models}
    with pytest.raises(ValueError, match=message):
        analyze(chosen, tmp_path, {"head_cka": fields})


def test_the_figure_shows_the_numbers(measured):
    result = measured[1]["head_cka"]
    axes = head_cka.draw([result]).axes[0]
    assert [line.get_label() for line in axes.lines] == LAYERS
    for line, layer in zip(axes.lines, result.layer.values, strict=True):
        np.testing.assert_array_equal(line.get_xdata(), result.distance)
        np.testing.assert_array_equal(line.get_ydata(), result.cka.sel(layer=layer))
    assert axes.get_xlabel().endswith("(px)")
