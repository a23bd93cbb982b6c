"""Google's NumPy archives of ViT, BiT and Mixer: read in all their names, and written again."""

import json
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from networks import flat, shapes_of

from vitcnn import checkpoints, models
from vitcnn.checkpoints import merge
from vitcnn.checkpoints.formats import google_bit_npz, google_mixer_npz, google_vit_npz

FORMATS = {"vit": google_vit_npz, "bit": google_bit_npz, "mixer": google_mixer_npz}
TINY = {
    "vit": ("mini/4", {"width": 12, "depth": 2, "mlp_dim": 20, "heads": 3, "num_classes": 5}),
    "bit": ("R50x1", {"units": (2, 1), "widths": (32, 32), "num_classes": 5}),
    "mixer": ("S/32", {"width": 12, "depth": 2, "tokens_mlp_dim": 6, "num_classes": 5}),
}
GAP = {"pool": "gap"}
PUBLISHED = {  # list of keys -> family, variant, fields, parameters as published
    "ViT-B_16 imagenet21k (pre_logits, 21843 classes)": (
        *("vit", "B/16", {"num_classes": 21_843, "pre_logits": 768}),
        103_186_515,
    ),
    "ViT-B_16 imagenet2012 fine-tuned 224": ("vit", "B/16", {}, 86_567_656),
    "ViT-B_16 imagenet2012 fine-tuned 384": ("vit", "B/16", {"image_size": 384}, 86_859_496),
    "ViT-B_32 imagenet2012 224": ("vit", "B/32", {}, 88_224_232),
    "AugReg Ti_16 i1k 224": ("vit", "Ti/16", {}, 5_717_416),
    "AugReg S_32 224": ("vit", "S/32", {}, 22_878_952),
    "AugReg S_16 224": ("vit", "S/16", {}, 22_050_664),
    "BiT-M-R50x1": ("bit", "R50x1", {"num_classes": 21_843}, 68_256_659),
    "BiT-S-R50x1 (1000 classes)": ("bit", "R50x1", {}, 25_549_352),
    "Mixer-B_16 imagenet1k": ("mixer", "B/16", {}, 59_880_472),
}


def away_from_zero(shape, rng):
    """Numbers between 0.5 and 1.5."""
    return rng.random(shape, np.float32) + np.float32(0.5)


def tiny(family, **fields):
    """Returns (module, shapes, arrays by bare name) of a small network with random weights."""
    variant, small = TINY[family]
    module = models.create(family, variant, **{**small, **fields})
    shapes, _ = shapes_of(module)
    rng = np.random.default_rng(0)
    arrays = {k: away_from_zero(v.shape, rng) for k, v in flat(shapes["params"]).items()}
    return module, shapes, arrays


def restore(tmp_path, family, module, shapes, arrays):
    """Returns the variables by bare name after a round trip through a file."""
    np.savez(tmp_path / "a.npz", **arrays)
    restored = checkpoints.restore(tmp_path / "a.npz", family, module, shapes)
    assert restored.preprocess["mean"] == restored.preprocess["std"] == (0.5, 0.5, 0.5)
    return flat(restored.variables["params"])


def assert_same(got, expected):
    assert got.keys() == expected.keys()
    for key, value in expected.items():
        assert got[key].dtype == np.float32
        np.testing.assert_array_equal(got[key], value, err_msg=key)


def in_our_names(published):
    """Only the head of BiT, a 1x1 convolution there, has another name and shape."""
    arrays = {key.replace("resnet/head/conv2d/", "head/"): v for key, v in published.items()}
    kernel = arrays["head/kernel"]
    return {**arrays, "head/kernel": kernel[0, 0] if kernel.ndim == 4 else kernel}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_files_fit_and_have_our_names(tmp_path, shared_data, name):
    text = (shared_data / "weights/checkpoint_key_shapes.json").read_text()
    published = {k: tuple(v) for k, v in json.loads(text)[name].items()}
    family, variant, fields, count = PUBLISHED[name]
    assert sum(map(math.prod, published.values())) == count
    assert [f for f, adapter in FORMATS.items() if adapter.matches(published)] == [family]
    module = models.create(family, variant, **fields)
    shapes, _ = shapes_of(module)
    rng = np.random.default_rng(0)
    if variant in ("Ti/16", "S/16") or name.startswith("BiT-S"):
        raw = {k: away_from_zero(v, rng) for k, v in published.items()}
        got = restore(tmp_path, family, module, shapes, raw)
        checkpoints.export(tmp_path / "b.npz", {"params": got})
        with np.load(tmp_path / "b.npz") as file:
            assert_same(dict(file), raw)
    else:  # the numbers of a large one are views of a few, so that this takes no time
        raw = {k: np.broadcast_to(away_from_zero(v[-1], rng), v) for k, v in published.items()}
        merged = merge.merge(FORMATS[family].convert(raw, module), shapes, name)
        got = flat(merged["params"])
    assert_same(got, in_our_names(raw))
    assert sum(value.size for value in got.values()) == count


@pytest.mark.parametrize("family", FORMATS)
@pytest.mark.parametrize("prefix", ["", "params/", "opt/target/", "opt/target/params/"])
def test_any_prefix(tmp_path, family, prefix):
    module, shapes, arrays = tiny(family)
    raw = {prefix + key: value for key, value in arrays.items()}
    if prefix:  # files of training have the optimiser's state beside
        raw |= {"opt/state/step": np.int32(7), "extra/seconds": np.float32(3)}
    assert_same(restore(tmp_path, family, module, shapes, raw), arrays)


@pytest.mark.parametrize(
    ("family", "fields"),
    [
        ("vit", {"image_size": (24, 32)}),  # 48 patches and the class token are 7 x 7
        ("vit", {**GAP, "norm_pooled": True, "pre_logits": 6}),
        ("vit", {"distilled": True, "registers": 3, "layer_scale": 0.1}),
        ("bit", {}),
        ("bit", {"num_classes": 0}),
        ("mixer", {}),
    ],
)
def test_exported_files_are_restored_bit_for_bit(tmp_path, family, fields):
    module, shapes, arrays = tiny(family, **fields)
    variables = jax.tree.unflatten(jax.tree.structure(shapes), list(arrays.values()))
    checkpoints.export(tmp_path / "a.npz", variables)
    restored = checkpoints.restore(tmp_path / "a.npz", family, module, shapes)
    assert restored.provenance["format"] == FORMATS[family].__name__.rpartition(".")[2]
    assert_same(flat(restored.variables["params"]), arrays)


@pytest.mark.parametrize("family", FORMATS)
def test_merge_is_strict_on_both_sides(tmp_path, family):
    module, shapes, arrays = tiny(family)
    gone = next(key for key in arrays if key.endswith("/kernel") and "head" not in key)
    message = rf"(?s)missing from the checkpoint \(1\).*{gone}.*unexpected in .* \(1\).*extra/thing"
    arrays["extra/thing"] = arrays.pop(gone)
    with pytest.raises(ValueError, match=message):
        restore(tmp_path, family, module, shapes, arrays)


def test_bfloat16_is_read(tmp_path):
    module, shapes, arrays = tiny("mixer")
    rounded = {k: v.astype(jnp.bfloat16) for k, v in arrays.items()}
    got = restore(tmp_path, "mixer", module, shapes, rounded)
    assert_same(got, {k: v.astype(np.float32) for k, v in rounded.items()})
    with np.load(tmp_path / "a.npz") as file:
        assert file["head/bias"].dtype == np.dtype("V2")  # this is what NumPy makes of it


# ViT in big_vision's names


def big_vision(arrays, positions="pos_embedding", stacked=False):
    """Renames arrays; `positions` is the position embedding's name, None to leave it out."""
    renamed = {}
    for key, value in arrays.items():
        key = re.sub("LayerNorm_2", "LayerNorm_1", key)
        key = re.sub("MultiHeadDotProductAttention_1", "MultiHeadDotProductAttention_0", key)
        renamed[re.sub("MlpBlock_3", "MlpBlock_0", key)] = value
    table = renamed.pop("Transformer/posembed_input/pos_embedding")
    if positions is not None:
        renamed[positions] = table
    if stacked:
        blocks = [k for k in renamed if "/encoderblock_0/" in k]
        for key in blocks:
            numbered = [key.replace("_0/", f"_{i}/", 1) for i in (0, 1)]
            whole = np.stack([renamed.pop(k) for k in numbered])
            renamed[key.replace("encoderblock_0/", "encoderblock/")] = whole
    return {f"params/{key}": value for key, value in renamed.items()}


@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize("fields", [{}, GAP, {"pre_logits": 6}])
def test_names_of_big_vision(tmp_path, fields, stacked):
    module, shapes, arrays = tiny("vit", **fields)
    raw = big_vision(arrays, stacked=stacked)
    assert not raw.keys() & {f"params/{k}" for k in arrays if "encoderblock_1/" in k} or not stacked
    assert_same(restore(tmp_path, "vit", module, shapes, raw), arrays)


@pytest.mark.parametrize("key", ["pos_embedding", "Transformer/pos_embedding"])
def test_class_token_without_a_position(tmp_path, key):
    module, shapes, arrays = tiny("vit")
    ours = "Transformer/posembed_input/pos_embedding"
    raw = big_vision({**arrays, ours: arrays[ours][:, 1:]}, key)
    arrays[ours][:, 0] = 0
    assert_same(restore(tmp_path, "vit", module, shapes, raw), arrays)


def test_fixed_positions_are_sines_and_cosines(tmp_path):
    module, shapes, arrays = tiny("vit", **GAP, image_size=(16, 24))
    got = restore(tmp_path, "vit", module, shapes, big_vision(arrays, positions=None))
    table = got.pop("Transformer/posembed_input/pos_embedding")
    arrays.pop("Transformer/posembed_input/pos_embedding")
    assert_same(got, arrays)
    for row in range(4):
        for column in range(6):
            angles = [place / 10_000 ** (k / 2) for place in (column, row) for k in range(3)]
            x, y = angles[:3], angles[3:]
            waves = ((math.sin, x), (math.cos, x), (math.sin, y), (math.cos, y))
            expected = [wave(angle) for wave, part in waves for angle in part]
            np.testing.assert_allclose(table[0, 6 * row + column], expected, atol=1e-6)


def test_a_network_that_computes_its_positions_takes_files_without_them(tmp_path):
    module, shapes, arrays = tiny("vit", **GAP)
    fixed, fixed_shapes, _ = tiny("vit", **GAP, positions="sincos2d")
    raw = big_vision(arrays, positions=None)
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    logits = []
    for network, its_shapes in ((module, shapes), (fixed, fixed_shapes)):
        got = restore(tmp_path, "vit", network, its_shapes, raw)
        params = traverse_util.unflatten_dict(got, sep="/")
        logits.append(jax.jit(network.apply)({"params": params}, images))
    table = arrays.pop("Transformer/posembed_input/pos_embedding")
    assert_same(got, arrays)
    np.testing.assert_allclose(*logits, rtol=1e-5)
    name = "Transformer/posembed_input/pos_embedding"
    with pytest.raises(ValueError, match=rf"(?s)unexpected in the checkpoint \(1\).*{name}"):
        restore(tmp_path, "vit", fixed, fixed_shapes, {**arrays, name: table})


def test_class_token_without_a_position_at_another_resolution(tmp_path):
    module, shapes, arrays = tiny("vit")
    ours = "Transformer/posembed_input/pos_embedding"
    grid = arrays[ours][:, :49]  # 7 x 7, and the network has 8 x 8
    with pytest.warns(UserWarning, match="trained with images of 28 x 28 pixels"):
        got = restore(tmp_path, "vit", module, shapes, big_vision({**arrays, ours: grid}))
    arrays[ours] = np.pad(grid, ((0, 0), (1, 0), (0, 0)))
    with pytest.warns(UserWarning, match="trained with images of 28 x 28 pixels"):
        assert_same(got, restore(tmp_path, "vit", module, shapes, arrays))


def test_positions_that_do_not_fit_are_refused(tmp_path):
    module, shapes, arrays = tiny("vit")
    ours = "Transformer/posembed_input/pos_embedding"
    raw = big_vision({**arrays, ours: arrays[ours][:, :51]})
    with pytest.raises(ValueError, match=f"{ours}: 1 x 51 x 12 in the checkpoint, 1 x 65 x 12 in"):
        restore(tmp_path, "vit", module, shapes, raw)
    with pytest.raises(ValueError, match=rf"(?s)missing from the checkpoint \(1\).*{ours}"):
        restore(tmp_path, "vit", module, shapes, big_vision(arrays, positions=None))
    del arrays[ours]
    with pytest.raises(ValueError, match=rf"(?s)missing from the checkpoint \(1\).*{ours}"):
        restore(tmp_path, "vit", module, shapes, arrays)


def test_the_images_of_a_siglip(tmp_path):
    module, shapes, arrays = tiny("vit", pool="map", num_classes=0)
    assert arrays["MAPHead_0/MultiHeadDotProductAttention_0/query/kernel"].shape == (12, 3, 4)
    raw = {key.replace("params/", "params/img/"): v for key, v in big_vision(arrays).items()}
    texts = {"params/t": np.ones(1), "params/txt/head/kernel": np.ones((12, 12))}
    assert_same(restore(tmp_path, "vit", module, shapes, raw | texts), arrays)


@pytest.mark.parametrize(("pool", "file"), [("gap", "map"), ("map", "gap"), ("token", "map")])
def test_a_map_head_needs_a_network_that_has_it(tmp_path, pool, file):
    module, shapes, _ = tiny("vit", pool=pool)
    raw = big_vision(tiny("vit", pool=file)[2])
    with pytest.raises(ValueError, match=f"than the network, pool='{pool}': set pool='{file}'"):
        restore(tmp_path, "vit", module, shapes, raw)


def test_hybrids(tmp_path):
    module, shapes, arrays = tiny("vit", stem="resnet", stem_units=(1, 2), patch=8)
    assert arrays["embedding/kernel"].shape == (1, 1, 512, 12)
    raw = {k: v[None, None, None] if "/gn" in k else v for k, v in arrays.items()}
    assert_same(restore(tmp_path, "vit", module, shapes, raw), arrays)
    units = {"units": (1, 2), "widths": (64, 128), "num_classes": 0}
    resnet = models.create("resnet", "R50x1", **units)
    alone = {k: v for k, v in arrays.items() if k.startswith(("conv_root", "gn_root", "block"))}
    got = restore(tmp_path, "resnet", resnet, shapes_of(resnet)[0], raw)
    assert_same(got, alone)
    plain, plain_shapes, _ = tiny("vit", patch=8)
    message = r"stem='none', stem_units=\(3, 4, 9\): set stem='resnet', stem_units=\(1, 2\)"
    with pytest.raises(ValueError, match=message):
        restore(tmp_path, "vit", plain, plain_shapes, raw)


@pytest.mark.oracle
def test_timm_reads_a_file_of_big_vision_as_we_do(tmp_path):
    torch = pytest.importorskip("torch")
    timm = pytest.importorskip("timm", reason="timm is not installed")
    fields = {"width": 48, "depth": 2, "mlp_dim": 64, "heads": 3, "num_classes": 7}
    module = models.create("vit", "mini/4", **fields)
    shapes, _ = shapes_of(module)
    rng = np.random.default_rng(0)
    arrays = {k: away_from_zero(v.shape, rng) - 1 for k, v in flat(shapes["params"]).items()}
    ours = "Transformer/posembed_input/pos_embedding"
    raw = big_vision({**arrays, ours: arrays[ours][:, 1:]}, stacked=True)
    np.savez(tmp_path / "a.npz", **raw)
    restored = checkpoints.restore(tmp_path / "a.npz", "vit", module, shapes)
    network = timm.models.VisionTransformer(
        img_size=32,
        patch_size=4,
        embed_dim=48,
        depth=2,
        mlp_ratio=64 / 48,
        num_heads=3,
        num_classes=7,
        no_embed_class=True,
        act_layer=lambda **_: torch.nn.GELU(approximate="tanh"),
    ).eval()
    images = rng.standard_normal((3, 32, 32, 3), np.float32)
    with torch.no_grad():
        network.load_pretrained(str(tmp_path / "a.npz"))
        expected = network(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    logits = jax.jit(module.apply)(restored.variables, images)
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(logits, expected, atol=1e-4)


# BiT in its other names


def test_numbered_convolutions(tmp_path):
    module, shapes, arrays = tiny("bit")
    numbers = iter(range(1, 99))
    raw = {
        re.sub("standardized_conv2d", lambda _: f"standardized_conv2d_{next(numbers)}", k): v
        for k, v in arrays.items()
    }
    assert "resnet/block1/unit01/a/standardized_conv2d/kernel" not in raw
    assert_same(restore(tmp_path, "bit", module, shapes, raw), arrays)


def test_bit_in_the_names_of_big_vision(tmp_path):
    module, shapes, arrays = tiny("bit")
    raw = {
        "root_block/conv_root/kernel": arrays["resnet/root_block/standardized_conv2d/kernel"],
        "norm-pre-head/scale": arrays["resnet/group_norm/gamma"][None, None, None],
        "norm-pre-head/bias": arrays["resnet/group_norm/beta"][None, None, None],
        "head/kernel": arrays["head/kernel"],
        "head/bias": arrays["head/bias"],
    }
    for unit in ("block1/unit01", "block1/unit02", "block2/unit01"):
        for i, letter in enumerate("abc", 1):
            theirs = f"resnet/{unit}/{letter}"
            raw[f"{unit}/conv{i}/kernel"] = arrays[f"{theirs}/standardized_conv2d/kernel"]
            for name, tf in (("scale", "gamma"), ("bias", "beta")):
                norm = arrays[f"{theirs}/group_norm/{tf}"]
                raw[f"{unit}/gn{i}/{name}"] = norm[None, None, None]
        if (kernel := arrays.get(f"resnet/{unit}/a/proj/standardized_conv2d/kernel")) is not None:
            raw[f"{unit}/conv_proj/kernel"] = kernel
    assert len(raw) == len(arrays)
    assert_same(restore(tmp_path, "bit", module, shapes, raw), arrays)
