"""Objects against cross-validation in NumPy, and where the answer is known."""

import numpy as np
import pytest
from oracles import cross_validation, fold_of
from views import measured, tokens, vector

from vitcnn.analyses import decoding, objects

N, SIDE = 40, 4


def boxes(seed=0):
    """Two boxes an image, the second missing in every other image."""
    rng = np.random.default_rng(seed)
    corner, size = rng.uniform(0, 0.6, (N, 2, 2)), rng.uniform(0.2, 0.4, (N, 2, 2))
    of_images = np.concatenate([corner, corner + size], 2).astype(np.float32)
    of_images[::2, 1] = np.nan
    return of_images


def targets(of_images, side=SIDE):
    """Presence [n, positions, 1] and box [n, positions, 4], position by position."""
    presence, box = np.zeros((N, side**2, 1)), np.zeros((N, side**2, 4))
    for i, here in enumerate(np.float64(of_images)):
        for p in range(side**2):
            y, x = (p // side + 0.5) / side, (p % side + 0.5) / side
            inside = [b for b in here if b[0] <= y < b[2] and b[1] <= x < b[3]]
            if inside:
                smallest = min(inside, key=lambda b: (b[2] - b[0]) * (b[3] - b[1]))
                presence[i, p], box[i, p] = 1, smallest - [y, x, y, x]
    return presence, box


def test_equals_cross_validation_on_explicit_positions():
    rng = np.random.default_rng(1)
    here = boxes()
    presence, box = targets(here)
    hidden = np.concatenate([presence, box], 2) @ rng.normal(size=(5, 6))
    x = np.concatenate([rng.normal(size=(N, 1, 6)), hidden + rng.normal(size=hidden.shape)], 1)
    x = x.astype(np.float32)
    result = measured(objects, {"v": [(tokens("out", x), x)]}, boxes=here)
    fold, penalties = np.array([fold_of(i, 4) for i in range(N)]), objects.Settings().penalties
    x = np.float64(x[:, 1:])
    expected, penalty = cross_validation(x, presence, fold, 4, penalties)
    row = result.isel(layer=0).sel(target="presence")
    np.testing.assert_allclose(row.r2_fold, expected, atol=1e-5)
    np.testing.assert_array_equal(row.penalty, penalty)
    shown = presence[..., 0] > 0
    flat = [a[shown][:, None] for a in (x, box)]
    expected, _ = cross_validation(*flat, np.repeat(fold, shown.sum(1)), 4, penalties)
    row = result.isel(layer=0).sel(target="box")
    np.testing.assert_allclose(row.r2_fold, expected, atol=1e-5)
    np.testing.assert_allclose(row.r2, expected.mean(), atol=1e-5)
    np.testing.assert_allclose(row.r2_standard_error, expected.std(ddof=1) / 2, rtol=1e-3)
    np.testing.assert_allclose(result.share, presence.mean(), rtol=1e-6)
    assert result.grid.values.tolist() == ["4x4"]


def test_positions_that_hold_the_answer_are_read_exactly_and_no_object_is_said():
    here = boxes(2)
    x = np.concatenate(targets(here), 2).astype(np.float32)
    taps = [(tokens("out", x, prefix=0), x)]
    result = measured(objects, {"r": taps}, boxes=here)
    np.testing.assert_allclose(result.r2, 1, atol=1e-4)
    (axes,) = objects.draw([result]).axes
    assert axes.get_ylabel() == decoding.R2
    with pytest.warns(UserWarning, match="no position shows an object"):
        nothing = measured(objects, {"r": taps}, boxes=np.full_like(here, np.nan))
    assert np.isnan(nothing.r2).all() and float(nothing.share[0]) == 0


def test_errors():
    x = np.ones((N, 3), np.float32)
    with pytest.raises(ValueError, match="out has no positions"):
        measured(objects, {"m": [(vector("out", x), x)]}, boxes=boxes())
    with pytest.raises(ValueError, match="folds = 2"):
        measured(objects, {"m": [(vector("out", x), x)]}, boxes=boxes(), folds=2)
