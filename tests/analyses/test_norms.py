"""Norms against NumPy, and where the answer is known."""

import numpy as np
import pytest
from views import measured, tokens, vector

from vitcnn.analyses import norms


def arrays(seed=0, n=24):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 17, 6)).astype(np.float32)
    x[::3, 5] *= 30  # a massive position in every third image
    return x


def test_equals_numpy():
    x, y = arrays(0), arrays(1)
    infos = tokens("block00/out", x), tokens("block01/out", y, prefix=1)
    result = measured(norms, {"v": list(zip(infos, (x, y), strict=True))})
    for layer, a in zip(result.layer.values, (x, y), strict=True):
        a = np.float64(a)
        row, length = result.sel(layer=layer), np.linalg.norm(a[:, 1:], axis=-1)
        median = np.median(length, axis=1, keepdims=True)
        massive = length > 4 * median
        np.testing.assert_allclose(row.norm_class, np.linalg.norm(a[:, 0], axis=-1).mean(), 1e-5)
        np.testing.assert_allclose(row.norm_spatial, length.mean(), 1e-5)
        np.testing.assert_allclose(row.longest, (length.max(1) / median[:, 0]).mean(), 1e-5)
        np.testing.assert_allclose(row.massive, massive.mean())
        share = (length**2 * massive).sum(1) / (length**2).sum(1)
        np.testing.assert_allclose(row.massive_energy, share.mean(), 1e-5)
        firsts = []
        for group in np.split(a.reshape(24, -1), 2):
            scale = np.linalg.svd(group - group.mean(0), compute_uv=False) ** 2
            firsts.append(scale[0] / scale.sum())
        np.testing.assert_allclose(row.first_component, np.mean(firsts), 1e-4)
    assert 0.01 < float(result.massive[0]) < 0.03 and float(result.massive_energy[0]) > 0.2


def test_one_direction_is_all_of_a_layer_and_maps_have_no_class_token():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 1)) @ rng.normal(size=(1, 16 * 3)) + 5
    x = x.reshape(20, 16, 3).astype(np.float32)
    result = measured(norms, {"r": [(tokens("out", x, prefix=0), x)]})
    assert float(result.first_component[0]) == pytest.approx(1, abs=1e-4)
    assert np.isnan(result.norm_class).all() and float(result.massive[0]) == 0
    assert [len(draw([result]).axes) for draw in (norms.draw, norms.draw_shares)] == [1, 1]


def test_errors():
    x = np.ones((8, 3), np.float32)
    with pytest.raises(ValueError, match="out has no tokens: choose other taps"):
        measured(norms, {"m": [(vector("out", x), x)]})
    with pytest.raises(ValueError, match=r"massive = 0.5: expected a number above 1"):
        measured(norms, {"m": [(vector("out", x), x)]}, massive=0.5)
