"""Dropout and stochastic depth: what training leaves out at random, in every family.

Each layer is computed in float64 from the captured array that it reads, so that the zeros show, and
every number beside them is compared with its value divided by the probability of staying.
"""

import math

import flax.errors
import jax
import numpy as np
import pytest
from networks import flat, shapes_of

from vitcnn import models, taps

DROPOUT, ATTENTION_DROPOUT, DEPTH = 0.25, 0.4, 0.5
VIT = {
    "image_size": (12, 20),
    "patch": (4, 5),
    "width": 24,
    "depth": 3,
    "mlp_dim": 40,
    "heads": 3,
    "num_classes": 7,
    "registers": 1,
    "layer_scale": 0.5,
}
MIXER = {
    "image_size": (12, 20),
    "patch": (4, 5),
    "width": 24,
    "depth": 3,
    "tokens_mlp_dim": 20,
    "channels_mlp_dim": 40,
    "num_classes": 7,
}
RESNET = {
    "image_size": 8,
    "units": (1, 2),
    "widths": (32, 32),
    "bottleneck": False,
    "stem_kernel": 3,
    "stem_pool": False,
    "num_classes": 7,
}
BIT = {"image_size": 8, "units": (1, 2), "widths": (32, 32), "num_classes": 7}
DROPPING = {
    ("vit", "B/16"): {
        **VIT,
        "dropout": DROPOUT,
        "attention_dropout": ATTENTION_DROPOUT,
        "stochastic_depth": DEPTH,
    },
    ("mixer", "B/16"): {**MIXER, "dropout": DROPOUT, "stochastic_depth": DEPTH},
    ("resnet", "R50x1"): {**RESNET, "stochastic_depth": DEPTH},
    ("bit", "R50x1"): {**BIT, "stochastic_depth": DEPTH},
}


def training_run(family, variant, fields, images=24, seed=1):
    """Returns float64 (parameters by name, images, taps of a forward pass of training by name)."""
    module = models.create(family, variant, **fields)
    shapes, image = shapes_of(module)
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        value = rng.normal(size=leaf.shape) * (0.2 if leaf.ndim > 1 else 1.0)
        return np.float32(value + (path[-1].key in ("scale", "gamma")))

    variables = jax.tree_util.tree_map_with_path(draw, shapes)
    images = rng.normal(size=(images, *image.shape[1:])).astype(np.float32)
    table = taps.tabulate(module, variables, images)

    @jax.jit
    def run(key):
        rngs = {"dropout": key}
        return taps.forward(module, variables, images, table, list(table), train=True, rngs=rngs)

    _, got = run(jax.random.key(seed))
    params = {k: np.float64(v) for k, v in flat(variables["params"]).items()}
    return params, np.float64(images), {k: np.float64(v) for k, v in got.items()}


def assert_dropped(got, whole, rate):
    """Fails unless numbers are those of `whole` over 1 - rate, or zero at that rate."""
    stays = got != 0
    np.testing.assert_allclose(
        got, np.where(stays, whole / (1 - rate), 0), atol=2e-5 * np.abs(whole).max()
    )
    assert abs(stays.mean() - (1 - rate)) <= 5 * math.sqrt(rate * (1 - rate) / stays.size)


def assert_branch_dropped(got, whole, depth_rate, rate=0.0):
    """Does the same for a branch that is left out for whole images, after dropout at `rate`.

    Returns for each image whether its branch stays.
    """
    stays = (got != 0).reshape(len(got), -1).any(axis=1)
    assert stays.all() if depth_rate == 0 else 0 < stays.mean() < 1
    assert_dropped(got[stays] * (1 - depth_rate), whole[stays], rate)
    return tuple(stays)


def dense(x, params, name):
    return x @ params[f"{name}/kernel"] + params[f"{name}/bias"]


def gelu(x):
    return x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2


def embedded(images, kernel, bias, patch):
    """Returns the vectors of the patches, row by row."""
    (ph, pw), (n, height, width, _) = patch, images.shape
    corners = [(r, c) for r in range(0, height, ph) for c in range(0, width, pw)]
    patches = np.stack([images[:, r : r + ph, c : c + pw] for r, c in corners], axis=1)
    return patches.reshape(n, len(corners), -1) @ kernel.reshape(-1, kernel.shape[-1]) + bias


def test_each_part_of_a_vit_drops_where_it_should():
    params, images, got = training_run("vit", "B/16", DROPPING["vit", "B/16"])
    patches = embedded(images, params["embedding/kernel"], params["embedding/bias"], VIT["patch"])
    cls = np.repeat(params["cls"], len(images), axis=0)
    tokens = np.concatenate([cls, patches], axis=1)
    tokens += params["Transformer/posembed_input/pos_embedding"]
    assert_dropped(np.delete(got["embed"], 1, axis=1), tokens, DROPOUT)
    registers = np.repeat(params["registers"], len(images), axis=0)
    np.testing.assert_array_equal(got["embed"][:, 1:2], registers)  # they have no position
    stays = set()
    for i, depth_rate in enumerate((0, DEPTH / 2, DEPTH)):
        name, block = f"Transformer/encoderblock_{i}", f"block{i:02d}"
        attention = f"{name}/MultiHeadDotProductAttention_1"
        query, key, value = (
            np.einsum("ntw,whd->nhtd", got[f"{block}/ln1"], params[f"{attention}/{part}/kernel"])
            + params[f"{attention}/{part}/bias"][:, None]
            for part in ("query", "key", "value")
        )
        scores = np.exp(query @ key.swapaxes(2, 3) / math.sqrt(8))
        weights = scores / scores.sum(axis=-1, keepdims=True)
        assert_dropped(got[f"{block}/attn_weights"], weights, ATTENTION_DROPOUT)
        heads = np.einsum("nhqk,nhkd->nqhd", got[f"{block}/attn_weights"], value)
        np.testing.assert_allclose(got[f"{block}/heads"], heads, atol=1e-4)
        attn = np.einsum("nthd,hdw->ntw", got[f"{block}/heads"], params[f"{attention}/out/kernel"])
        attn = (attn + params[f"{attention}/out/bias"]) * params[f"{name}/ls1/gamma"]
        hidden = gelu(dense(got[f"{block}/ln2"], params, f"{name}/MlpBlock_3/Dense_0"))
        assert_dropped(got[f"{block}/hidden"], hidden, DROPOUT)
        mlp = dense(got[f"{block}/hidden"], params, f"{name}/MlpBlock_3/Dense_1")
        mlp = mlp * params[f"{name}/ls2/gamma"]
        for branch, whole in (("attn", attn), ("mlp", mlp)):
            stays.add(assert_branch_dropped(got[f"{block}/{branch}"], whole, depth_rate, DROPOUT))
        assert_residual(got, i)
    assert len(stays) == 5  # all images stay in both branches of block 0, the others draw anew


def assert_residual(got, i):
    """Fails unless a block adds its branches, as they were captured, to the stream."""
    block, before = f"block{i:02d}", got["embed"] if i == 0 else got[f"block{i - 1:02d}/out"]
    np.testing.assert_allclose(got[f"{block}/mid"], before + got[f"{block}/attn"], atol=1e-5)
    out = got[f"{block}/mid"] + got[f"{block}/mlp"]
    np.testing.assert_allclose(got[f"{block}/out"], out, atol=1e-5)


@pytest.mark.parametrize("rescale", [True, False])
def test_each_part_of_a_mixer_drops_where_it_should(rescale):
    fields = {**DROPPING["mixer", "B/16"], "stochastic_depth_rescale": rescale}
    params, images, got = training_run("mixer", "B/16", fields)
    patches = embedded(images, params["stem/kernel"], params["stem/bias"], MIXER["patch"])
    np.testing.assert_allclose(got["embed"], patches, atol=1e-5)
    stays = set()
    for i, depth_rate in enumerate((0, DEPTH / 2, DEPTH)):
        name, block = f"MixerBlock_{i}", f"block{i:02d}"
        hidden = gelu(
            dense(got[f"{block}/ln1"].swapaxes(1, 2), params, f"{name}/token_mixing/Dense_0")
        )
        assert_dropped(got[f"{block}/tokens_hidden"], hidden, DROPOUT)
        attn = dense(got[f"{block}/tokens_hidden"], params, f"{name}/token_mixing/Dense_1")
        hidden = gelu(dense(got[f"{block}/ln2"], params, f"{name}/channel_mixing/Dense_0"))
        assert_dropped(got[f"{block}/hidden"], hidden, DROPOUT)
        mlp = dense(got[f"{block}/hidden"], params, f"{name}/channel_mixing/Dense_1")
        for branch, whole in (("attn", attn.swapaxes(1, 2)), ("mlp", mlp)):
            whole = whole if rescale else whole * (1 - depth_rate)
            stays.add(assert_branch_dropped(got[f"{block}/{branch}"], whole, depth_rate, DROPOUT))
        assert_residual(got, i)
    assert len(stays) == 5


def test_a_resnet_leaves_out_branches():
    params, _, got = training_run("resnet", "R50x1", DROPPING["resnet", "R50x1"])
    units = {"stage1/unit01": 0, "stage2/unit01": DEPTH / 2, "stage2/unit02": DEPTH}
    for unit, depth_rate in units.items():
        x = got[f"{unit}/conv2"]  # 32 groups of one channel each
        x = (x - x.mean((1, 2), keepdims=True)) / np.sqrt(x.var((1, 2), keepdims=True) + 1e-6)
        name = unit.replace("stage", "block").replace("unit0", "unit")
        x = x * params[f"{name}/gn2/scale"] + params[f"{name}/gn2/bias"]
        assert_branch_dropped(got[f"{unit}/norm2"], x, depth_rate)
        skip = got[f"{unit}/shortcut_norm" if unit == "stage2/unit01" else BEFORE[unit]]
        out = np.maximum(skip + got[f"{unit}/norm2"], 0)
        np.testing.assert_allclose(got[f"{unit}/out"], out, atol=1e-5)


BEFORE = {"stage1/unit01": "stem/norm", "stage2/unit02": "stage2/unit01/out"}


def test_a_bit_leaves_out_branches():
    params, _, got = training_run("bit", "R50x1", DROPPING["bit", "R50x1"])
    units = {"stage1/unit01": 0, "stage2/unit01": DEPTH / 2, "stage2/unit02": DEPTH}
    for unit, depth_rate in units.items():
        kernel = params[f"resnet/{unit.replace('stage', 'block')}/c/standardized_conv2d/kernel"]
        kernel = kernel[0, 0] - kernel[0, 0].mean(axis=0)
        kernel = kernel / np.sqrt((kernel**2).mean(axis=0) + 1e-10)
        assert_branch_dropped(got[f"{unit}/conv3"], got[f"{unit}/norm3"] @ kernel, depth_rate)
        skip = got[f"{unit}/shortcut_conv" if "unit01" in unit else BEFORE[unit]]
        np.testing.assert_allclose(got[f"{unit}/out"], skip + got[f"{unit}/conv3"], atol=1e-5)


@pytest.mark.parametrize(("family", "variant"), DROPPING)
def test_only_training_at_a_rate_changes_the_program(family, variant):
    def program(fields, train=False):
        module = models.create(family, variant, **fields)
        shapes, image = shapes_of(module)
        return str(jax.make_jaxpr(lambda v, x: module.apply(v, x, train=train))(shapes, image))

    fields = DROPPING[family, variant]
    still = {k: v for k, v in fields.items() if "drop" not in k and k != "stochastic_depth"}
    assert program(fields) == program(still) == program(still, train=True)
    with pytest.raises(flax.errors.InvalidRngError, match='needs PRNG for "dropout"'):
        program(fields, train=True)


@pytest.mark.parametrize(
    ("family", "variant", "field"),
    [
        ("vit", "mini/4", "dropout"),
        ("vit", "mini/4", "attention_dropout"),
        ("mixer", "S/32", "dropout"),
        *((family, variant, "stochastic_depth") for family, variant in DROPPING),
    ],
)
def test_what_is_no_probability_is_refused(family, variant, field):
    with pytest.raises(ValueError, match=f"{field} is 1.5, expected a probability"):
        shapes_of(models.create(family, variant, **{field: 1.5}))
