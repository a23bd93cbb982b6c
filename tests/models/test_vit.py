"""The Vision Transformer against its formula in float64, and against the published numbers."""

import json
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
from vitcnn.layers import transformer
from vitcnn.models import vit
from vitcnn.numerics import random_weights

SMALL = {
    "image_size": (12, 20),
    "patch": (4, 5),
    "width": 24,
    "depth": 3,
    "mlp_dim": 40,
    "heads": 3,
    "num_classes": 7,
}
PAPER = tuple(f"block*/{name}" for name in ("ln1", "attn", "ln2", "hidden", "mlp", "out"))


def random_variables(module, seed=0):
    """Every weight is away from zero, scales away from one."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        value = rng.normal(size=leaf.shape)
        if path[-1].key == "scale":
            value = 1 + 0.5 * value
        elif path[-1].key == "kernel":
            value *= 1.5 / math.sqrt(leaf.size / leaf.shape[-1])
        return value.astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes_of(module)[0])


def activated(x, gelu):
    if gelu == "exact":
        return x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2
    if gelu == "quick":
        return x / (1 + np.exp(-1.702 * x))
    return x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2


def oracle(p, images, patch, heads, pool, gelu, positions="learned", norm_after=False):
    """Every intermediate in float64, from Dosovitskiy et al., equations 1 to 4."""
    p = {k.removeprefix("params/"): np.asarray(v, np.float64) for k, v in flat(p).items()}
    out = {}

    def norm(x, name):
        mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        return (x - mean) / np.sqrt(var + 1e-6) * p[name + "/scale"] + p[name + "/bias"]

    n, height, width, _ = images.shape
    ph, pw = patch
    tokens = []
    for r in range(height // ph):
        for c in range(width // pw):
            piece = images[:, r * ph : (r + 1) * ph, c * pw : (c + 1) * pw].astype(np.float64)
            tokens.append(
                np.tensordot(piece, p["embedding/kernel"], 3) + p.get("embedding/bias", 0)
            )
    prefix = [np.repeat(p[name][0], n, axis=0) for name in ("cls", "dist") if name in p]
    x = np.stack(prefix + tokens, axis=1)
    if "Transformer/posembed_input/pos_embedding" in p:
        x += p["Transformer/posembed_input/pos_embedding"]
    elif (
        positions == "sincos2d"
    ):  # sines and cosines of the column, then of the row; the class token has no position
        for t in range(len(tokens)):
            places, quarter = (t % (width // pw), t // (width // pw)), x.shape[-1] // 4
            angles = [[q / 10_000 ** (k / (quarter - 1)) for k in range(quarter)] for q in places]
            waves = [wave(a) for angle in angles for wave in (np.sin, np.cos) for a in angle]
            x[:, len(prefix) + t] += waves
    for i, register in enumerate(p.get("registers", [[]])[0]):  # after the class token, in order
        x = np.insert(x, len(prefix) + i, register, axis=1)
    if "Transformer/pre_norm/scale" in p:
        x = norm(x, "Transformer/pre_norm")
    out["embed"] = x
    before, columns = x.shape[1] - len(tokens), width // pw

    def bias_of(query, key, mlp):
        """Of relative positions, for each head; tokens before the patches have none."""
        if query < before or key < before:
            return np.zeros(heads)
        a, b = (divmod(token - before, columns) for token in (query, key))
        away = [math.copysign(math.log(1 + abs(s - t)), s - t) for s, t in zip(a, b, strict=True)]
        hidden = np.maximum(away @ p[f"{mlp}/fc1/kernel"] + p[f"{mlp}/fc1/bias"], 0)
        return hidden @ p[f"{mlp}/fc2/kernel"] + p[f"{mlp}/fc2/bias"]

    i = 0
    while f"Transformer/encoderblock_{i}/LayerNorm_0/scale" in p:
        b, o = f"Transformer/encoderblock_{i}", f"block{i:02d}"
        a = f"{b}/MultiHeadDotProductAttention_1"
        out[f"{o}/in"] = x
        y = x
        if not norm_after:
            out[f"{o}/ln1"] = y = norm(x, f"{b}/LayerNorm_0")
        weights, joined = [], []
        for h in range(heads):
            q, k, v = (
                y @ p[f"{a}/{m}/kernel"][:, h] + p.get(f"{a}/{m}/bias", [0] * heads)[h]
                for m in ("query", "key", "value")
            )
            s = q @ k.swapaxes(1, 2) / math.sqrt(q.shape[-1])
            for mlp in (f"{a}/rel_pos", "Transformer/rel_pos"):
                if f"{mlp}/fc1/bias" in p:
                    every = range(x.shape[1])
                    s += np.array([[bias_of(t, u, mlp)[h] for u in every] for t in every])
            s = np.exp(s)
            weights.append(s / s.sum(-1, keepdims=True))
            joined.append(weights[-1] @ v)
        out[f"{o}/attn_weights"] = np.stack(weights, axis=1)
        out[f"{o}/heads"] = z = np.stack(joined, axis=2)
        if f"{a}/inner_norm/scale" in p:
            z = norm(z.reshape(x.shape), f"{a}/inner_norm").reshape(z.shape)
        z = np.tensordot(z, p[f"{a}/out/kernel"], 2) + p[f"{a}/out/bias"]
        z = norm(z, f"{b}/LayerNorm_0") if norm_after else z
        out[f"{o}/attn"] = z = z * p.get(f"{b}/ls1/gamma", 1)
        out[f"{o}/skip_attn"] = x
        out[f"{o}/mid"] = x = x + z
        y = x
        if not norm_after:
            out[f"{o}/ln2"] = y = norm(x, f"{b}/LayerNorm_2")
        y = y @ p[f"{b}/MlpBlock_3/Dense_0/kernel"] + p[f"{b}/MlpBlock_3/Dense_0/bias"]
        if y.shape[-1] == 2 * len(p[f"{b}/MlpBlock_3/Dense_1/kernel"]):  # gate, value
            gate, value = np.split(y, 2, axis=-1)
            y = gate / (1 + np.exp(-gate)) * value
        else:
            y = activated(y, gelu)
        if f"{b}/MlpBlock_3/inner_norm/scale" in p:
            y = norm(y, f"{b}/MlpBlock_3/inner_norm")
        out[f"{o}/hidden"] = y
        y = y @ p[f"{b}/MlpBlock_3/Dense_1/kernel"] + p[f"{b}/MlpBlock_3/Dense_1/bias"]
        y = norm(y, f"{b}/LayerNorm_2") if norm_after else y
        out[f"{o}/mlp"] = y = y * p.get(f"{b}/ls2/gamma", 1)
        out[f"{o}/skip_mlp"] = x
        out[f"{o}/out"] = x = x + y
        i += 1
    spatial = slice(x.shape[1] - len(tokens), None)
    if "fc_norm/scale" in p:
        out["pooled"] = x = norm(x[:, spatial].mean(1), "fc_norm")
    else:
        if "Transformer/encoder_norm/scale" in p:
            out["norm"] = x = norm(x, "Transformer/encoder_norm")
        read = x
        if pool == "map":
            x = x[:, spatial]
            a, joined = "MAPHead_0/MultiHeadDotProductAttention_0", []
            for h in range(heads):
                q, k, v = (
                    y @ p[f"{a}/{m}/kernel"][:, h] + p[f"{a}/{m}/bias"][h]
                    for m, y in (("query", p["MAPHead_0/probe"]), ("key", x), ("value", x))
                )
                s = np.exp(q @ k.swapaxes(1, 2) / math.sqrt(q.shape[-1]))
                joined.append(s / s.sum(-1, keepdims=True) @ v)
            x = np.stack(joined, axis=2)
            x = (np.tensordot(x, p[f"{a}/out/kernel"], 2) + p[f"{a}/out/bias"])[:, 0]
            y, m = norm(x, "MAPHead_0/LayerNorm_0"), "MAPHead_0/MlpBlock_0"
            y = activated(y @ p[f"{m}/Dense_0/kernel"] + p[f"{m}/Dense_0/bias"], gelu)
            x = x + y @ p[f"{m}/Dense_1/kernel"] + p[f"{m}/Dense_1/bias"]
        else:
            x = x[:, spatial].mean(1) if "gap" in pool else x[:, : len(prefix)].mean(1)
        out["pooled"] = x
    if "projection/kernel" in p:
        out["projection"] = x = x @ p["projection/kernel"]
    if "dist" in p:
        both = (read[:, i] @ p[f"{h}/kernel"] for i, h in enumerate(("head", "head_dist")))
        out["logits"] = (sum(both) + p["head/bias"] + p["head_dist/bias"]) / 2
        return out
    if "pre_logits/kernel" in p:
        out["pre_logits"] = x = np.tanh(x @ p["pre_logits/kernel"] + p["pre_logits/bias"])
    out["logits"] = x @ p["head/kernel"] + p["head/bias"]
    return out


@pytest.mark.parametrize(
    ("pool", "gelu", "fields"),
    [
        ("token", "tanh", {"pre_logits": 11}),
        ("gap", "exact", {}),
        ("token", "exact", {"distilled": True}),
        ("token", "exact", {"registers": 3, "layer_scale": 0.1}),
        ("gap", "exact", {"registers": 2, "norm_pooled": True}),
        ("token", "exact", {"gated": True, "registers": 2, "layer_scale": 0.1}),
        ("token", "tanh", {"positions": "sincos2d"}),
        ("map", "quick", {"registers": 2, "norm_after": True}),
        ("token", "exact", {"embed_norm": True, "projection": 5}),
        (
            *("clsgap", "exact"),
            {"norm_pooled": True, "positions": "relative", "relative_mlp_dim": 6},
        ),
        (
            *("gap", "exact"),
            {
                **{"positions": "relative_shared", "qkv_bias": False, "final_norm": False},
                "inner_norms": True,
            },
        ),
    ],
)
def test_every_tap_equals_the_formula(pool, gelu, fields):
    module = models.create("vit", "B/16", **SMALL, pool=pool, gelu=gelu, **fields)
    variables = random_variables(module)
    assert ("cls" in variables["params"]) == (pool in ("token", "clsgap"))
    block = shapes_of(module)[0]["params"]["Transformer"]["encoderblock_0"]["MlpBlock_3"]
    first = 80 if fields.get("gated") else 40
    assert [block[f"Dense_{i}"]["kernel"].shape for i in (0, 1)] == [(24, first), (40, 24)]
    images = np.random.default_rng(1).normal(size=(2, 12, 20, 3)).astype(np.float32)
    places = fields.get("positions", "learned")
    norm_after = fields.get("norm_after", False)
    expected = oracle(variables, images, (4, 5), 3, pool, gelu, places, norm_after)
    table = taps.tabulate(module, variables, images)
    assert list(table) == list(expected)
    class_token = pool in ("token", "clsgap")
    prefix = class_token + fields.get("distilled", False) + fields.get("registers", 0)
    assert {table[f"block02/{name}"].prefix_tokens for name in ("attn_weights", "mlp")} == {prefix}
    assert {table[tap].class_token for tap in ("embed", "block02/heads")} == {class_token}
    assert not table["pooled"].class_token
    assert table["embed"].shape == (prefix + 12, 24)
    assert table["block02/hidden"].shape == (prefix + 12, 40)
    logits, got = taps.forward(module, variables, images, table, list(table))
    np.testing.assert_array_equal(logits, got["logits"])
    for name, value in expected.items():
        assert got[name].shape == value.shape
        np.testing.assert_allclose(got[name], value, atol=2e-5 * np.abs(value).max(), err_msg=name)


def test_many_tokens_equal_the_formula_and_need_no_room_for_all_their_weights():
    """A processor goes through them head by head."""
    fields = {**SMALL, "image_size": (48, 60), "patch": (2, 2), "depth": 1}
    module = models.create("vit", "B/16", **fields)
    variables = random_variables(module)
    images = np.random.default_rng(1).normal(size=(4, 48, 60, 3)).astype(np.float32)
    table = taps.tabulate(module, variables, images)
    expected = oracle(variables, images, (2, 2), 3, "token", "tanh")
    assert table["block00/attn_weights"].shape == (3, 721, 721)
    assert_taps_equal(module, variables, images, expected, atol=2e-5)
    bare = jax.jit(lambda v, x: taps.forward(module, v, x, table, ())[0])
    temporary = bare.lower(variables, images).compile().memory_analysis().temp_size_in_bytes
    assert (
        temporary < expected["block00/attn_weights"].size * 4 / 2 or jax.default_backend() != "cpu"
    )

    def cost(variables, images):
        return jnp.sum(jnp.sin(bare(variables, images)))

    got = jax.jit(jax.grad(cost, argnums=1))(variables, images)
    step = np.random.default_rng(2).normal(size=images.shape).astype(np.float32)
    ends = [oracle(variables, images + h * step, (2, 2), 3, "token", "tanh") for h in (-1e-4, 1e-4)]
    slope = np.diff([np.sin(end["logits"]).sum() for end in ends])[0] / 2e-4
    np.testing.assert_allclose(np.sum(np.asarray(got, np.float64) * step), slope, rtol=1e-3)


def test_gelu_and_pool_matter_more_than_the_tolerance():
    images = np.random.default_rng(1).normal(size=(2, 12, 20, 3)).astype(np.float32)
    module = models.create("vit", "B/16", **SMALL)
    variables = random_variables(module)
    tanh = oracle(variables, images, (4, 5), 3, "token", "tanh")["logits"]
    exact = oracle(variables, images, (4, 5), 3, "token", "exact")["logits"]
    assert np.abs(tanh - exact).max() > 5e-5 * np.abs(tanh).max()


def test_no_skip_removes_both_skips_of_a_block():
    module = models.create("vit", "B/16", **SMALL, no_skip=(1,))
    variables = random_variables(module)
    images = np.random.default_rng(1).normal(size=(2, 12, 20, 3)).astype(np.float32)
    table = taps.tabulate(module, variables, images)
    _, got = taps.forward(module, variables, images, table, list(table))
    np.testing.assert_array_equal(got["block01/mid"], got["block01/attn"])
    np.testing.assert_array_equal(got["block01/out"], got["block01/mlp"])
    assert table["block01/attn"].skip is None and table["block01/mlp"].skip is None
    assert np.abs(got["block00/mid"] - got["block00/attn"]).max() > 0.1
    with pytest.raises(ValueError, match=r"no_skip is \(3,\), but blocks are 0 to 2"):
        shapes_of(models.create("vit", "B/16", **SMALL, no_skip=(3,)))


LOCAL = {**SMALL, "depth": 2, "local_blocks": (0, 1), "registers": 1}
SPATIAL = slice(2, None)  # after the class token and the register


@pytest.fixture(scope="module")
def local_variables():
    return random_variables(models.create("vit", "B/16", **LOCAL))


def run(fields, variables, images):
    module = models.create("vit", "B/16", **fields)
    table = taps.tabulate(module, variables, images)
    return jax.jit(lambda v, x: taps.forward(module, v, x, table, list(table))[1])(
        variables, images
    )


@pytest.mark.parametrize("long", [False, True])
def test_local_blocks_attend_within_the_radius(local_variables, long, monkeypatch):
    """The weights are those of global attention, as shares of what remains of their sum."""
    monkeypatch.setattr(transformer, "_LONG", 1 if long else 512)  # the loop over heads as well
    images = np.random.default_rng(1).normal(size=(2, 12, 20, 3)).astype(np.float32)
    local = run({**LOCAL, "local_blocks": (0,)}, local_variables, images)
    everywhere = run({**LOCAL, "local_blocks": ()}, local_variables, images)
    reads = np.zeros((14, 14), bool)
    reads[:2] = True  # the class token and the register read all tokens
    for query in range(12):
        for key in range(12):
            distances = abs(query // 4 - key // 4), abs(query % 4 - key % 4)
            reads[2 + query, 2 + key] = max(distances) <= 1
    weights = np.where(reads, np.float64(everywhere["block00/attn_weights"]), 0)
    weights /= weights.sum(axis=-1, keepdims=True)
    got = np.asarray(local["block00/attn_weights"])
    assert (got[..., ~reads] == 0).all() and (got[..., reads] > 0).all()
    np.testing.assert_allclose(got.sum(axis=-1), 1, atol=1e-6)
    np.testing.assert_allclose(got, weights, atol=1e-6)
    value = local_variables["params"]["Transformer"]["encoderblock_0"]
    value = value["MultiHeadDotProductAttention_1"]["value"]
    value = (
        np.einsum("ntw,whd->nhtd", np.float64(local["block00/ln1"]), value["kernel"])
        + (value["bias"][:, None])
    )
    heads = np.einsum("nhqk,nhkd->nqhd", weights, value)
    np.testing.assert_allclose(local["block00/heads"], heads, atol=1e-5 * np.abs(heads).max())
    assert (np.asarray(local["block01/attn_weights"]) > 0).all()  # this block is not local


@pytest.mark.parametrize("radius", [0, 1])
def test_a_patch_does_not_see_what_is_farther_than_the_radii_of_the_blocks(local_variables, radius):
    images = np.random.default_rng(1).normal(size=(1, 12, 20, 3)).astype(np.float32)
    changed = images.copy()
    changed[:, 0, 19] += 3  # a pixel of the patch at the right of the first row
    fields = {**LOCAL, "local_radius": radius}
    one, other = (run(fields, local_variables, x)["block01/out"] for x in (images, changed))
    differs = (np.asarray(one) != np.asarray(other)).any(axis=(0, 2))
    assert differs[:2].all()  # the class token and the register see the whole image
    distance = [max(patch // 4, 3 - patch % 4) for patch in range(12)]
    np.testing.assert_array_equal(differs[SPATIAL], np.array(distance) <= 2 * radius)


def test_tap_table_says_what_each_tap_is():
    module = models.create("vit", "B/16", **SMALL)
    table = taps.tabulate(module, *shapes_of(module))
    info = table["block01/attn_weights"]
    assert (info.role, info.shape) == ("attention_weights", (3, 13, 13))
    assert (info.grid, info.prefix_tokens, info.heads) == ((3, 4), 1, 3)
    info = table["block01/heads"]
    assert (info.role, info.shape, info.heads) == ("heads", (13, 3, 8), 3)
    assert table["block01/in"].alias == "block00/out"
    assert table["block00/in"].alias == "embed"
    assert table["block01/attn"].skip == "block01/in"
    assert table["block01/mlp"].skip == "block01/mid"
    assert {n: table[n].role for n in ("embed", "norm", "pooled", "logits")} == {
        n: n for n in ("embed", "norm", "pooled", "logits")
    }
    assert table["pooled"].grid is None
    gap = models.create("vit", "B/16", **SMALL, pool="gap")
    info = taps.tabulate(gap, *shapes_of(gap))["block00/out"]
    assert (info.shape, info.grid, info.prefix_tokens) == ((12, 24), (3, 4), 0)


@pytest.mark.parametrize(
    ("variant", "pre_logits", "count"),
    [("B/32", 0, 76), ("B/32", 768, 77), slow("L/16", 0, 148), slow("H/14", 0, 196)],
)
def test_layers_of_the_papers_heatmaps(variant, pre_logits, count):
    module = models.create("vit", variant, pre_logits=pre_logits)
    ends = ("norm", "pooled", "logits") + (("pre_logits",) if pre_logits else ())
    names = taps.tabulate(module, *shapes_of(module)).select(("embed", *PAPER, *ends))
    assert len(names) == count
    assert names[:7] == ("embed", *(g.replace("*", "00") for g in PAPER))


@pytest.mark.parametrize(
    ("variant", "count"),
    [
        ("Ti/16", 5_717_416),
        ("S/32", 22_878_952),
        ("S/16", 22_050_664),
        ("B/32", 88_224_232),
        ("B/16", 86_567_656),
        ("B/8", 86_576_872),
        ("L/32", 306_535_400),
        ("L/16", 304_326_632),
        slow("H/14", 632_045_800),
        ("DeiT-Ti/16", 5_717_416),
        ("DeiT-S/16", 22_050_664),
        ("DeiT-B/16", 86_567_656),
        ("DeiT-Ti/16-distilled", 5_910_800),
        ("DeiT-S/16-distilled", 22_436_432),
        ("DeiT-B/16-distilled", 87_338_192),
        ("DINO-S/16", 21_665_664),
        ("DINO-S/8", 21_670_272),
        ("DINO-B/16", 85_798_656),
        ("DINO-B/8", 85_807_872),
        # less the mask token of the published ones, which only training reads
        ("DINOv2-S/14", 22_056_576 - 384),
        ("DINOv2-B/14", 86_580_480 - 768),
        ("DINOv2-L/14", 304_368_640 - 1024),
        slow("DINOv2-g/14", 1_136_480_768 - 1536),
        ("DINOv2-S/14-registers", 22_056_576 - 384 + 4 * 384),
        ("DINOv2-B/14-registers", 86_580_480 - 768 + 4 * 768),
        slow("DINOv2-L/14-registers", 304_368_640 - 1024 + 4 * 1024),
        slow("DINOv2-g/14-registers", 1_136_480_768 - 1536 + 4 * 1536),
    ],
)
def test_parameter_counts_are_the_published_ones(variant, count):
    params, _ = shapes_of(models.create("vit", variant))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count


PLAIN = [
    name
    for name, fields in vit.VARIANTS.items()
    if not fields.keys() & {"pool", "embed_norm", "positions", "final_norm", "stem"}
]


@pytest.mark.parametrize("variant", PLAIN)  # tests/models/test_vit_counts.py has the others
def test_parameter_counts_of_plain_variants_are_those_of_their_sizes(variant):
    module = models.create("vit", variant, depth=2)  # tracing forty blocks takes seconds
    w, h, p, classes = module.width, module.mlp_dim, module.patch, module.num_classes
    prefix = 1 + module.distilled
    positions = prefix + (module.image_size // p) ** 2
    first = 2 * h if module.gated else h
    block = 4 * (w * w + w) + (w + 1) * first + (h + 1) * w + 4 * w
    block += 2 * w if module.layer_scale else 0
    count = (3 * p * p + 1) * w + (prefix + positions + (module.registers or 0)) * w
    count += module.depth * block + 2 * w + prefix * (w + 1) * classes
    params, _ = shapes_of(module)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count


@pytest.mark.parametrize(
    ("checkpoint", "variant", "overrides"),
    [
        (
            "ViT-B_16 imagenet21k (pre_logits, 21843 classes)",
            "B/16",
            {"num_classes": 21843, "pre_logits": 768},
        ),
        ("ViT-B_16 imagenet2012 fine-tuned 224", "B/16", {}),
        ("ViT-B_16 imagenet2012 fine-tuned 384", "B/16", {"image_size": 384}),
        ("ViT-B_32 imagenet2012 224", "B/32", {}),
        ("AugReg Ti_16 i1k 224", "Ti/16", {}),
        ("AugReg S_32 224", "S/32", {}),
        ("AugReg S_16 224", "S/16", {}),
    ],
)
def test_parameter_tree_is_that_of_the_released_checkpoint(
    shared_data, checkpoint, variant, overrides
):
    path = shared_data / "weights/checkpoint_key_shapes.json"
    published = {k: tuple(v) for k, v in json.loads(path.read_text())[checkpoint].items()}
    shapes, _ = shapes_of(models.create("vit", variant, **overrides))
    assert list(shapes) == ["params"]
    assert {k: v.shape for k, v in flat(shapes["params"]).items()} == published


def test_bfloat16_activations_keep_float32_parameters_and_softmax():
    module = models.create("vit", "B/16", **SMALL, dtype=jnp.bfloat16)
    variables = random_variables(module)
    images = np.random.default_rng(1).normal(size=(2, 12, 20, 3)).astype(np.float32)
    table = taps.tabulate(module, variables, images)
    names = ["embed", "block00/attn_weights", "block02/out"]
    logits, got = taps.forward(module, variables, images, table, names)
    assert logits.dtype == got["embed"].dtype == got["block02/out"].dtype == jnp.bfloat16
    assert got["block00/attn_weights"].dtype == jnp.float32
    np.testing.assert_allclose(got["block00/attn_weights"].sum(-1), 1, atol=1e-6)
    assert_bfloat16_keeps_float32_parameters("vit", "B/16", variables, **SMALL)


def test_without_a_head_the_output_is_what_the_head_would_read():
    module = models.create("vit", "B/16", **{**SMALL, "num_classes": 0})
    variables = random_variables(module)
    assert "head" not in variables["params"]
    images = np.ones((2, 12, 20, 3), np.float32)
    table = taps.tabulate(module, variables, images)
    assert "logits" not in table
    features, got = taps.forward(module, variables, images, table, ["pooled"])
    np.testing.assert_array_equal(features, got["pooled"])


def test_a_fresh_network_gives_zero_logits_and_varied_features():
    module = models.create("vit", "mini/4")
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    variables = random_weights.draw(lambda key: module.init(key, images), 0)
    assert set(variables) == {"params"}
    table = taps.tabulate(module, variables, images)
    logits, got = taps.forward(module, variables, images, table, ["pooled"])
    np.testing.assert_array_equal(logits, np.zeros((2, 10)))
    assert np.abs(got["pooled"][0] - got["pooled"][1]).max() > 0.01


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"image_size": (12, 21)}, "image_size 12 x 21 is not a multiple of the patch, 4 x 5"),
        ({"heads": 5}, "width 24 is not a multiple of 5 heads"),
        (
            {"pool": "sum"},
            "unknown pool of vit 'sum': the choices are 'token', 'gap', 'clsgap', 'map'",
        ),
        ({"gelu": "erf"}, "unknown gelu of vit 'erf'"),
        (
            {"distilled": True, "pool": "gap"},
            'distilled=True .* needs pool="token", pre_logits=0 and projection=0',
        ),
        (
            {"distilled": True, "pre_logits": 3},
            'distilled=True .* needs pool="token", pre_logits=0 and projection=0',
        ),
        ({"projection": 3, "pre_logits": 3}, "both come before the head: set one to 0"),
        ({"positions": "relative", "relative_mlp_dim": 0}, "relative_mlp_dim is 0; it must be"),
        ({"pool": "mean"}, "unknown pool of vit 'mean': did you mean 'gap'"),
        ({"pool": "cls_token"}, "unknown pool of vit 'cls_token': did you mean 'token'"),
        ({"pool": "attention"}, "unknown pool of vit 'attention': did you mean 'map'"),
        ({"pool": "tokens"}, "unknown pool of vit 'tokens': did you mean 'token'"),
        ({"gelu": "gelu"}, "unknown gelu of vit 'gelu': did you mean 'exact'"),
        ({"stem": "vgg"}, "unknown stem of vit 'vgg': the choices are 'none', 'resnet'"),
        ({"stem": "resnet"}, r"patch \(4, 5\) is not a multiple of 16, the pixels that a position"),
        ({"positions": "sincos"}, "unknown positions of vit 'sincos': did you mean 'sincos2d'"),
        (
            {"positions": "sincos2d", "width": 30},
            'positions="sincos2d" has four parts: width 30 is not a multiple of 4',
        ),
        ({"local_blocks": (1, 3)}, r"local_blocks is \(1, 3\), but blocks are 0 to 2"),
        ({"local_radius": -1}, "local_radius is -1 patches; it must be at least 0"),
        ({"stochastic_depth_rule": "constant"}, "unknown stochastic_depth_rule 'constant'"),
        (
            {"norm_pooled": True},
            'norm_pooled=True is the norm of a mean over tokens: set pool="gap"',
        ),
        (
            {"norm_pooled": True, "pool": "clsgap", "final_norm": False},
            'set pool="gap" or "clsgap", and final_norm=True',
        ),
    ],
)
def test_fields_that_do_not_fit_are_refused(overrides, message):
    with pytest.raises(ValueError, match=message):
        shapes_of(models.create("vit", "B/16", **{**SMALL, **overrides}))


def test_images_of_another_size_are_refused():
    module = models.create("vit", "B/16", **SMALL)
    variables = random_variables(module)
    with pytest.raises(ValueError, match=r"images are 2 x 20 x 12 x 3.* takes N x 12 x 20 x 3"):
        module.apply(variables, np.zeros((2, 20, 12, 3), np.float32))
    with pytest.raises(ValueError, match=r"images are 2 x 3 x 12 x 20"):
        module.apply(variables, np.zeros((2, 3, 12, 20), np.float32))


def test_registers_of_a_fresh_network_differ():
    """They have no position: alike, they would get the same gradient for ever."""
    module = models.create("vit", "B/16", **{**SMALL, "depth": 1}, registers=2)
    params = random_weights.draw(lambda key: module.init(key, np.zeros((1, 12, 20, 3))), 0)[
        "params"
    ]
    assert np.abs(params["registers"][0, 0] - params["registers"][0, 1]).max() > 1e-3


def test_epsilon_is_that_of_every_norm():
    images = np.random.default_rng(1).normal(size=(2, 12, 20, 3)).astype(np.float32)
    module = models.create("vit", "B/16", **SMALL, epsilon=0.5)
    variables = random_variables(module)
    table = taps.tabulate(module, variables, images)
    _, got = taps.forward(module, variables, images, table, ["embed", "block00/ln1", "block01/ln2"])
    x = np.float64(got["embed"])
    y = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 0.5)
    norm = variables["params"]["Transformer"]["encoderblock_0"]["LayerNorm_0"]
    np.testing.assert_allclose(got["block00/ln1"], y * norm["scale"] + norm["bias"], atol=1e-5)
