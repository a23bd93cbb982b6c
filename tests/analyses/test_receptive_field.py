"""Receptive fields against Jacobians, differences of outputs, and the kernel of a convolution."""

import functools
import itertools
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import randomised

import vitcnn
from vitcnn import data
from vitcnn.analyses import receptive_field

IMAGES = 6


def analyze(models, workdir, group=6, **fields):
    config = {"analyses": {"receptive_field": fields}, "group": group}
    source = data.load("scenes", size=IMAGES)
    results = vitcnn.analyze(config, workdir, models=models, source=source, progress=False)
    return {name.split(".")[1]: result for name, result in results.items()}


@pytest.fixture(scope="module")
def models():
    return {
        "v": randomised(vitcnn.load("vit", "mini/4", depth=2, width=48, mlp_dim=64)),
        "r": randomised(vitcnn.load("resnet", "mini", units=(1, 1), widths=(32, 64))),
    }


@pytest.fixture(scope="module")
def measured(models, tmp_path_factory):
    return analyze(models, tmp_path_factory.mktemp("rf"), channels=0)


def jacobian_fields(model, tap, position, channels):
    """Mean |d tap / d image| of each image, by forward-mode differentiation in all directions."""
    source = data.load("scenes", size=IMAGES)
    images = jnp.asarray(model.preprocess([source[i]["image"] for i in range(IMAGES)]))

    def output(image):
        taps = model.forward(model.variables, image[None], [tap])[1]
        return taps[tap][(0, *position)][channels]

    with jax.default_matmul_precision("highest"):
        gradients = jax.jit(lambda x: jax.lax.map(jax.jacrev(output), x))(images)
    return np.abs(np.asarray(gradients, np.float64)).mean((1, -1))  # [images, height, width]


def reach(fields, row, column, side):
    """Radius and outside of the mean field, pixel by pixel."""
    mean = fields.mean(0)
    y, x = (row + 0.5) * side, (column + 0.5) * side
    pixels = [
        (np.sqrt((i + 0.5 - y) ** 2 + (j + 0.5 - x) ** 2), mean[i, j])
        for i, j in itertools.product(*map(range, mean.shape))
    ]
    distances, values = zip(*sorted(pixels), strict=True)
    radius = distances[np.flatnonzero(np.cumsum(values) >= mean.sum() / 2)[0]]
    cell = np.s_[row * side : (row + 1) * side, column * side : (column + 1) * side]
    return radius, 1 - mean[cell].sum() / mean.sum()


# The cell below and to the right of the middle: 8 x 8 patches behind one class token, 8 x 8 maps.
@pytest.mark.parametrize(
    ("name", "tap", "position", "row", "side"),
    [
        ("v", "block01/out", (1 + 4 * 8 + 4,), 4, 4),
        ("r", "stage2/unit01/out", (4, 4), 4, 4),
    ],
)
def test_fields_are_those_of_the_jacobian(models, measured, name, tap, position, row, side):
    fields = jacobian_fields(models[name], tap, position, slice(None))
    result = measured[name].sel(tap=tap)
    assert (int(result.row), int(result.column)) == (row, row)
    mean = fields.mean(0)
    np.testing.assert_allclose(result.field, mean, rtol=1e-5, atol=1e-5 * mean.max())
    error = fields.std(0, ddof=1) / np.sqrt(IMAGES)
    np.testing.assert_allclose(result.field_standard_error, error, rtol=1e-3, atol=1e-6)
    radius, outside = reach(fields, row, row, side)
    np.testing.assert_allclose(result.radius, radius, rtol=1e-9)
    np.testing.assert_allclose(result.outside, outside, rtol=1e-5)


def test_standard_errors_agree_with_leaving_out_one_image(models, measured):
    fields = jacobian_fields(models["v"], "block00/mid", (37,), slice(None))
    left_out = [reach(np.delete(fields, i, 0), 4, 4, 4)[1] for i in range(IMAGES)]
    jackknife = np.sqrt((IMAGES - 1) * np.var(left_out))
    result = measured["v"].sel(tap="block00/mid")
    np.testing.assert_allclose(result.outside_standard_error, jackknife, rtol=0.1)
    # of a quantile: the spread of the share inside the radius, over the share in its ring of 1 px
    y, x = np.mgrid[:32, :32] + 0.5 - 4.5 * 4
    ring = int(np.ceil(result.radius))
    disc, smaller = np.hypot(y, x) <= ring, np.hypot(y, x) <= ring - 1
    excess = (fields * disc).sum((1, 2)) - fields.sum((1, 2)) / 2
    error = excess.std(ddof=1) / np.sqrt(IMAGES) / (fields * (disc & ~smaller)).sum() * IMAGES
    np.testing.assert_allclose(result.radius_standard_error, error, rtol=1e-3)
    assert 0.05 < error < 1  # px


def test_derivatives_are_differences(models, measured):
    """No automatic differentiation: central differences at a few pixels."""
    model, tap = models["r"], "stem/conv"
    source = data.load("scenes", size=IMAGES)
    image = np.asarray(model.preprocess([source[0]["image"]]))
    result = measured["r"].sel(tap=tap)
    at = int(result.row), int(result.column)
    for y, x in [(at[0] * 2, at[1] * 2), (at[0] * 2 + 1, at[1] * 2 + 2), (0, 0)]:
        parts = []
        for channel in range(3):
            step = np.zeros_like(image)
            step[0, y, x, channel] = 1
            above, below = (model.run(image + s, tap)[1][tap][(0, *at)] for s in (step, -step))
            parts.append(np.abs(np.asarray(above, np.float64) - below).mean() / 2)
        # the layer is linear, so the field is that of every image
        np.testing.assert_allclose(result.field[y, x], np.mean(parts), rtol=1e-4, atol=1e-6)
    assert float(result.radius_standard_error) < 1e-3


class Linear(nn.Module):
    """A convolution, of which the receptive field is the kernel, and what no one may ask for."""

    @nn.compact
    def __call__(self, images):
        x = nn.Conv(6, (8, 4), strides=(8, 4), use_bias=False, name="conv")(images)
        x = vitcnn.tap(self, "stem/conv", x, role="conv", grid=x.shape[1:3])
        return vitcnn.tap(self, "logits", x.mean((1, 2)), role="logits")


@pytest.fixture(scope="module")
def linear():
    module, image = Linear(), np.zeros((1, 32, 32, 3))
    variables = module.init(jax.random.key(1), image)
    model = vitcnn.Model(module, variables, vitcnn.Preprocess(size=32))
    return model, np.asarray(variables["params"]["conv"]["kernel"], np.float64)  # [8, 4, 3, 6]


def test_field_of_a_convolution_is_its_kernel(linear, tmp_path):
    model, kernel = linear
    result = analyze({"m": model}, tmp_path / "all", channels=100)["m"].isel(tap=0)  # 6 at most
    assert (int(result.row), int(result.column)) == (2, 4)  # of 4 x 8 cells
    field = np.zeros((32, 32))
    field[16:24, 16:20] = np.abs(kernel).mean((2, 3))
    np.testing.assert_allclose(result.field, field, rtol=1e-5)
    np.testing.assert_allclose([result.outside, result.field_standard_error.max()], 0, atol=1e-4)
    y, x = np.mgrid[:32, :32]
    inside = np.hypot(y - 19.5, x - 17.5) <= float(result.radius)
    assert field[inside].sum() >= field.sum() / 2
    closer = np.hypot(y - 19.5, x - 17.5) < float(result.radius) - 1e-9
    assert field[closer].sum() < field.sum() / 2

    config = {"method": "sum", "position": (0.0, 0.99)}
    result = analyze({"m": model}, tmp_path / "sum", **config)["m"].isel(tap=0)
    field = np.zeros((32, 32))
    field[:8, 28:] = np.abs(kernel.mean(3)).mean(2)
    np.testing.assert_allclose(result.field, field, rtol=1e-5, atol=1e-9)
    assert "mean channel" in result.field.attrs["long_name"]


def test_channels_are_drawn_without_replacement_and_without_bias(linear):
    """Over many seeds every pair of channels is drawn about as often, and no channel twice."""
    model, kernel = linear
    alone = np.abs(kernel).mean(2).transpose(2, 0, 1)  # [channel, height, width]
    info = model.taps["stem/conv"]
    forward = functools.partial(model.forward, model.variables)
    view = types.SimpleNamespace(forward=forward, image=jnp.zeros((1, 32, 32, 3)))
    pairs = {(i, j): alone[[i, j]].mean(0) for i, j in itertools.combinations(range(6), 2)}
    drawn = []
    for seed in range(30):
        settings = receptive_field.Settings(channels=2, channel_seed=seed)
        fields = receptive_field._fields(view, info, settings)
        block = np.asarray(fields[0, 16:24, 16:20])
        (pair,) = [p for p, field in pairs.items() if np.allclose(block, field, rtol=1e-5)]
        drawn += pair
    counts = np.bincount(drawn, minlength=6)  # 10 each, with a deviation of 2.6
    assert (np.abs(counts - 10) < 9).all(), counts


def test_group_batch_and_channels_do_not_change_what_they_should_not(models, measured, tmp_path):
    fields = {"taps": ["block00/mid"], "channels": 0, "batch": 3}
    small = analyze({"v": models["v"]}, tmp_path / "small", group=4, **fields)["v"].isel(tap=0)
    large = measured["v"].sel(tap="block00/mid")
    for name in ("field", "outside", "outside_standard_error", "radius_standard_error"):
        np.testing.assert_allclose(small[name], large[name], rtol=2e-4, atol=1e-7)
    np.testing.assert_allclose(small.radius, large.radius, rtol=1e-9)


def test_before_the_addition_is_the_branch_alone(models, measured, tmp_path):
    result = analyze(models, tmp_path, residual="before", channels=0)
    assert list(result["v"].tap.values) == [
        f"block0{i}/{p}" for i in (0, 1) for p in ("attn", "mlp")
    ]
    assert list(result["r"].tap.values) == [f"stage{s}/unit01/norm2" for s in (1, 2)]
    assert result["v"].branch.all() and not measured["v"].branch.any()
    assert list(measured["r"].tap.values) == [
        "stem/conv",
        *(f"stage{s}/unit01/out" for s in (1, 2)),
    ]
    # The first unit of a stage: its projection is no part of the branch.
    model = models["r"]
    fields = jacobian_fields(model, "stage2/unit01/norm2", (4, 4), slice(None))
    row = result["r"].sel(tap="stage2/unit01/norm2")
    np.testing.assert_allclose(row.field, fields.mean(0), rtol=1e-5, atol=1e-5 * fields.max())
    # An MLP sees less of the image than the attention before it: only its own token.
    outside = result["v"].outside.values
    assert outside[0] > outside[1]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"position": (0.5, 1.0)}, "position"),
        ({"position": (0.5,)}, "position"),
        ({"channels": -1}, "channels"),
        ({"batch": 0}, "batch"),
        ({"mass": 1.0}, "mass"),
        ({"method": "mean"}, "method"),
        ({"residual": "behind"}, "residual"),
        ({"taps": ["block*/attn_weights"]}, "attn_weights.*taps"),
        ({"taps": ["block*/heads"]}, "heads.*taps"),
        ({"taps": ["pooled"]}, "pooled.*taps"),
    ],
)
def test_what_does_not_fit_is_named(models, tmp_path, fields, message):
    with pytest.raises(ValueError, match=f"receptive_field.v: .*{message}"):
        analyze({"v": models["v"]}, tmp_path, **fields)


def test_no_branch_and_coarse_activations_are_errors(linear, tmp_path):
    with pytest.raises(ValueError, match="no tap is before a residual addition"):
        analyze({"m": linear[0]}, tmp_path / "none", residual="before")
    coarse = vitcnn.load("vit", "mini/4", depth=1, width=48, mlp_dim=64, dtype=jnp.bfloat16)
    with pytest.raises(ValueError, match=r"of c are bfloat16.*dtype=jnp\.float32"):
        analyze({"c": coarse}, tmp_path / "coarse", channels=1)


def test_a_tap_without_gradient_is_said_to_have_none(tmp_path):
    fresh = vitcnn.load("resnet", "mini", units=(1,), widths=(32,))  # its last norms are zero
    fields = {"residual": "before", "taps": ["stage1/unit01/norm2"], "channels": 1}
    with pytest.warns(UserWarning, match="stage1/unit01/norm2 has no receptive field"):
        result = analyze({"r": fresh}, tmp_path, **fields)["r"]
    assert np.isnan(result.radius).all() and (result.field == 0).all()


def test_figures_show_the_numbers(measured):
    results = [measured["v"], measured["r"]]
    figure = receptive_field.draw(results)
    shown = {a.get_title(loc="left"): a.images[0].get_array() for a in figure.axes if a.images}
    names = ["block 0, attention", "block 1, attention", "block 0, MLP", "block 1, MLP"]
    units = ["initial conv", *(f"stage {s}, unit 1" for s in (1, 2))]
    assert list(shown) == names + units
    np.testing.assert_array_equal(
        shown["block 1, attention"], measured["v"].field.sel(tap="block01/mid")
    )
    np.testing.assert_array_equal(
        shown["stage 2, unit 1"], measured["r"].field.sel(tap="stage2/unit01/out")
    )
    frames = {a.get_title(loc="left"): a.patches for a in figure.axes if a.images}
    for title, side in (("block 1, attention", 4), ("stage 2, unit 1", 4), ("initial conv", 2)):
        at = 4 * 4 if side == 4 else 8 * 2  # the cell below and to the right of the middle
        bounds = {box.get_bbox().bounds for box in frames[title]}
        assert bounds == {(at - 0.5, at - 0.5, side, side)}, title
    assert any("After residual" in text.get_text() for text in figure.texts)
    drawing = receptive_field.draw(results[:1], everything=True)
    order = [a.get_title(loc="left") for a in drawing.axes if a.images]
    assert order == ["block 0, attention", "block 0, MLP", "block 1, attention", "block 1, MLP"]
    many = measured["v"].isel(tap=np.zeros(24, int))
    many = many.assign_coords(tap=[f"block{i:02d}/{p}" for i in range(12) for p in ("mid", "out")])
    picked = [a.get_title(loc="left") for a in receptive_field.draw([many]).axes if a.images]
    assert picked[:5] == [f"block {i}, attention" for i in (0, 3, 6, 8, 11)] and len(picked) == 10
    axes, _ = receptive_field.draw_radius(results).axes
    assert axes.get_xlabel() == "relative depth (first layer 0, last 1)"
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), measured["v"].radius[::2])
    assert [line.get_label() for line in axes.lines] == ["attention", "MLP"]
