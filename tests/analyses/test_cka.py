"""What finalize reads off a known CKA matrix, and that the default taps are the paper's layers."""

import numpy as np
import oracles
import pytest
from marks import slow
from views import measured, vector

import vitcnn
from vitcnn import analyses
from vitcnn.analyses import cka
from vitcnn.similarity.hsic import HsicSums


def finalize(matrix, layers, permuted=None):
    """Finalizes sums whose CKA is `matrix`, with energies that make every layer live."""
    scale = np.linspace(1, 3, len(matrix))  # CKA does not see it
    hsic = np.asarray(matrix) * scale[:, None] * scale[None, :]
    ones = np.ones(len(matrix))
    sums = HsicSums(hsic=hsic, energy=ones, square=2 * ones, pairs=1.0, images=1.0)
    sums = {"hsic": sums} if permuted is None else {"hsic": sums, "permuted": permuted}
    return cka.finalize(sums, analyses.Config(cka.Settings(), tuple(layers)))


@pytest.fixture
def pair():
    """A ViT of 6 layers, all alike, but the top two; a ResNet whose low half is the ViT's start."""
    matrix = np.eye(12)
    vit, resnet = slice(0, 6), slice(6, 12)
    matrix[vit, vit] = 0.8
    within = np.exp(-np.abs(np.subtract.outer(range(6), range(6))))
    matrix[resnet, resnet] = within
    across = np.full((6, 6), 0.1)
    across[0, :4] = 0.7  # ResNet layers 0 to 3 match ViT layer 0
    across[1, 4] = 0.6
    across[2, 5] = 0.5
    across[3, 5] = 0.4
    matrix[vit, resnet] = across
    matrix[resnet, vit] = across.T
    np.fill_diagonal(matrix, 1)
    layers = [("v", f"a{i}") for i in range(6)] + [("r", f"b{i}") for i in range(6)]
    return finalize(matrix, layers), matrix


def test_matrix_and_names(pair):
    result, matrix = pair
    np.testing.assert_allclose(result.cka, matrix, atol=1e-12)
    assert result.layer_x.values[0] == "v/a0" and result.layer_y.values[-1] == "r/b5"
    assert float(result.cka.sel(layer_x="v/a1", layer_y="r/b4")) == pytest.approx(0.6)
    assert list(result.model_of_x.values) == ["v"] * 6 + ["r"] * 6
    np.testing.assert_allclose(result.depth_x.values[:6], [0, 0.2, 0.4, 0.6, 0.8, 1])


def test_lower_with_upper_third(pair):
    result, matrix = pair
    r = matrix[6:, 6:]
    expected = r[np.ix_([0, 1], [4, 5])].mean()
    assert float(result.lower_upper.sel(model_x="v")) == pytest.approx(0.8)
    assert float(result.lower_upper.sel(model_x="r")) == pytest.approx(expected)
    difference = result.lower_upper_difference.sel(model_x="v", model_y="r")
    assert float(difference) == pytest.approx(0.8 - expected)


def test_best_matches_and_what_is_read_off_them(pair):
    result, _ = pair
    depth = result.match_depth.sel(model_y="v").values[6:]
    np.testing.assert_allclose(depth, [0, 0, 0, 0, 0.2, 0.4])
    np.testing.assert_allclose(
        result.match_cka.sel(model_y="r").values[:6], [0.7, 0.6, 0.5, 0.4, 0.1, 0.1]
    )
    lag = result.lower_match_lag.sel(model_x="r", model_y="v")
    assert float(lag) == pytest.approx(np.mean([0, 0.2, 0.4]))
    drop = result.upper_match_drop.sel(model_x="v", model_y="r")
    assert float(drop) == pytest.approx(0.45 - 0.1), "first third 0.65, middle 0.45, last 0.1"


def test_dead_layers_are_left_out_of_means_and_matches():
    matrix = np.array([[1.0, 0.5, 0.2], [0.5, 0.0, 0.9], [0.2, 0.9, 1.0]])  # the middle one is dead
    with pytest.warns(UserWarning, match="do not vary.*: m/b$"):
        result = finalize(matrix, [("m", "a"), ("m", "b"), ("n", "c")])
    assert np.isnan(result.cka.sel(layer_x="m/b")).all()
    assert float(result.match_depth.sel(layer_x="n/c", model_y="m")) == 0
    assert float(result.match_cka.sel(layer_x="n/c", model_y="m")) == pytest.approx(0.2)
    assert np.isnan(result.match_depth.sel(layer_x="m/b", model_y="n"))


@pytest.mark.parametrize(
    ("family", "variant", "count"),
    [
        ("vit", "B/32", 76),
        slow("vit", "L/16", 148),
        slow("vit", "H/14", 196),
        ("resnet", "R50x1", 125),
        ("resnet", "50", 125),
        slow("resnet", "50-keras", 125),
        slow("resnet", "R152x2", 363),
    ],
)
def test_default_taps_are_as_many_as_the_papers_axes_show(family, variant, count):
    """Shapes only: nothing of these sizes is computed."""
    import jax
    import jax.numpy as jnp

    from vitcnn import models

    module = models.create(family, variant)
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), images)
    model = vitcnn.Model(module, shapes)
    names = model.taps.select([p for p in cka.TAPS if model.taps.match(p)])
    assert len(names) == count
    assert not any(model.taps[name].alias for name in names)
    assert cka.TRAITS.least_group == 4


def test_best_matches_of_permuted_images_equal_numpy():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(24, 5)), rng.normal(size=(24, 2, 6))
    y[:, 0, :5] += 3 * x
    x, y = x.astype(np.float32), y.astype(np.float32)
    taps = {
        "v": [(vector("a", x), x)],
        "r": [(vector(f"b{i}", y[:, i]), y[:, i]) for i in range(2)],
    }
    result = measured(cka, taps)
    by_chance = []
    for i in range(2):
        sums = np.zeros(3)
        for part in np.split(np.arange(24), 2):
            k, h = oracles.linear(x[part]), oracles.linear(y[part, i])
            moved = oracles.linear(np.roll(y[part, i], 1, axis=0))
            sums += [oracles.song(*pair) for pair in ((k, moved), (k, k), (h, h))]
        by_chance.append(sums[0] / np.sqrt(sums[1] * sums[2]))
    at = {"layer_x": "v/a", "model_y": "r"}
    np.testing.assert_allclose(result.match_null.sel(at), max(by_chance), atol=1e-5)
    expected = max(oracles.minibatch_cka(x, y[:, i], 12) for i in range(2))
    np.testing.assert_allclose(result.match_cka.sel(at), expected, atol=1e-5)
    assert expected > 0.5 > abs(max(by_chance))
    mean = np.mean([oracles.minibatch_cka(x, y[:, i], 12) for i in range(2)])
    np.testing.assert_allclose(result.mean_cka.sel(model_x="v", model_y="r"), mean, atol=1e-5)


def explained(x, values):
    """The share of variance that a line explains, if the line rises."""
    r = np.corrcoef(x, values)[0, 1]
    return r**2 if r > 0 else 0


def test_two_blocks_are_told_from_a_gradient():
    layers, n = [("m", f"l{i:02d}") for i in range(12)], np.arange(12)
    first, second = np.triu_indices(12, 1)
    noise = np.random.default_rng(0).normal(0, 0.01, (12, 12))
    block = np.where((n[:, None] < 3) == (n[None] < 3), 0.9, 0.1) + (noise + noise.T)
    np.fill_diagonal(block, 1)
    values = block[first, second]
    share = explained(((first < 3) == (second < 3)) * 1.0, values)
    margin = min(share - explained(first - second, values), 1 / 2 - 2.5 / 11)
    result = finalize(block, layers)
    assert float(result.two_blocks.sel(model_x="m")) == pytest.approx(margin) and margin > 0.2
    late = finalize(block[::-1, ::-1], layers)  # the small block is the second
    assert float(late.two_blocks[0]) == pytest.approx(1 / 2 - 8.5 / 11)
    gradient = np.maximum(1 - np.abs(n[:, None] - n[None]) / 12, 0)
    assert float(finalize(gradient, layers).two_blocks[0]) < -0.2
    assert np.isnan(finalize(np.full((5, 5), 0.5) + np.eye(5) / 2, layers[:5]).two_blocks[0])
