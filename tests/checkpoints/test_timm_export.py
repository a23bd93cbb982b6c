"""What we write for timm: `vitcnn.load` reads it again, and timm computes the same logits."""

import json
import math

import jax
import numpy as np
import pytest
from networks import shapes_of

import vitcnn
from vitcnn import checkpoints, models

SMALL = {"width": 12, "depth": 2, "mlp_dim": 20, "heads": 3, "patch": 4, "image_size": 24}
SMALL["num_classes"] = 5
GATED = {"gated": True, "mlp_dim": 16, "gelu": "exact"}
NETWORKS = {
    "vit": ("vit", "B/16", SMALL),
    "gap": ("vit", "B/16", {**SMALL, "pool": "gap", "norm_pooled": True, "gelu": "exact"}),
    "no head": ("vit", "B/16", {**SMALL, "pool": "gap", "num_classes": 0, "image_size": (24, 32)}),
    "distilled": ("vit", "DeiT-B/16-distilled", SMALL),
    "registers": ("vit", "B/16", {**SMALL, "registers": 2, "layer_scale": 0.1}),
    "mean beside a token": ("vit", "B/16", {**SMALL, "pool": "clsgap", "norm_pooled": True}),
    "clip": ("vit", "B/16", {**SMALL, "embed_norm": True, "gelu": "quick", "qkv_bias": False}),
    "no norm": ("vit", "B/16", {**SMALL, "final_norm": False}),
    "gated": ("vit", "DINOv2-g/14-registers", {**SMALL, **GATED}),
    "basic": ("resnet", "18", {"units": (1, 1, 1, 1), "image_size": 48, "num_classes": 5}),
    "bottleneck": ("resnet", "50", {"units": (1, 2, 1, 1), "image_size": 48}),
}
LARGE = {
    "mixer": ("mixer", "S/16", {"gelu": "exact", "image_size": 64, "num_classes": 7}),
    "bit": ("bit", "R50x1", {"image_size": (64, 97)}),
}
MEAN = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "resize": None}


def drawn(module):
    """Random variables, all far from zero, that keep activations near one."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        value, name = rng.standard_normal(leaf.shape, np.float32), path[-1].key
        if name == "kernel":
            inputs = leaf.shape[0] if path[-2].key in ("query", "key", "value") else None
            return value / np.float32(math.sqrt(inputs or leaf.size / leaf.shape[-1]))
        if name == "var":
            return 0.5 + value**2
        return np.float32(0.3) * value + np.float32(name in ("scale", "gamma"))

    return jax.tree_util.tree_map_with_path(draw, shapes_of(module)[0])


def write(folder, key):
    family, variant, fields = {**NETWORKS, **LARGE}[key]
    module = models.create(family, variant, **fields)
    variables = drawn(module)
    checkpoints.export_timm(folder, family, module, variables, MEAN)
    return family, module, variables


@pytest.mark.parametrize(
    "key", [*NETWORKS, *(pytest.param(key, marks=pytest.mark.slow) for key in LARGE)]
)
def test_what_we_write_we_read_by_its_name(tmp_path, key):
    family, module, variables = write(tmp_path, key)
    model = vitcnn.load(tmp_path)
    assert model.provenance["family"] == family
    expected, got = (checkpoints.flat(v) for v in (variables, model.variables))
    if key in ("registers", "gated"):  # the class token contains its position
        positions = "params/Transformer/posembed_input/pos_embedding"
        expected["params/cls"] = expected["params/cls"] + expected[positions][:, :1]
        expected[positions] = expected[positions].copy()
        expected[positions][:, :1] = 0
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)
    for field in ("gelu", "pool", "norm_pooled", "heads", "epsilon", "stride_conv", "image_size"):
        assert getattr(model.module, field, None) == getattr(module, field, None), field
    assert model.preprocess.mean == MEAN["mean"] and model.preprocess.resize is None


@pytest.mark.parametrize(
    ("family", "variant", "fields", "message"),
    [
        ("vit", "mini/4", {"no_skip": (1,)}, r"no network with no_skip = \(1,\), only with \(\)"),
        ("vit", "mini/4", {"pre_logits": 8}, "no network with pre_logits = 8"),
        ("vit", "mini/4", {"epsilon": 1e-12}, "no network with epsilon = 1e-12"),
        ("resnet", "mini", {}, "no network with norm = 'group', only with 'batch'"),
        ("vit", "mini/4", {"pool": "map"}, "with pool = 'map' cannot be written yet"),
        ("vit", "mini/4", {"norm_after": True}, "with norm_after = True cannot be written yet"),
        ("resnet", "resnext50_32x4d", {}, "with groups = 32 cannot be written yet"),
        ("resnet", "resnet50d", {}, "with stem_kernel = 3 cannot be written yet"),
        ("resnet", "seresnet18", {}, "with attention = 'se' cannot be written yet"),
        ("resnet", "20", {}, "no network with shortcut = 'pad'"),
        ("resnet", "50-keras", {"epsilon": 1e-5}, "no network with stride_conv = 1"),
        ("mixer", "S/32", {}, "no network with gelu = 'tanh', only with 'exact'"),
        (
            "mixer",
            "S/32",
            {"depth": 3, "gelu": "exact"},
            "no network of .*depth = 3",
        ),
        ("bit", "R50x1", {"units": (1, 1)}, r"no network of the family 'bit' with units = \(1, 1"),
        ("images", "a", {}, "timm has no networks of the family 'images'"),
    ],
)
def test_what_timm_does_not_have_is_named(tmp_path, family, variant, fields, message):
    module = None if family == "images" else models.create(family, variant, **fields)
    with pytest.raises(ValueError, match=message):
        checkpoints.export_timm(tmp_path / "a", family, module, {}, MEAN)
    assert not (tmp_path / "a").exists()


def test_the_json_is_plain(tmp_path):
    write(tmp_path, "vit")
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architecture"] == "vit_base_patch16_224"
    assert config["model_args"]["act_layer"] == "gelu_tanh"
    assert config["pretrained_cfg"]["input_size"] == [3, 24, 24]


@pytest.mark.oracle
@pytest.mark.parametrize("key", [*NETWORKS, *LARGE])
def test_timm_computes_the_same(tmp_path, key):
    torch, timm = pytest.importorskip("torch"), pytest.importorskip("timm")
    write(tmp_path, key)
    model = vitcnn.load(tmp_path)
    network = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    images = np.random.default_rng(1).normal(size=(3, *model.image_size, 3)).astype(np.float32)
    with torch.no_grad():
        expected = network(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    logits, _ = model.run(images)
    assert np.abs(logits - expected).max() < 1e-4 * expected.std()
