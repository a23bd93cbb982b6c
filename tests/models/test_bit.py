"""BiT against functional PyTorch in float64, and against the published numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import slow
from networks import (
    assert_bfloat16_keeps_float32_parameters,
    assert_taps_equal,
    flat,
    shapes_of,
)

from vitcnn import models, taps

# Odd sizes, so that where the padding goes matters.
SMALL = {"image_size": (46, 66), "units": (1, 2), "widths": (32, 64), "num_classes": 7}


def random_variables(module, seed=0):
    """Every scale and bias is away from 0 and 1, and no filter is standardised yet."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        value = rng.normal(size=leaf.shape)
        if path[-1].key == "gamma":
            return np.float32(1 + 0.3 * value)
        if path[-1].key == "kernel":
            return np.float32(0.4 + value * rng.uniform(0.5, 2, leaf.shape[-1]))
        return np.float32(0.3 * value)

    return jax.tree_util.tree_map_with_path(draw, shapes_of(module)[0])


def oracle(variables, images, module):
    """Every intermediate in float64 by PyTorch's functions, channels first."""
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    p = {
        k.removeprefix("resnet/"): torch.from_numpy(np.float64(v))
        for k, v in flat(variables["params"]).items()
    }
    out = {}

    def conv(x, name, stride=1):
        kernel = p[f"{name}/standardized_conv2d/kernel"].permute(3, 2, 0, 1)
        variance, mean = torch.var_mean(kernel, (1, 2, 3), correction=0, keepdim=True)
        kernel = (kernel - mean) / torch.sqrt(variance + 1e-10)
        return functional.conv2d(x, kernel, stride=stride, padding=kernel.shape[2] // 2)

    def norm(x, name):
        scale, bias = p[f"{name}group_norm/gamma"], p[f"{name}group_norm/beta"]
        return functional.group_norm(x, 32, scale, bias, eps=1e-5).relu()

    x = torch.from_numpy(np.float64(images)).permute(0, 3, 1, 2)
    out["stem/conv"] = x = conv(x, "root_block", 2)
    out["stem/pool"] = x = functional.max_pool2d(functional.pad(x, (1, 1, 1, 1)), 3, 2)
    number = -1
    for s, units in enumerate(module.units, 1):
        for u in range(1, units + 1):
            number += 1
            name, unit = f"block{s}/unit{u:02d}", f"stage{s}/unit{u:02d}"
            stride = 2 if s > 1 and u == 1 else 1
            out[f"{unit}/in"] = x
            out[f"{unit}/norm1"] = first = norm(x, f"{name}/a/")
            out[f"{unit}/conv1"] = y = conv(first, f"{name}/a")
            out[f"{unit}/norm2"] = y = norm(y, f"{name}/b/")
            out[f"{unit}/conv2"] = y = conv(y, f"{name}/b", stride)
            out[f"{unit}/norm3"] = y = norm(y, f"{name}/c/")
            out[f"{unit}/conv3"] = y = conv(y, f"{name}/c")
            if number in module.no_skip:
                x = 0
            elif u == 1:
                out[f"{unit}/shortcut_conv"] = x = conv(first, f"{name}/a/proj", stride)
            if number not in module.no_skip:
                out[f"{unit}/skip"] = x
            out[f"{unit}/out"] = x = x + y
    out["norm"] = x = norm(x, "")
    out = {k: v.permute(0, 2, 3, 1).numpy() for k, v in out.items()}
    out["pooled"] = x.mean((2, 3)).numpy()
    out["logits"] = out["pooled"] @ p["head/kernel"].numpy() + p["head/bias"].numpy()
    return out


@pytest.mark.parametrize("no_skip", [(), (1,)])
def test_every_tap_equals_pytorch(no_skip):
    module = models.create("bit", "R50x1", **SMALL, no_skip=no_skip)
    variables = random_variables(module)
    images = np.random.default_rng(1).normal(size=(2, *SMALL["image_size"], 3)).astype(np.float32)
    expected = oracle(variables, images, module)
    assert_taps_equal(module, variables, images, expected, atol=1e-5)


def test_zeros_around_the_stem_win_over_negative_neighbours():
    module = models.create("bit", "R50x1", units=(1,), widths=(32,), image_size=16)
    variables = random_variables(module)
    images = np.random.default_rng(1).normal(size=(9, 16, 16, 3)).astype(np.float32)
    table = taps.tabulate(module, variables, images)
    run = jax.jit(lambda v, x: taps.forward(module, v, x, table, ["stem/conv", "stem/pool"])[1])
    got = run(variables, images)
    corner = got["stem/conv"][:, :2, :2].max(axis=(1, 2))
    assert (corner < 0).any()  # where it is, padding of -infinity would give this number
    np.testing.assert_array_equal(got["stem/pool"][:, 0, 0], np.maximum(corner, 0))
    assert (got["stem/pool"][:, 1:, 1:] < 0).any()  # inside nothing is cut off


@pytest.mark.parametrize(
    ("variant", "count", "classes"),
    [  # Kolesnikov et al.'s released files; timm counts the same
        ("R50x1", 25_549_352, 1000),
        ("R50x1", 68_256_659, 21_843),
        slow("R50x3", 217_319_080, 1000),
        ("R101x1", 44_541_480, 1000),
        slow("R101x3", 387_934_888, 1000),
        slow("R152x2", 236_335_208, 1000),
        slow("R152x4", 936_533_224, 1000),
    ],
)
def test_parameter_counts_are_the_published_ones(variant, count, classes):
    shapes, _ = shapes_of(models.create("bit", variant, num_classes=classes))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count


def test_tap_table_says_what_each_tap_is():
    module = models.create("bit", "R50x1")
    table = taps.tabulate(module, *shapes_of(module))
    unit = [name.removeprefix("stage2/unit01/") for name in table.match("stage2/unit01/*")]
    branch = ["in", "norm1", "conv1", "norm2", "conv2", "norm3", "conv3"]
    assert unit == [*branch, "shortcut_conv", "skip", "out"]
    assert list(table)[:2] == ["stem/conv", "stem/pool"]
    assert list(table)[-3:] == ["norm", "pooled", "logits"]
    assert len(table.select("*")) == 2 + 16 * 7 + 4 + 3
    assert table["stage1/unit01/in"].alias == "stem/pool"
    assert table["stage2/unit01/in"].alias == "stage1/unit03/out"
    skips = {name: info.skip for name, info in table.items() if info.skip}
    assert len(skips) == 16 and all(name.endswith("/conv3") for name in skips)
    assert skips["stage2/unit01/conv3"] == "stage2/unit01/shortcut_conv"
    assert skips["stage2/unit02/conv3"] == "stage2/unit02/in"
    roles = {
        "stem/conv": "conv",
        "stem/pool": "pool",
        "stage2/unit01/norm1": "norm",
        "stage2/unit01/conv3": "conv",
        "stage2/unit01/shortcut_conv": "shortcut",
        "stage2/unit01/out": "residual",
        "norm": "norm",
        "pooled": "pooled",
    }
    assert {name: table[name].role for name in roles} == roles
    grids = [table[f"stage{s}/unit01/out"].grid for s in (1, 2, 3, 4)]
    assert grids == [(56, 56), (28, 28), (14, 14), (7, 7)]
    assert table["stage2/unit01/conv1"].grid == (56, 56)  # the 3x3 halves the grid


def test_units_without_a_skip_have_no_shortcut():
    """They are counted over all stages, so unit 1 is the first one of the second stage."""
    module = models.create("bit", "R50x1", **SMALL, no_skip=(1,))
    shapes, images = shapes_of(module)
    blocks = shapes["params"]["resnet"]
    assert "proj" in blocks["block1"]["unit01"]["a"]
    assert "proj" not in blocks["block2"]["unit01"]["a"]
    table = taps.tabulate(module, shapes, images)
    skips = [table[f"{unit}/conv3"].skip for unit in ("stage1/unit01", "stage2/unit01")]
    assert skips == ["stage1/unit01/shortcut_conv", None]
    assert table["stage2/unit02/conv3"].skip == "stage2/unit02/in"
    assert not table.match("stage2/unit01/shortcut*")


def test_without_a_head_the_output_is_the_pooled_features():
    module = models.create("bit", "R50x1", units=(1,), widths=(32,), num_classes=0)
    shapes, images = shapes_of(module)
    assert "head" not in shapes["params"]
    assert jax.eval_shape(module.apply, shapes, images).shape == (1, 128)


def test_bfloat16_activations_keep_float32_parameters():
    fields = {"image_size": 16, "units": (1,), "widths": (32,), "num_classes": 7}
    variables = random_variables(models.create("bit", "R50x1", **fields))
    assert_bfloat16_keeps_float32_parameters("bit", "R50x1", variables, **fields)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"units": (1, 1, 1)}, "differ in length"),
        ({"widths": (16, 32)}, "must be multiples of 32"),
        ({"no_skip": (3,)}, r"no_skip is \(3,\), but units are 0 to 2"),
    ],
)
def test_fields_that_do_not_fit_are_refused(overrides, message):
    with pytest.raises(ValueError, match=message):
        shapes_of(models.create("bit", "R50x1", **{**SMALL, **overrides}))


def test_other_images_and_variants_are_refused():
    module = models.create("bit", "R50x1", **SMALL)
    with pytest.raises(ValueError, match=r"images are 2 x 32 x 32 x 3.* takes N x 46 x 66 x 3"):
        jax.eval_shape(module.apply, {}, jnp.zeros((2, 32, 32, 3)))
    with pytest.raises(ValueError, match=r"unknown variant of bit 'R50': did you mean .*'R50x1'"):
        models.create("bit", "R50")
