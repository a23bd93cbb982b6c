"""What we write for timm: `vitcnn.load` reads it again, and timm computes the same logits."""

import dataclasses
import json
import math

import jax
import numpy as np
import pytest
from marks import slow
from networks import shapes_of

import vitcnn
from vitcnn import checkpoints, models
from vitcnn.checkpoints.implied import same
from vitcnn.layers import positions
from vitcnn.models import vit

SMALL = {"width": 12, "depth": 2, "mlp_dim": 20, "heads": 3, "patch": 4, "image_size": 24}
SMALL["num_classes"] = 5
NARROW = {"units": (1, 2, 1, 1), "widths": (16, 24, 8, 32), "image_size": 64, "num_classes": 5}
NARROW["stem_widths"] = (64,)
DEEP = {**NARROW, "stem_widths": (8, 8, 16)}
BASIC = {**NARROW, "units": (1, 1, 1, 1)}
GATED = {"gated": True, "mlp_dim": 16, "gelu": "exact"}
NETWORKS = {
    "vit": ("vit", "B/16", SMALL),
    "gap": ("vit", "B/16", {**SMALL, "pool": "gap", "norm_pooled": True, "gelu": "exact"}),
    "no head": ("vit", "B/16", {**SMALL, "pool": "gap", "num_classes": 0, "image_size": (24, 32)}),
    "distilled": ("vit", "DeiT-B/16-distilled", SMALL),
    "registers": ("vit", "B/16", {**SMALL, "registers": 2, "layer_scale": 0.1}),
    "mean beside a token": ("vit", "B/16", {**SMALL, "pool": "clsgap", "norm_pooled": True}),
    "clip": ("vit", "B/16", {**SMALL, "embed_norm": True, "gelu": "quick", "qkv_bias": False}),
    "projection": ("vit", "CLIP-B/32", {**SMALL, "num_classes": 0, "projection": 7}),
    "siglip": ("vit", "B/16", {**SMALL, "pool": "map"}),
    "inner norms": ("vit", "BEiT-3-B/16", SMALL),
    "sines": ("vit", "B/16", {**SMALL, "positions": "sincos2d", "registers": 1}),
    "relative": ("vit", "relpos-B/16", {**SMALL, "relative_mlp_dim": 9}),
    "shared positions": ("vit", "relpos-S/16-shared", {**SMALL, "relative_mlp_dim": 9}),
    "relative, norms after": ("vit", "relpos-M/16-rpn", {**SMALL, "pool": "token"}),
    "norms after": ("vit", "B/16-rpn", {**SMALL, "image_size": (24, 32)}),
    "hybrid": ("vit", "R+Ti/16", {**SMALL, "patch": 8, "image_size": 32, "stem_form": "timm"}),
    "no norm": ("vit", "B/16", {**SMALL, "final_norm": False}),
    "gated": ("vit", "DINOv2-g/14-registers", {**SMALL, **GATED}),
    "basic": ("resnet", "18", {"units": (1, 1, 1, 1), "image_size": 48, "num_classes": 5}),
    "bottleneck": ("resnet", "50", {"units": (1, 2, 1, 1), "image_size": 48}),
    "resnext": ("resnet", "resnext50_32x4d", {**NARROW, "groups": 4, "expansion": 2}),
    "stem": ("resnet", "resnet50t", {**NARROW, "stem_widths": (6, 8, 16)}),
    "gates": ("resnet", "seresnet50", NARROW),
    "convolved gates": ("resnet", "ecaresnetlight", NARROW),
    "gates of basic units": ("resnet", "seresnet18", BASIC),
    "rs": ("resnet", "resnetrs50", DEEP),
    "blur": ("resnet", "resnetblur50d", DEEP),
    "mean of basic units": ("resnet", "resnetaa34d", {**DEEP, "attention": "eca"}),
    "mean": ("resnet", "seresnextaa101d_32x8d", {**DEEP, "groups": 4, "expansion": 2}),
    "group norm": ("resnet", "resnet50_gn", {**NARROW, "widths": (32,) * 4, "stem_widths": (64,)}),
    "version 2": ("resnet", "resnetv2_50d", DEEP),
    "version 2, tiered": ("resnet", "resnetv2_50t", {**DEEP, "units": (1, 2), "widths": (16, 8)}),
    "version 2, basic": ("resnet", "resnetv2_18", {**BASIC, "stem_widths": (24,)}),
    "version 2, group norm": (
        *("resnet", "resnetv2_18d"),
        {**BASIC, "norm": "plain_group", "widths": (32, 64, 32, 32), "stem_widths": (32, 32, 64)},
    ),
}
LARGE = {
    "mixer": ("mixer", "S/16", {"gelu": "exact", "image_size": 64, "num_classes": 7}),
    "bit": ("bit", "R50x1", {"image_size": (64, 97)}),
    **{
        f"hybrid of {units} stages": ("vit", name, {**SMALL, **fields, "stem_form": "timm"})
        for units, name, fields in (
            (3, "R50+B/16", {"patch": 16, "image_size": 64}),
            (4, "R26+S/32", {"patch": 64, "image_size": 128}),
        )
    },
}
# Fields that differ where the network is the same.
OTHERWISE = {
    "sines": ("positions",),
    "gated": ("gelu",),
}
POSITIONS = vit.POSITIONS
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


@pytest.mark.parametrize("key", [*NETWORKS, *(slow(key) for key in LARGE)])
def test_what_we_write_we_read_by_its_name(tmp_path, key):
    family, module, variables = write(tmp_path, key)
    model = vitcnn.load(tmp_path)
    assert model.provenance["family"] == family
    expected, got = (checkpoints.flat(v) for v in (variables, model.variables))
    if key == "projection":  # timm has it as the head
        assert (model.module.projection, model.classes) == (0, 7)
        model = vitcnn.load(tmp_path, projection=7, num_classes=0)
        got = checkpoints.flat(model.variables)
    if key == "sines":  # learned positions of the same values, and none of the class token
        table = got.pop(POSITIONS)
        np.testing.assert_array_equal(table[0, 1:], positions.sincos2d((6, 6), 12))
        assert not table[0, 0].any()
    if key in ("registers", "gated"):  # the class token contains its position
        expected["params/cls"] = expected["params/cls"] + expected[POSITIONS][:, :1]
        expected[POSITIONS] = expected[POSITIONS].copy()
        expected[POSITIONS][:, :1] = 0
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)
    for field in dataclasses.fields(module):
        if field.name not in ("parent", "name", "layer_scale", *OTHERWISE.get(key, ())):
            assert same(getattr(model.module, field.name), getattr(module, field.name)), field.name
    assert model.preprocess.mean == MEAN["mean"] and model.preprocess.resize is None


@pytest.mark.parametrize(
    ("family", "variant", "fields", "message"),
    [
        ("vit", "mini/4", {"no_skip": (1,)}, r"no network with no_skip = \(1,\), only with \(\)"),
        ("vit", "mini/4", {"pre_logits": 8}, "no network with pre_logits = 8"),
        ("vit", "mini/4", {"epsilon": 1e-12}, "no network with epsilon = 1e-12"),
        ("resnet", "mini", {}, "norm = 'group', only with 'batch' or 'plain"),
        (
            "vit",
            "mini/4",
            {"norm_after": True, "layer_scale": 0.1},
            "no network with layer_scale =",
        ),
        ("vit", "mini/4", {"positions": "relative"}, "no network with gelu = 'tanh', only with"),
        (
            "vit",
            "relpos-S/16",
            {"pool": "map", "norm_pooled": False},
            "positions = 'relative', not",
        ),
        (
            "vit",
            "DINOv2-S/14",
            {"gated": True, "epsilon": 1e-5},
            "gated = True, only with epsilon = 1e-06",
        ),
        ("vit", "R50+B/16", {}, "'google' and stem = 'resnet', only with stem_form = 'timm'"),
        ("vit", "CLIP-B/16", {"num_classes": 5}, "no network with num_classes = 5, only with 0"),
        ("resnet", "resnet50d", {"stem_widths": (8, 8)}, r"stem_widths = \(8, 8\).*3 n / 4, n, 2"),
        ("resnet", "50", {"widths": (32, 64, 64, 64)}, "with stems of these widths: one of 64"),
        (
            "resnet",
            "seresnet18",
            {"se_ratio": 0.5},
            "se_ratio = 0.5 and bottleneck = False, only with se_",
        ),
        ("resnet", "resnet18d", {"units": (1, 1), "widths": (64, 64)}, "only with four stages"),
        ("resnet", "resnetv2_50", {"groups": 2}, "no network with groups = 2, only with 1"),
        ("resnet", "resnetv2_50", {"widths": (64, 4, 8, 8)}, "only with multiples of 8"),
        ("resnet", "resnetv2_50", {"expansion": 1}, "not with a first unit of the same"),
        ("resnet", "20", {}, "no network with shortcut = 'pad'"),
        ("resnet", "50-keras", {"epsilon": 1e-5}, "no network with stride_conv = 1"),
        ("mixer", "S/32", {}, "no network with gelu = 'tanh', only with 'exact'"),
        ("mixer", "S/32", {"depth": 3, "gelu": "exact"}, "with depth = 3.*, only with depth = 8"),
        (
            "bit",
            "R50x1",
            {"units": (1, 1, 1, 1)},
            r"units = \(1, 1, 1, 1\), only with units = .3, 4",
        ),
        ("bit", "R50x1", {"no_skip": (1,)}, r"no network with no_skip = \(1,\)"),
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


@pytest.mark.parametrize("resize", [24, 59, 118])
def test_sizes_survive_the_share_that_timm_writes(tmp_path, resize):
    """24 / (24 / 59) is below 59, so that timm would resize to 58 pixels."""
    module = models.create("vit", "B/16", **SMALL)
    steps = {**MEAN, "resize": resize}
    checkpoints.export_timm(tmp_path, "vit", module, drawn(module), steps)
    cfg = json.loads((tmp_path / "config.json").read_text())["pretrained_cfg"]
    assert (math.floor(24 / cfg["crop_pct"]), cfg["crop_mode"]) == (resize, "center")
    assert vitcnn.load(tmp_path).preprocess.resize == resize


def test_squashed_images_stay_squashed(tmp_path):
    module = models.create("vit", "B/16", **{**SMALL, "image_size": (24, 32)})
    variables = drawn(module)
    checkpoints.export_timm(tmp_path, "vit", module, variables, {**MEAN, "resize": (30, 40)})
    cfg = json.loads((tmp_path / "config.json").read_text())["pretrained_cfg"]
    assert (cfg["crop_mode"], cfg["crop_pct"]) == ("squash", 0.8)
    assert vitcnn.load(tmp_path).preprocess.resize == (30, 40)
    with pytest.raises(ValueError, match="timm has one crop_pct for both sides"):
        checkpoints.export_timm(tmp_path, "vit", module, variables, {**MEAN, "resize": (30, 50)})


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
