"""What finalize reads off a known CKA matrix, and that the default taps are the paper's layers."""

import numpy as np
import pytest

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
        ("vit", "L/16", 148),
        ("vit", "H/14", 196),
        ("resnet", "R50x1", 125),
        ("resnet", "50", 125),
        ("resnet", "50-keras", 125),
        ("resnet", "R152x2", 363),
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
