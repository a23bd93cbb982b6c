"""The same layer of several networks against NumPy."""

import numpy as np
import oracles
import pytest
from views import measured, vector

from vitcnn.analyses import layer_cka


def networks(names="abc", seed=0):
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(24, 2, 6))
    models = {}
    for k, name in enumerate(names):
        x = (base + k * rng.normal(size=base.shape)).astype(np.float32)
        models[name] = [(vector(f"block{i:02d}/out", x[:, i]), x[:, i]) for i in range(2)]
    return models


def test_pairs_with_the_reference_and_the_ceiling_equal_numpy():
    models = networks()
    result = measured(layer_cka, models, reference="b", ceiling=("c", "a"))
    assert list(result.pair.values) == ["b and a", "b and c", "c and a"]
    assert result.is_ceiling.values.tolist() == [False, False, True]
    assert list(result.layer.values) == ["block00/out", "block01/out"]
    for pair in result.pair.values:
        first, second = str(pair).split(" and ")
        for i in range(2):
            expected = oracles.minibatch_cka(models[first][i][1], models[second][i][1], 12)
            np.testing.assert_allclose(result.cka.sel(pair=pair)[i], expected, atol=1e-5)
    (axes,) = layer_cka.draw([result]).axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["b and a", "b and c", "same training, other seed"]


def test_the_first_model_is_the_reference_and_no_ceiling_is_drawn():
    result = measured(layer_cka, networks())
    assert list(result.pair.values) == ["a and b", "a and c"] and not result.is_ceiling.any()
    (axes,) = layer_cka.draw([result]).axes
    assert len(axes.get_legend().get_texts()) == 2


def test_errors():
    models = networks("ab")
    with pytest.raises(ValueError, match="unknown model 'x'"):
        measured(layer_cka, models, reference="x")
    with pytest.raises(ValueError, match="expected the names of two models"):
        measured(layer_cka, models, ceiling=("a",))
    models["b"].pop()
    with pytest.raises(ValueError, match=r"a and b have different taps \(block01/out\)"):
        measured(layer_cka, models)
    with pytest.raises(ValueError, match="one model alone"):
        measured(layer_cka, networks("a"))
