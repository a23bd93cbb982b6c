"""Residual networks against functional PyTorch in float64, and against the published numbers."""

import math

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
from vitcnn.numerics import random_weights

# Odd sizes, so that where the padding goes matters.
SMALL = {
    "image_size": (50, 70),
    "units": (2, 1, 2, 1),
    "widths": (32, 32, 64, 32),
    "num_classes": 7,
}
EVEN = {"image_size": (64, 96), "units": (1, 1, 1, 2)}
GROUPED = {"widths": (32, 64, 96, 64), "expansion": 0.5, "stem_widths": (8, 12, 16)}
CIFAR = {"image_size": (14, 18), "units": (1, 2, 1), "num_classes": 7}


def random_variables(module, seed=0):
    """Every scale (the last of a unit too), bias and running statistic is away from 0 and 1."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        value = rng.normal(size=leaf.shape)
        if path[-1].key == "scale":
            value = 1 + 0.3 * value
        elif path[-1].key == "var":
            value = 0.5 + value**2
        elif path[-1].key == "kernel":
            value = value * math.sqrt(2 / (leaf.size / leaf.shape[-1])) + 0.02
        return np.float32(value if path[-1].key != "bias" else 0.3 * value)

    return jax.tree_util.tree_map_with_path(draw, shapes_of(module)[0])


def oracle(variables, images, module, train=False):
    """Every intermediate in float64 by PyTorch's functions, channels first."""
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    p = {k: torch.from_numpy(np.float64(v)) for k, v in flat(variables["params"]).items()}
    stats = {
        k: torch.from_numpy(np.float64(v))
        for k, v in flat(variables.get("batch_stats", {})).items()
    }
    prefix = {"batch": "bn", "group": "gn", "plain_group": "norm"}[module.norm]
    pre, avg_pool2d = module.preactivation, functional.avg_pool2d
    out = {}

    def pad(x, kernel, stride, value=0.0):
        sides = []
        for size in (x.shape[3], x.shape[2]):
            if module.padding == "both":
                sides += [(kernel - 1) // 2] * 2
            else:  # TensorFlow's SAME
                total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
                sides += [total // 2, total - total // 2]
        return functional.pad(x, sides, value=value)

    def conv(x, name, stride=1, groups=1):
        kernel = p[f"{name}/kernel"]
        if module.norm == "group":
            mean = kernel.mean((0, 1, 2))
            kernel = (kernel - mean) / (kernel.std((0, 1, 2), correction=0) + 1e-5)
        kernel = kernel.permute(3, 2, 0, 1)
        return functional.conv2d(
            pad(x, kernel.shape[2], stride), kernel, p.get(f"{name}/bias"), stride, groups=groups
        )

    def norm(x, name):
        scale, bias = p[f"{name}/scale"], p[f"{name}/bias"]
        if module.norm != "batch":
            return functional.group_norm(x, 32, scale, bias, eps=module.epsilon)
        return functional.batch_norm(
            x,
            stats[f"{name}/mean"].clone(),
            stats[f"{name}/var"].clone(),
            scale,
            bias,
            training=train,
            eps=module.epsilon,
        )

    def shrink(x):
        if module.downsample == "mean":
            return avg_pool2d(x, 2)
        line = torch.tensor([1, 2, 1], dtype=x.dtype) / 4
        kernel = torch.outer(line, line).expand(x.shape[1], 1, 3, 3)
        return functional.conv2d(
            functional.pad(x, [1] * 4, mode="reflect"), kernel, stride=2, groups=x.shape[1]
        )

    def gate(x, name):
        means = x.mean((2, 3))
        if module.attention == "se":
            hidden = (means @ p[f"{name}/se/reduce/kernel"] + p[f"{name}/se/reduce/bias"]).relu()
            return (hidden @ p[f"{name}/se/expand/kernel"] + p[f"{name}/se/expand/bias"]).sigmoid()
        kernel = p[f"{name}/eca/kernel"]
        return functional.conv1d(
            means[:, None], kernel[None, None], padding=len(kernel) // 2
        ).sigmoid()[:, 0]

    x = torch.from_numpy(np.float64(images)).permute(0, 3, 1, 2)
    count = max(1, len(module.stem_widths))
    for i in range(1, count + 1):
        number = i if i < count else ""
        out[f"stem/conv{number}"] = x = conv(
            x, f"conv_root{number}", module.stem_stride if i == 1 else 1
        )
        if not pre or i < count:
            out[f"stem/norm{number}"] = x = norm(x, f"{prefix}_root{number}").relu()
    if module.stem_pool_conv:
        out["stem/pool_conv"] = x = conv(x, "conv_pool", 2)
        out["stem/pool"] = x = norm(x, f"{prefix}_pool").relu()
    elif module.stem_pool:
        stride = 2 if module.downsample == "stride" else 1
        if module.downsample != "mean":
            x = functional.max_pool2d(pad(x, 3, stride, -math.inf), 3, stride)
        out["stem/pool"] = x = x if stride == 2 else shrink(x)
    number = -1
    for s, units in enumerate(module.units, 1):
        for u in range(1, units + 1):
            number += 1
            name, unit = f"block{s}/unit{u}", f"stage{s}/unit{u:02d}"
            stride = 2 if s > 1 and u == 1 else 1
            out[f"{unit}/in"] = x
            y, last = x, 3 if module.bottleneck else 2
            strided = module.stride_conv if module.bottleneck else 1
            shrinks = stride == 2 and module.downsample != "stride"
            for c in range(1, last + 1):
                if pre:
                    out[f"{unit}/norm{c}"] = y = norm(y, f"{name}/{prefix}{c}").relu()
                    x = y if c == 1 and f"{name}/conv_proj/kernel" in p else x
                y = conv(
                    y,
                    f"{name}/conv{c}",
                    stride if c == strided and not shrinks else 1,
                    module.groups if c == 2 else 1,
                )
                out[f"{unit}/conv{c}"] = y
                if not pre:
                    y = norm(y, f"{name}/{prefix}{c}")
                    y = y if c == last else y.relu()
                    out[f"{unit}/norm{c}"] = y
                if shrinks and c == strided:
                    out[f"{unit}/pool"] = y = shrink(y)
            if module.attention != "none":
                out[f"{unit}/gate"] = gates = gate(y, name)
                out[f"{unit}/gated"] = y = y * gates[:, :, None, None]
            if number in module.no_skip:
                x = 0
            elif f"{name}/conv_proj/kernel" in p:
                if stride == 2 and module.shortcut_pool:
                    x = avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)
                    out[f"{unit}/shortcut_pool"], stride = x, 1
                out[f"{unit}/shortcut_conv"] = x = conv(x, f"{name}/conv_proj", stride)
                if not pre:
                    out[f"{unit}/shortcut_norm"] = x = norm(x, f"{name}/{prefix}_proj")
            elif x.shape != y.shape:
                missing = y.shape[1] - x.shape[1]
                zeros = x.new_zeros((x.shape[0], missing // 2, *y.shape[2:]))
                x = torch.cat([zeros, x[:, :, ::2, ::2], zeros], dim=1)
                out[f"{unit}/shortcut_pad"] = x
            if number not in module.no_skip:
                out[f"{unit}/skip"] = x
            out[f"{unit}/out"] = x = x + y if pre else (x + y).relu()
    if pre:
        out["norm"] = x = norm(x, f"{prefix}_final").relu()
    out = {k: (v.permute(0, 2, 3, 1) if v.ndim == 4 else v).numpy() for k, v in out.items()}
    out["pooled"] = x.mean((2, 3)).numpy()
    out["logits"] = out["pooled"] @ p["head/kernel"].numpy() + p["head/bias"].numpy()
    return out


FORMS = [
    ("R50x1", SMALL),
    ("R50x1", {**SMALL, "bottleneck": False, "no_skip": (1, 2)}),
    ("50", SMALL),
    ("50-keras", SMALL),
    ("20", {**CIFAR, "no_skip": (3,)}),
    # Each with several of the parts of other published networks; the sides that "mean" halves are
    # even.
    (
        "resnext50d_32x4d",
        {**SMALL, **GROUPED, "attention": "se", "se_ratio": 0.25, "downsample": "blur"},
    ),
    (
        "resnetaa50",
        {**SMALL, **EVEN, "attention": "eca", "norm": "plain_group", "groups": 4, "no_skip": (3,)},
    ),
    ("resnetrs50", {**SMALL, "bottleneck": False, "stem_widths": (8, 24)}),
    ("resnetv2_50t", {**SMALL, "attention": "se", "no_skip": (2,)}),
]


@pytest.mark.parametrize(("variant", "fields"), FORMS)
def test_every_tap_equals_pytorch(variant, fields):
    module = models.create("resnet", variant, **fields)
    variables = random_variables(module)
    images = np.random.default_rng(1).normal(size=(2, *fields["image_size"], 3)).astype(np.float32)
    expected = oracle(variables, images, module)
    assert_taps_equal(module, variables, images, expected, atol=3e-5)


def test_units_without_a_skip_have_no_shortcut():
    """They are counted over all stages, so unit 2 is the first one of the second stage."""
    module = models.create("resnet", "R50x1", **SMALL, no_skip=(1, 2))
    shapes, images = shapes_of(module)
    unit = shapes["params"]["block2"]["unit1"]
    assert unit.keys() == {f"{layer}{i}" for layer in ("conv", "gn") for i in (1, 2, 3)}
    assert "conv_proj" in shapes["params"]["block3"]["unit1"]
    table = taps.tabulate(module, shapes, images)
    assert table["stage1/unit01/norm3"].skip == "stage1/unit01/shortcut_norm"
    assert table["stage1/unit02/norm3"].skip is table["stage2/unit01/norm3"].skip is None
    assert not table.match("stage2/unit01/shortcut*")
    assert table["stage3/unit01/norm3"].skip == "stage3/unit01/shortcut_norm"


def test_units_without_a_skip_learn_only_if_their_last_norm_does_not_start_at_zero():
    fields = {"image_size": 8, "units": (1, 1), "widths": (32, 32), "no_skip": (1,)}
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    gradients = {}
    for scale in (0.0, 1.0):
        module = models.create("resnet", "mini", **fields, last_norm_scale=scale)
        params = random_weights.draw(lambda key: module.init(key, images), 0)["params"]
        for stage in ("block1", "block2"):
            np.testing.assert_array_equal(params[stage]["unit1"]["gn2"]["scale"], scale)
            np.testing.assert_array_equal(params[stage]["unit1"]["gn1"]["scale"], 1)
        params["head"]["kernel"] = np.ones((32, 10), np.float32)  # it starts at zero too
        cost = lambda params: module.apply({"params": params}, images).sum()  # noqa: E731
        gradients[scale] = flat(jax.jit(jax.grad(cost))(params))
    trunk = [name for name in gradients[0.0] if not name.startswith("head")]
    assert all((gradients[0.0][name] == 0).all() for name in trunk)
    assert all((gradients[1.0][name] != 0).any() for name in trunk)
    dead = models.create("resnet", "mini", **fields)
    with pytest.raises(ValueError, match=r"units \(1,\) have no skip .* set last_norm_scale=1"):
        jax.eval_shape(lambda v, x: dead.apply(v, x, train=True), *shapes_of(dead))


def test_training_uses_the_batch_and_updates_the_running_statistics():
    module = models.create("resnet", "20", **CIFAR)
    variables = random_variables(module)
    images = np.random.default_rng(1).normal(size=(4, 14, 18, 3)).astype(np.float32)
    expected = oracle(variables, images, module, train=True)
    run = jax.jit(lambda v, x: module.apply(v, x, train=True, mutable=["batch_stats"]))
    logits, updated = run(variables, images)
    np.testing.assert_allclose(logits, expected["logits"], atol=1e-4)
    old, new = variables["batch_stats"]["bn_root"], updated["batch_stats"]["bn_root"]
    seen = expected["stem/conv"]
    for name, batch in (("mean", seen.mean((0, 1, 2))), ("var", seen.var((0, 1, 2)))):
        np.testing.assert_allclose(new[name], 0.9 * old[name] + 0.1 * batch, rtol=1e-4, atol=1e-6)
    assert updated["batch_stats"].keys() == variables["batch_stats"].keys()


def test_group_norm_networks_have_no_running_statistics_and_train_alike():
    module = models.create("resnet", "mini")
    variables = random_variables(module)
    assert set(variables) == {"params"}
    images = np.random.default_rng(1).normal(size=(2, 32, 32, 3)).astype(np.float32)
    run = jax.jit(module.apply, static_argnames="train")
    np.testing.assert_array_equal(
        run(variables, images, train=True), run(variables, images, train=False)
    )


@pytest.mark.parametrize(
    ("variant", "count"),
    [
        ("18", 11_689_512),
        ("34", 21_797_672),
        ("50", 25_557_032),
        ("101", 44_549_160),
        slow("152", 60_192_808),
        ("20", 269_722),
        slow("110", 1_727_962),
        ("R50x1", 25_557_032),
        ("R101x1", 44_549_160),
        slow("R152x1", 60_192_808),
    ],
)
def test_parameter_counts_are_the_published_ones(variant, count):
    shapes, _ = shapes_of(models.create("resnet", variant))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == count


@pytest.mark.parametrize(
    ("variant", "count"),
    [("50-keras", 25_636_712), ("101-keras", 44_707_176), ("152-keras", 60_419_944)],
)
def test_variable_counts_of_keras_are_the_published_ones(variant, count):
    """Running statistics are counted there."""
    shapes, _ = shapes_of(models.create("resnet", variant))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count


@pytest.mark.parametrize(("variant", "count"), [("R50x1", 125), ("50", 125), slow("R152x2", 363)])
def test_layers_of_the_papers_heatmaps(variant, count):
    module = models.create("resnet", variant)
    table = taps.tabulate(module, *shapes_of(module))
    names = table.select("*")
    assert len(names) == count
    assert not any(name.endswith("/in") for name in names)
    assert names[:3] == ("stem/conv", "stem/norm", "stem/pool")
    assert names[-2:] == ("pooled", "logits")
    grids = [table[f"stage{s}/unit01/out"].grid for s in (1, 2, 3, 4)]
    assert grids == [(56, 56), (28, 28), (14, 14), (7, 7)]


def test_tap_table_says_what_each_tap_is():
    module = models.create("resnet", "R50x1")
    table = taps.tabulate(module, *shapes_of(module))
    unit = [name.removeprefix("stage2/unit01/") for name in table.match("stage2/unit01/*")]
    branch = ["in", "conv1", "norm1", "conv2", "norm2", "conv3", "norm3"]
    assert unit == [*branch, "shortcut_conv", "shortcut_norm", "skip", "out"]
    assert table["stage1/unit01/in"].alias == "stem/pool"
    assert table["stage2/unit02/in"].alias == "stage2/unit01/out"
    assert table["stage2/unit01/in"].alias == "stage1/unit03/out"
    assert table["stage2/unit01/skip"].alias == "stage2/unit01/shortcut_norm"
    assert table["stage2/unit02/skip"].alias == "stage2/unit01/out"
    assert table["stage2/unit01/norm3"].skip == "stage2/unit01/shortcut_norm"
    assert table["stage2/unit02/norm3"].skip == "stage2/unit02/in"
    assert table["stage2/unit02/norm2"].skip is None
    roles = {
        "stem/conv": "conv",
        "stem/norm": "norm",
        "stem/pool": "pool",
        "stage2/unit01/conv2": "conv",
        "stage2/unit01/norm3": "norm",
        "stage2/unit01/shortcut_norm": "shortcut",
        "stage2/unit01/out": "residual",
        "pooled": "pooled",
        "logits": "logits",
    }
    assert {name: table[name].role for name in roles} == roles
    assert table["stage2/unit01/conv1"].grid == (56, 56)  # the 3x3 halves the grid
    keras = models.create("resnet", "50-keras")
    assert taps.tabulate(keras, *shapes_of(keras))["stage2/unit01/conv1"].grid == (28, 28)


def test_tap_table_of_a_gated_network_with_a_stem_of_three_convolutions():
    fields = {"units": (1, 2), "widths": (32, 64), "image_size": 64}
    module = models.create("resnet", "seresnextaa101d_32x8d", **fields)
    table = taps.tabulate(module, *shapes_of(module))
    stem = ["conv1", "norm1", "conv2", "norm2", "conv", "norm", "pool"]
    assert [name for name in table if name.startswith("stem")] == [f"stem/{name}" for name in stem]
    unit = [name.removeprefix("stage2/unit01/") for name in table.match("stage2/unit01/*")]
    branch = ["in", "conv1", "norm1", "conv2", "norm2", "pool", "conv3", "norm3", "gate", "gated"]
    shortcut = ["shortcut_pool", "shortcut_conv", "shortcut_norm"]
    assert unit == [*branch, *shortcut, "skip", "out"]
    assert table["stage2/unit01/gated"].skip == "stage2/unit01/shortcut_norm"
    assert table["stage2/unit02/gated"].skip == "stage2/unit02/in"
    assert table["stage2/unit01/norm3"].skip is None
    roles = {"pool": "pool", "gate": "gate", "gated": "gated", "shortcut_pool": "pool"}
    assert {name: table[f"stage2/unit01/{name}"].role for name in roles} == roles
    gate = table["stage2/unit01/gate"]
    assert gate.shape == (64,) and gate.grid is None and gate.layout == "vector"
    assert table["stage2/unit01/norm2"].grid == (16, 16)
    assert table["stage2/unit01/pool"].grid == table["stage2/unit01/shortcut_pool"].grid == (8, 8)


def test_tap_table_of_version_2():
    """Norms come first, and the projection reads the first of them."""
    module = models.create("resnet", "resnetv2_50t", units=(1, 2), widths=(32, 64), image_size=64)
    table = taps.tabulate(module, *shapes_of(module))
    stem = ["conv1", "norm1", "conv2", "norm2", "conv", "pool"]
    assert [name for name in table if name.startswith("stem")] == [f"stem/{name}" for name in stem]
    unit = [name.removeprefix("stage2/unit01/") for name in table.match("stage2/unit01/*")]
    branch = ["in", "norm1", "conv1", "norm2", "conv2", "norm3", "conv3"]
    assert unit == [*branch, "shortcut_pool", "shortcut_conv", "skip", "out"]
    assert table["stage2/unit01/conv3"].skip == "stage2/unit01/shortcut_conv"
    assert table["stage2/unit01/shortcut_conv"].role == "shortcut"
    assert list(table)[-3:] == ["norm", "pooled", "logits"]


def test_cifar_taps():
    module = models.create("resnet", "20")
    table = taps.tabulate(module, *shapes_of(module))
    assert "stem/pool" not in table and table["stage1/unit01/in"].alias == "stem/norm"
    assert table["stage2/unit01/norm2"].skip == "stage2/unit01/shortcut_pad"
    assert table["stage1/unit01/norm2"].skip == "stage1/unit01/in"
    assert len(table.select("*")) == 2 + 9 * 5 + 2 + 2


def test_parameter_names_are_those_of_googles_resnet():
    shapes, _ = shapes_of(models.create("resnet", "R50x1"))
    names = {k: v.shape for k, v in flat(shapes["params"]).items()}
    assert names["conv_root/kernel"] == (7, 7, 3, 64)
    unit = {k.removeprefix("block2/unit1/") for k in names if k.startswith("block2/unit1/")}
    convs = {f"conv{i}/kernel" for i in ("1", "2", "3", "_proj")}
    assert unit == convs | {
        f"gn{i}/{w}" for i in ("1", "2", "3", "_proj") for w in ("scale", "bias")
    }
    assert names["block2/unit1/conv3/kernel"] == (1, 1, 128, 512)
    assert {k.split("/")[0] for k in names} == {
        *("conv_root", "gn_root", "head"),
        *(f"block{i}" for i in (1, 2, 3, 4)),
    }


def test_a_fresh_unit_is_its_shortcut():
    module = models.create("resnet", "mini")
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    variables = random_weights.draw(lambda key: module.init(key, images), 0)
    table = taps.tabulate(module, variables, images)
    names = ["stage1/unit02/in", "stage1/unit02/norm2", "stage1/unit02/out"]
    _, got = taps.forward(module, variables, images, table, names)
    np.testing.assert_array_equal(got[names[1]], np.zeros_like(got[names[1]]))
    np.testing.assert_array_equal(got[names[0]], got[names[2]])


def test_the_mini_network_is_small_and_keeps_a_grid():
    module = models.create("resnet", "mini")
    shapes, images = shapes_of(module)
    assert 3e5 < sum(leaf.size for leaf in jax.tree.leaves(shapes)) < 5e5
    assert taps.tabulate(module, shapes, images)["stage3/unit02/out"].grid == (4, 4)


def test_without_a_head_the_output_is_the_pooled_features():
    module = models.create("resnet", "20", **{**CIFAR, "num_classes": 0})
    variables = random_variables(module)
    assert "head" not in variables["params"]
    features = module.apply(variables, np.ones((2, 14, 18, 3), np.float32))
    assert features.shape == (2, 64)


def test_bfloat16_activations_keep_float32_parameters():
    variables = random_variables(models.create("resnet", "mini"))
    assert_bfloat16_keeps_float32_parameters("resnet", "mini", variables)


def test_running_statistics_stay_float32_in_bfloat16():
    module = models.create("resnet", "20", **CIFAR, dtype=jnp.bfloat16)
    shapes, images = shapes_of(module)
    train = lambda v, x: module.apply(v, x, train=True, mutable=["batch_stats"])  # noqa: E731
    logits, updated = jax.eval_shape(train, shapes, images)
    assert logits.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(updated)} == {np.dtype("float32")}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"norm": "groups"}, "unknown norm of resnet 'groups': did you mean 'group'"),
        ({"shortcut": "conv"}, "unknown shortcut of resnet 'conv'"),
        ({"padding": "valid"}, "unknown padding of resnet 'valid'"),
        ({"stride_conv": 3}, "stride_conv is 3; it must be 1 or 2"),
        ({"no_skip": (6,)}, r"no_skip is \(6,\), but units are 0 to 5"),
        ({"units": (1, 1)}, "differ in length"),
        ({"widths": (16, 32, 64)}, r"^widths \(16, 32, 64\) must be multiples of 32"),
        ({"stem_widths": (24, 32)}, r"stem_widths \(24, 32\) must be multiples of 32"),
        ({"norm": "plain"}, "unknown norm of resnet 'plain': did you mean 'plain_group'"),
        (
            {"attention": "SE"},
            "unknown attention of resnet 'SE': did you mean 'se'",
        ),
        ({"norm": "bn"}, "unknown norm of resnet 'bn': did you mean 'batch'"),
        ({"downsample": "avg"}, "unknown downsample of resnet 'avg': did you mean 'mean'"),
        ({"downsample": "pool"}, "unknown downsample of resnet 'pool'"),
        ({"downsample": "mean", "image_size": 36}, "a map has 9 x 9; set image_size"),
        ({"downsample": "blur", "preactivation": True}, "'blur' and preactivation=True are not"),
        (
            {"downsample": "mean", "stem_pool": True, "stem_pool_conv": True},
            "'mean' and stem_pool_conv=True are not",
        ),
        ({"stem_pool_conv": True}, "replaces a pool, and stem_pool is False"),
        ({"shortcut_pool": True, "shortcut": "pad"}, "shortcut is 'pad'; set shortcut='project'"),
        ({"groups": 2}, "groups is 2, but only bottlenecks have groups"),
        (
            {"groups": 3, "bottleneck": True},
            r"widths \(32, 64, 64\) must be multiples of groups, 3",
        ),
    ],
)
def test_fields_that_do_not_fit_are_refused(overrides, message):
    with pytest.raises(ValueError, match=message):
        shapes_of(models.create("resnet", "mini", **overrides))


def test_images_of_another_size_are_refused():
    module = models.create("resnet", "20", **CIFAR)
    with pytest.raises(ValueError, match=r"images are 2 x 32 x 32 x 3.* takes N x 14 x 18 x 3"):
        module.apply(random_variables(module), np.zeros((2, 32, 32, 3), np.float32))
