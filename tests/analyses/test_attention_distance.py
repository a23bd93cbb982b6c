"""Attention distance and its companions: analytic maps, and a real network against NumPy."""

import numpy as np
import pytest

import vitcnn
from vitcnn import analyses, data
from vitcnn.analyses import attention_distance
from vitcnn.taps import TapInfo


def result_of(weights, grid, image, prefix):
    """Runs measure and finalize on attention weights [n, heads, tokens, tokens] alone."""
    info = TapInfo("a", "attention_weights", (), grid, prefix, weights.shape[1])
    view = analyses.View(
        np.zeros((len(weights), *image, 3)), {"a": weights}, None, {"a": info}, None
    )
    group = analyses.Group(None, None, {"m": view})
    sums = attention_distance.measure(group, None, {})
    config = analyses.Config(None, (("m", "a"),), (info,))
    return attention_distance.finalize(
        {
            k: {n: np.float64(v) for n, v in s.items()} if isinstance(s, dict) else np.float64(s)
            for k, s in sums.items()
        },
        config,
    )


@pytest.mark.parametrize(
    ("grid", "image", "expected"),
    [
        ((7, 7), (224, 224), 115.5),
        ((14, 14), (224, 224), 116.5),
        ((16, 16), (224, 224), 116.6),
        ((8, 8), (32, 32), 16.5),
        ((16, 16), (128, 128), 66.2),
        ((24, 24), (384, 384), 200),
    ],
)
def test_uniform_attention_has_the_published_distance(grid, image, expected):
    tokens = grid[0] * grid[1]
    result = result_of(np.full((2, 3, tokens, tokens), 1 / tokens, np.float32), grid, image, 0)
    assert result.distance.values == pytest.approx(expected, abs=0.5)
    np.testing.assert_allclose(result.distance, result.attrs["uniform"], rtol=1e-5)
    np.testing.assert_allclose(result.entropy, np.log(tokens), rtol=1e-5)
    assert np.all(result.prefix_mass == 0)


def test_attention_to_oneself_is_at_no_distance():
    eye = np.tile(np.eye(17, dtype=np.float32), (2, 1, 1, 1))
    result = result_of(eye, (4, 4), (32, 32), 1)
    for name in ("distance", "distance_renormalised", "prefix_mass", "entropy"):
        np.testing.assert_array_equal(result[name], 0)


def test_mass_on_the_class_token_shrinks_only_what_is_not_renormalised():
    """Half of each patch's attention goes to the class token, half to its right neighbour, 8 px."""
    weights = np.zeros((1, 1, 5, 5), np.float32)
    weights[..., 0] = 0.5
    for query, key in ((1, 2), (2, 1), (3, 4), (4, 3)):  # two rows of two
        weights[0, 0, query, key] = 0.5
    result = result_of(weights, (2, 2), (16, 16), 1)
    assert float(result.distance[0, 0]) == pytest.approx(4)
    assert float(result.distance_renormalised[0, 0]) == pytest.approx(8)
    assert float(result.prefix_mass[0, 0]) == pytest.approx(0.5)
    assert float(result.entropy[0, 0]) == pytest.approx(np.log(2))


def test_a_network_against_numpy_for_any_group(tmp_path):
    model = vitcnn.load("vit", "mini/4", depth=2, width=48, mlp_dim=64, image_size=(24, 32))
    source = data.load("scenes", size=30)
    images = model.preprocess([source[i]["image"] for i in range(30)])
    _, taps = model.run(images, "block*/attn_weights")
    results = {}
    for group in (30, 7):
        config = {"analyses": {"attention_distance": {}}, "group": group}
        workdir = tmp_path / str(group)
        results[group] = vitcnn.analyze(
            config, workdir, models={"v": model}, source=source, progress=False
        )["attention_distance.v"]
    places = np.array([(4.0 * r, 4.0 * c) for r in range(6) for c in range(8)])
    distance = np.linalg.norm(places[:, None] - places[None], axis=-1)
    for layer, weights in taps.items():
        patches = np.asarray(weights, np.float64)[:, :, 1:, 1:]
        plain = (patches * distance).sum(-1).mean(-1)  # images, heads
        scaled = ((patches * distance).sum(-1) / patches.sum(-1)).mean(-1)
        for result in results.values():
            row = result.sel(layer=layer)
            np.testing.assert_allclose(row.distance, plain.mean(0), rtol=1e-5)
            np.testing.assert_allclose(row.distance_renormalised, scaled.mean(0), rtol=1e-5)
        error = results[7].distance_standard_error.sel(layer=layer)
        sizes = plain.std(0, ddof=1) / np.sqrt(30)
        assert np.all(error > 0.2 * sizes) and np.all(error < 5 * sizes)
    figure = attention_distance.draw([results[7]])
    axes = figure.axes[0]
    first = axes.lines[0].get_ydata()
    np.testing.assert_allclose(
        first, np.sort(results[7].distance.sel(layer="block00/attn_weights"))
    )
    assert axes.get_ylabel() == "mean attention distance (px)"
    local = attention_distance.draw_depth([results[7]]).axes[0].lines
    assert [line.get_label() for line in local] == [
        "most global head",
        "most local head",
        "mean of heads",
        "uniform attention",
    ]
    for line, reduced in zip(local[:3], (np.max, np.min, np.mean), strict=True):
        np.testing.assert_array_equal(line.get_xdata(), [0, 1])
        np.testing.assert_allclose(line.get_ydata(), reduced(results[7].distance.values, axis=1))


def test_a_model_without_attention_is_named(tmp_path):
    model = vitcnn.load("resnet", "mini")
    config = {"analyses": {"attention_distance": {}}, "group": 8}
    with pytest.raises(ValueError, match=r"attention_distance.taps: no tap of r matches"):
        vitcnn.analyze(config, tmp_path, models={"r": model}, source=data.load("scenes", size=20))


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        ([0.2, 0.9, 0.4, 1.0], [0.8, 0.9, 0.95, 1.0], 0.1),  # 0.8 - 0.7, the least
        ([0.45, 0.9, 0.6, 1.0], [0.9, 0.9, 0.95, 1.0], 0.05),  # 0.5 - 0.45
        ([0.2, 0.3, 0.2, 0.4], [0.9, 0.9, 0.95, 1.0], -0.3),  # no global head: 0.4 - 0.7
        ([0.2, 0.9, 0.4, 1.0], [0.3, 0.9, 0.95, 1.0], -0.4),  # a local head on top
    ],
)
def test_low_layers_mix_heads_and_high_layers_do_not(low, high, expected):
    middle = [[0.1, 0.1]]  # counts for neither
    distance = np.array([*np.reshape(low, (2, 2)), *middle, *np.reshape(high, (2, 2))])
    assert attention_distance.local_and_global(distance) == pytest.approx(expected)
    assert np.isnan(attention_distance.local_and_global(distance[:3]))
