"""MLP-Mixer against functional PyTorch in float64, and against the published numbers."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import (
    assert_bfloat16_keeps_float32_parameters,
    assert_taps_equal,
    flat,
    shapes_of,
)

import vitcnn
from vitcnn import data, models, taps
from vitcnn.analyses import attention_distance, cka, receptive_field, skip_ratio

SMALL = {
    "image_size": (16, 24),
    "patch": (4, 8),
    "width": 12,
    "depth": 2,
    "tokens_mlp_dim": 10,
    "channels_mlp_dim": 20,
    "num_classes": 5,
}
BRANCHES = ("attn", "mlp")
COUNTS = [  # timm counts the same but for H/14, which it has not; the paper rounds to millions
    ("S/32", 19_104_624, 19),
    ("S/16", 18_528_264, 18),
    ("B/32", 60_293_428, 60),
    ("B/16", 59_880_472, 59),
    ("L/32", 206_939_264, 206),
    ("L/16", 208_196_168, 207),
    ("H/14", 432_350_952, 431),
]


def random_variables(module, seed=0):
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        value = rng.normal(size=leaf.shape)
        if path[-1].key == "kernel":
            return np.float32(1.5 * value / math.sqrt(leaf.size / leaf.shape[-1]))
        return np.float32(value * 0.3 + (path[-1].key == "scale"))

    return jax.tree_util.tree_map_with_path(draw, shapes_of(module)[0])


def oracle(variables, images, module):
    """Every intermediate in float64 by PyTorch's functions."""
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    p = {k: torch.from_numpy(np.float64(v)) for k, v in flat(variables["params"]).items()}
    out = {}

    def norm(x, name):
        return functional.layer_norm(x, x.shape[-1:], p[f"{name}/scale"], p[f"{name}/bias"], 1e-6)

    def dense(x, name):
        return functional.linear(x, p[f"{name}/kernel"].T, p[f"{name}/bias"])

    def gelu(x):
        return functional.gelu(x, approximate="tanh" if module.gelu == "tanh" else "none")

    x = torch.from_numpy(np.float64(images)).permute(0, 3, 1, 2)
    kernel = p["stem/kernel"].permute(3, 2, 0, 1)
    x = functional.conv2d(x, kernel, p["stem/bias"], stride=module.patch)
    out["embed"] = x = x.flatten(2).transpose(1, 2)
    for i in range(module.depth):
        name, block = f"MixerBlock_{i}", f"block{i:02d}"
        out[f"{block}/in"] = x
        out[f"{block}/ln1"] = y = norm(x, f"{name}/LayerNorm_0")
        y = gelu(dense(y.transpose(1, 2), f"{name}/token_mixing/Dense_0"))
        out[f"{block}/tokens_hidden"] = y
        y = dense(y, f"{name}/token_mixing/Dense_1").transpose(1, 2)
        out[f"{block}/attn"] = y
        skip = i not in module.no_skip
        out |= {f"{block}/skip_attn": x} if skip else {}
        out[f"{block}/mid"] = x = skip * x + y
        out[f"{block}/ln2"] = y = norm(x, f"{name}/LayerNorm_1")
        out[f"{block}/hidden"] = y = gelu(dense(y, f"{name}/channel_mixing/Dense_0"))
        out[f"{block}/mlp"] = y = dense(y, f"{name}/channel_mixing/Dense_1")
        out |= {f"{block}/skip_mlp": x} if skip else {}
        out[f"{block}/out"] = x = skip * x + y
    out["norm"] = x = norm(x, "pre_head_layer_norm")
    out["pooled"] = x = x.mean(1)
    out["logits"] = dense(x, "head")
    return {k: v.numpy() for k, v in out.items()}


@pytest.mark.parametrize("fields", [{"gelu": "tanh"}, {"gelu": "exact", "no_skip": (1,)}])
def test_every_tap_equals_pytorch(fields):
    module = models.create("mixer", "B/16", **SMALL, **fields)
    variables = random_variables(module)
    images = np.random.default_rng(1).normal(size=(3, 16, 24, 3)).astype(np.float32)
    expected = oracle(variables, images, module)
    assert_taps_equal(module, variables, images, expected, atol=1e-5)


@pytest.mark.parametrize(("variant", "count", "millions"), COUNTS)
def test_parameter_counts_are_the_published_ones(variant, count, millions):
    shapes, _ = shapes_of(models.create("mixer", variant))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count
    assert abs(count / 1e6 - millions) < 1.4  # Tolstikhin et al., table 1


def test_tap_table_says_what_each_tap_is():
    module = models.create("mixer", "S/32")
    table = taps.tabulate(module, *shapes_of(module))
    assert len(table.select("*")) == 1 + 8 * 8 + 3
    assert table["block00/in"].alias == "embed" and table["block01/in"].alias == "block00/out"
    assert table["block03/attn"].skip == "block03/in"
    assert table["block03/mlp"].skip == "block03/mid"
    assert table["block03/attn"].role == "token_mixing"
    assert table["block03/attn"].grid == (7, 7) and table["block03/attn"].prefix_tokens == 0
    hidden = table["block03/tokens_hidden"]
    assert (hidden.role, hidden.shape, hidden.grid) == ("hidden", (512, 256), None)
    assert table["block03/hidden"].shape == (49, 2048)


def test_blocks_without_skips_say_so():
    module = models.create("mixer", "B/16", **SMALL, no_skip=(1,))
    table = taps.tabulate(module, *shapes_of(module))
    skips = {name: info.skip for name, info in table.items() if name.endswith(("/attn", "/mlp"))}
    assert skips == {
        "block00/attn": "block00/in",
        "block00/mlp": "block00/mid",
        "block01/attn": None,
        "block01/mlp": None,
    }


def test_globs_of_the_analyses_find_what_they_find_in_a_vit():
    small = {"depth": 2, "image_size": 32, "patch": 8, "width": 24}
    tables = {}
    for family, fields in (("mixer", {}), ("vit", {"heads": 3, "pool": "gap"})):
        module = models.create(family, "B/16", **small, **fields)
        tables[family] = taps.tabulate(module, *shapes_of(module))
    for analysis in (cka, skip_ratio, receptive_field):
        for pattern in analysis.TAPS:
            found = [table.match(pattern) for table in tables.values()]
            assert found[0] == found[1], pattern
    assert not tables["mixer"].match(attention_distance.TAPS[0])


def test_skip_ratios_of_a_mixer(tmp_path):
    model = vitcnn.load("mixer", "S/32", **{**SMALL, "image_size": 16, "patch": 4})
    model.variables = random_variables(model.module)
    source = data.load("scenes", size=12, image_size=16)
    config = {"analyses": {"skip_ratio": {}}, "group": 12}
    found = vitcnn.analyze(config, tmp_path, models={"m": model}, source=source, progress=False)
    result = found["skip_ratio.m"]
    assert result.branch.values.tolist() == [f"block0{b}/{p}" for b in (0, 1) for p in BRANCHES]
    assert result.role.values.tolist() == ["token_mixing", "mlp"] * 2
    images = model.preprocess([source[i]["image"] for i in range(12)])
    expected = oracle(model.variables, images, model.module)
    for block, branch, skip in (("block00", "attn", "in"), ("block01", "mlp", "mid")):
        z, f = (np.linalg.norm(expected[f"{block}/{tap}"], axis=-1) for tap in (skip, branch))
        row = result.sel(branch=f"{block}/{branch}")
        np.testing.assert_allclose(row.ratio_token, (z / f).mean(0), rtol=1e-5)


def test_without_a_head_the_output_is_the_pooled_features():
    module = models.create("mixer", "B/16", **{**SMALL, "num_classes": 0})
    shapes, images = shapes_of(module)
    assert "head" not in shapes["params"]
    assert jax.eval_shape(module.apply, shapes, images).shape == (1, 12)


def test_bfloat16_activations_keep_float32_parameters():
    variables = random_variables(models.create("mixer", "B/16", **SMALL))
    assert_bfloat16_keeps_float32_parameters("mixer", "B/16", variables, **SMALL)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"gelu": "erf"}, "unknown gelu of mixer 'erf'"),
        ({"no_skip": (2,)}, r"no_skip is \(2,\), but blocks are 0 to 1"),
        ({"patch": 5}, r"image_size 16 x 24 is not a multiple of .* nearest size is 15 x 25"),
    ],
)
def test_fields_that_do_not_fit_are_refused(overrides, message):
    with pytest.raises(ValueError, match=message):
        shapes_of(models.create("mixer", "B/16", **{**SMALL, **overrides}))


def test_other_images_and_variants_are_refused():
    module = models.create("mixer", "B/16", **SMALL)
    with pytest.raises(ValueError, match=r"images are 2 x 32 x 32 x 3.* takes N x 16 x 24 x 3"):
        jax.eval_shape(module.apply, {}, jnp.zeros((2, 32, 32, 3)))
    with pytest.raises(ValueError, match=r"unknown variant of mixer 'B16': did you mean .*'B/16'"):
        models.create("mixer", "B16")
