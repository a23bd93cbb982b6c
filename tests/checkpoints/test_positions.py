"""Resized position embeddings against PyTorch, SciPy, and their formulas."""

import numpy as np
import pytest

from vitcnn.checkpoints import positions

GRIDS = [
    ((14, 14), (24, 24)),
    ((14, 14), (7, 9)),
    ((5, 3), (3, 11)),
    ((37, 37), (16, 16)),
    ((4, 4), (1, 9)),
]


def table(grid, prefix=2, width=3):
    rng = np.random.default_rng(0)
    return rng.normal(size=(1, prefix + grid[0] * grid[1], width)).astype(np.float32)


def cubic(x, a=-0.5):
    """Keys 1981, equation 8."""
    x = abs(x)
    if x < 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


@pytest.mark.parametrize(("before", "after"), GRIDS)
def test_bicubic_is_the_formula_at_each_place(before, after):
    given = table(before)
    got = positions.resize(given, 2, before, after)
    np.testing.assert_array_equal(got[:, :2], given[:, :2])
    grid = np.float64(given[0, 2:]).reshape(*before, 3)
    got = got[0, 2:].reshape(*after, 3)
    scales = [b / a for b, a in zip(before, after, strict=True)]
    rng = np.random.default_rng(1)
    for _ in range(5):
        place = [int(rng.integers(a)) for a in after]
        total, weights = 0.0, 0.0
        for i in range(before[0]):
            for j in range(before[1]):
                weight = 1.0
                for old, new, scale in zip((i, j), place, scales, strict=True):
                    weight *= cubic((old + 0.5 - (new + 0.5) * scale) / max(scale, 1))
                total, weights = total + weight * grid[i, j], weights + weight
        np.testing.assert_allclose(got[tuple(place)], total / weights, atol=1e-6)


@pytest.mark.parametrize(("before", "after"), GRIDS)
def test_bicubic_is_torchs(before, after):
    torch = pytest.importorskip("torch")
    given = table(before)
    grid = torch.from_numpy(given[:, 2:]).reshape(1, *before, 3).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(
        grid, size=after, mode="bicubic", antialias=True, align_corners=False
    )
    expected = expected.permute(0, 2, 3, 1).reshape(1, -1, 3).numpy()
    got = positions.resize(given, 2, before, after)
    np.testing.assert_allclose(got[:, 2:], expected, atol=1e-5)
    plain = torch.nn.functional.interpolate(grid, size=after, mode="bicubic", align_corners=False)
    plain = plain.permute(0, 2, 3, 1).reshape(1, -1, 3).numpy()
    assert np.abs(plain - expected).max() > 0.01  # the filter matters


@pytest.mark.parametrize(("before", "after"), GRIDS)
def test_linear_is_scipys_zoom(before, after):
    ndimage = pytest.importorskip("scipy.ndimage")
    given = table(before)
    zoom = (after[0] / before[0], after[1] / before[1], 1)
    expected = ndimage.zoom(np.float64(given[0, 2:]).reshape(*before, 3), zoom, order=1)
    got = positions.resize(given, 2, before, after, "linear")
    np.testing.assert_allclose(got[:, 2:], expected.reshape(1, -1, 3), atol=1e-5)
    np.testing.assert_array_equal(got[:, :2], given[:, :2])


def test_linear_between_corners():
    ramp = np.arange(4.0, dtype=np.float32).reshape(1, 4, 1)
    got = positions.resize(ramp, 0, (2, 2), (3, 3), "linear").reshape(3, 3)
    np.testing.assert_allclose(got, [[0, 0.5, 1], [1, 1.5, 2], [2, 2.5, 3]], atol=1e-7)


def test_the_same_grid_is_left_alone_and_what_does_not_fit_is_named():
    given = table((3, 4))
    assert positions.resize(given, 2, (3, 4), (3, 4)) is given
    with pytest.raises(ValueError, match="unknown position_resize 'cubic': did you mean 'bicubic'"):
        positions.resize(given, 2, (3, 4), (4, 4), "cubic")
    with pytest.raises(ValueError, match="has 14 tokens, not 2 and a grid of 3 x 3"):
        positions.resize(given, 2, (3, 3), (4, 4))
