"""Formats of PyTorch libraries: a file gives what the library's formula gives."""

import numpy as np
import pytest
import torch_resnets
import torch_vits

import vitcnn
from vitcnn import checkpoints, models
from vitcnn.checkpoints.formats import timm_resnetv2_torch, torchvision_resnet_torch

HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
RNG = np.random.default_rng(5)
IMAGES = RNG.normal(size=(2, 32, 32, 3)).astype(np.float32)


def load(path, **fields):
    return vitcnn.load(
        "vit",
        "mini/4",
        path,
        **{**torch_vits.SIZES, "num_classes": 5, "preprocess": HALF, **fields},
    )


def check(model, made, images=IMAGES):
    """The logits and every block, to 1e-4 where their deviation is about 1."""
    expected, blocks = torch_vits.forward(made, images)
    logits, got = model.run(images, "block*/out")
    np.testing.assert_allclose(logits, expected, atol=1e-4 * max(1, expected.std()))
    for mine, theirs in zip(got.values(), blocks, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-4 * max(1, theirs.std()))
    assert expected.std() > 0.3


@pytest.mark.parametrize(
    ("parts", "fields"),
    [
        ({"dist": True}, {"distilled": True}),
        ({"registers": 3, "scale": True}, {"registers": 3, "layer_scale": 1e-5}),
        ({"gated": True, "scale": True}, {"gated": True, "layer_scale": 1e-5}),
        (
            {"cls": False, "registers": 2, "fc_norm": True},
            {"pool": "gap", "registers": 2, "norm_pooled": True},
        ),
    ],
)
def test_timm(tmp_path, parts, fields):
    made = torch_vits.state((8, 8), **parts)
    model = load(torch_vits.save(tmp_path / "a.safetensors", made), **fields)
    assert model.module.gelu == "exact" and model.provenance["fields"]["gelu"] == "exact"
    assert model.provenance["weights"]["format"] == "timm_vit_torch"
    counts = model.provenance["weights"]["arrays"]
    assert counts["in_file"] == len(made) and counts["in_network"] == len(made) + 8
    check(model, made)


def test_the_other_libraries_names(tmp_path):
    """One network under every library's names is one network."""
    made = torch_vits.state((8, 8))
    first = load(torch_vits.save(tmp_path / "a.safetensors", made))
    check(first, made)
    files = [
        ("torchvision_vit_torch", torch_vits.torchvision(made)),
        ("hf_vit_torch", torch_vits.hugging_face(made, "vit.")),
        ("hf_vit_torch", torch_vits.hugging_face_in_memory(made, "deit.")),
        ("timm_vit_torch", {f"module.backbone.{key}": value for key, value in made.items()}),
    ]
    for name, arrays in files:
        model = load(torch_vits.save(tmp_path / "b.safetensors", arrays))
        assert model.provenance["weights"]["format"] == name
        assert model.digest() == first.digest() and model.module == first.module


def test_hugging_faces_deit_and_dinov2(tmp_path):
    parts = {"dist": True, "seed": 1}
    made = torch_vits.state((8, 8), **parts)
    arrays = torch_vits.hugging_face(made, "deit.")
    one = load(torch_vits.save(tmp_path / "a.safetensors", arrays), distilled=True)
    two = load(torch_vits.save(tmp_path / "b.safetensors", made), distilled=True)
    assert one.digest() == two.digest()
    made = torch_vits.state((8, 8), registers=4, scale=True, classes=0)
    fields = {"registers": 4, "layer_scale": 1e-5, "num_classes": 0}
    for prefix in ("", "dinov2_with_registers."):
        arrays = torch_vits.hugging_face(made, prefix or "dinov2.")
        arrays = {k.replace("dinov2.", prefix, 1): v for k, v in arrays.items()}
        arrays[f"{prefix}embeddings.mask_token"] = np.ones((1, 12))
        one = load(torch_vits.save(tmp_path / "a.safetensors", arrays), **fields)
        two = load(torch_vits.save(tmp_path / "b.safetensors", made), **fields)
        assert one.digest() == two.digest()


def test_the_names_of_dinov2s_giants(tmp_path):
    """Their MLPs have other names than those of the smaller ones."""
    made = torch_vits.state((8, 8), registers=4, scale=True, classes=0, gated=True)
    fields = {"registers": 4, "layer_scale": 1e-5, "num_classes": 0, "gated": True}
    first = load(torch_vits.save(tmp_path / "a.safetensors", made), **fields)
    check(first, made)
    for name, arrays in [
        ("timm_vit_torch", torch_vits.dinov2(made)),
        ("hf_vit_torch", torch_vits.hugging_face(made, "dinov2.")),
        ("hf_vit_torch", torch_vits.hugging_face_in_memory(made, "dinov2_with_registers.")),
    ]:
        assert not any(".mlp.fc" in key for key in arrays)
        model = load(torch_vits.save(tmp_path / "b.safetensors", arrays), **fields)
        assert model.provenance["weights"]["format"] == name
        assert model.digest() == first.digest()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("dict", "timm"),
        ("dinov2", "timm"),
        ("hugging_face", "hf"),
        ("hugging_face_in_memory", "hf"),
    ],
)
def test_gated_mlps_and_others_are_told_apart(tmp_path, name, kind):
    def save(gated):
        made = torch_vits.state((8, 8), gated=gated)
        if name.startswith("hugging_face"):
            arrays = getattr(torch_vits, name)(made, "dinov2.")
        else:
            arrays = getattr(torch_vits, name, dict)(made)
        return torch_vits.save(tmp_path / f"{gated}.safetensors", arrays)

    start = r"{}.safetensors \(format '{}_vit_torch'\): its MLPs are {} "
    with pytest.raises(ValueError, match=start.format(True, kind, "gated")) as error:
        load(save(True))
    assert "set gated=True and mlp_dim=20, or take the variant 'DINOv2-g/14'" in str(error.value)
    with pytest.raises(ValueError, match=start.format(False, kind, "not gated,")) as error:
        load(save(False), gated=True)
    assert "set gated=False and mlp_dim=20, or take another variant" in str(error.value)
    load(save(True), gated=True), load(save(False))


def test_a_gate_without_its_value_is_listed(tmp_path):
    made = torch_vits.state((8, 8), gated=True)
    arrays = torch_vits.hugging_face_in_memory(made, "dinov2.")
    del arrays["dinov2.encoder.layer.1.mlp.up_proj.weight"]
    path = torch_vits.save(tmp_path / "a.safetensors", arrays)
    with pytest.raises(ValueError, match=r"unexpected .*\(1\):\n.*_1/MlpBlock_3/gate/kernel"):
        load(path, gated=True)


def test_the_pooler_of_a_hugging_face_vit_is_the_layer_before_the_head(tmp_path):
    made = torch_vits.state((8, 8), classes=0)
    arrays = torch_vits.hugging_face(made, "vit.")
    weight, bias = RNG.normal(size=(12, 12)).astype(np.float32), np.float32(RNG.normal(size=12))
    arrays |= {"vit.pooler.dense.weight": weight, "vit.pooler.dense.bias": bias}
    path = torch_vits.save(tmp_path / "a.safetensors", arrays)
    got, _ = load(path, num_classes=0, pre_logits=12).run(IMAGES)
    expected = np.tanh(torch_vits.forward(made, IMAGES)[0] @ weight.T + bias)
    np.testing.assert_allclose(got, expected, atol=1e-4)
    with pytest.raises(ValueError, match=r"unexpected in the checkpoint \(2\):\n.*pre_logits"):
        load(path, num_classes=0)


def test_positions_of_patches_alone(tmp_path):
    """timm's no_embed_class: the class token has no position."""
    made = torch_vits.state((8, 8), positions=64, registers=2)
    check(load(torch_vits.save(tmp_path / "a.safetensors", made), registers=2), made)


def test_nests_prefixes_and_halves_of_torch_files(tmp_path):
    torch = pytest.importorskip("torch")
    made = torch_vits.state((8, 8), classes=0)
    reference = load(torch_vits.save(tmp_path / "a.safetensors", made), num_classes=0)
    tensors = {f"backbone.{k}": torch.from_numpy(v) for k, v in made.items()}
    tensors |= {"head.mlp.0.weight": torch.ones(3, 3), "head.last_layer.weight_g": torch.ones(3, 1)}
    torch.save({"teacher": tensors, "epoch": 3}, tmp_path / "dino.pth")
    assert load(tmp_path / "dino.pth", num_classes=0).digest() == reference.digest()
    torch.save({"model": {k: torch.from_numpy(v) for k, v in made.items()}}, tmp_path / "deit.bin")
    assert load(tmp_path / "deit.bin", num_classes=0).digest() == reference.digest()


def test_positions_of_registers_are_added_to_them(tmp_path):
    made = torch_vits.state((8, 8), cls=False, registers=2, fc_norm=True)
    places = np.random.default_rng(1).normal(size=(1, 2, 12)).astype(np.float32)
    with_places = {**made, "pos_embed": np.concatenate([places, made["pos_embed"]], axis=1)}
    made["reg_token"] = made["reg_token"] + places
    fields = {"pool": "gap", "registers": 2, "norm_pooled": True}
    expected, got = (
        load(torch_vits.save(tmp_path / f"{i}.safetensors", arrays), **fields)
        for i, arrays in enumerate((made, with_places))
    )
    assert got.digest() == expected.digest()


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("norm_pre.weight", "than the network, embed_norm=False: set embed_norm=True"),
        ("attn_pool.q.weight", "than the network, pool='token': set pool='map'"),
        ("attn_pool.q_norm.weight", "pools by attention of another kind"),
        ("blocks.1.attn.q_norm.weight", "normalises queries and keys"),
        ("blocks.0.mlp.fc1_g.weight", "a ViT whose gates are layers of their own"),
        ("patch_embed.backbone.conv1.weight", "a hybrid with batch norms"),
        ("strange.weight", r"unexpected in the checkpoint \(1\):\n    strange.weight"),
    ],
)
def test_networks_that_this_family_is_not_are_named(tmp_path, key, message):
    made = {**torch_vits.state((8, 8)), key: np.ones(12)}
    path = torch_vits.save(tmp_path / "a.safetensors", made)
    with pytest.raises(ValueError, match=message) as error:
        load(path, gelu="exact")
    assert "a.safetensors (format 'timm_vit_torch')" in str(error.value)


@pytest.mark.parametrize(("variant", "bottleneck"), [("18", False), ("50", True)])
def test_resnets(tmp_path, variant, bottleneck):
    made, ours = torch_resnets.state(bottleneck)
    fields = {"units": (1, 2, 1, 1), "widths": (8, 16, 32, 64), "num_classes": 5, "image_size": 64}
    torch_vits.save(tmp_path / "a.safetensors", made)
    torch_vits.save(tmp_path / "b.safetensors", torch_resnets.hugging_face(made))
    for name, kind in (("a", "torchvision_resnet_torch"), ("b", "hf_resnet_torch")):
        with pytest.warns(UserWarning, match=f"takes the preprocessing of the format '{kind}'"):
            model = vitcnn.load("resnet", variant, tmp_path / f"{name}.safetensors", **fields)
        assert model.provenance["weights"]["preprocess"] == f"guess: the format {kind!r}"
        assert model.provenance["weights"]["format"] == kind
        assert model.preprocess.mean == IMAGENET["mean"]
        got = checkpoints.flat(model.variables)
        assert got.keys() == ours.keys()
        for key, value in ours.items():
            np.testing.assert_array_equal(got[key], np.float32(value), err_msg=key)
    made["layer1.0.downsample.2.weight"] = np.ones(3)
    torch_vits.save(tmp_path / "a.safetensors", made)
    with pytest.raises(ValueError, match=r"shortcuts pool first, .*: set shortcut_pool=True"):
        vitcnn.load("resnet", variant, tmp_path / "a.safetensors", **fields)


POOLED = "layer1.0.downsample.2.weight"  # a ResNet-D has it
RESNETS = [  # key of timm, shape, our name, shape
    ("resnet50", "layer1.2.conv3.weight", (4, 2, 1, 1), "block1/unit3/conv3/kernel", (1, 1, 2, 4)),
    ("resnet50", "layer1.0.downsample.0.weight", (4, 2, 1, 1), "block1/unit1/conv_proj/kernel"),
    ("resnet50", "layer2.0.downsample.1.bias", (4,), "block2/unit1/bn_proj/bias"),
    ("resnet50d", "layer1.0.downsample.1.weight", (4, 2, 1, 1), "block1/unit1/conv_proj/kernel"),
    ("resnet50d", "layer1.0.downsample.2.bias", (4,), "block1/unit1/bn_proj/bias"),
    ("resnet50d", "conv1.0.weight", (2, 3, 3, 3), "conv_root1/kernel", (3, 3, 3, 2)),
    ("resnet50d", "conv1.1.weight", (2,), "bn_root1/scale"),
    ("resnet50d", "conv1.4.bias", (2,), "bn_root2/bias"),
    ("resnet50d", "conv1.6.weight", (2, 3, 3, 3), "conv_root/kernel"),
    ("resnetrs50", "maxpool.0.weight", (2, 3, 3, 3), "conv_pool/kernel"),
    ("resnetrs50", "maxpool.1.weight", (2,), "bn_pool/scale"),
    (
        *("resnetrs50", "layer1.0.se.fc1.weight", (2, 4, 1, 1)),
        *("block1/unit1/se/reduce/kernel", (4, 2)),
    ),
    ("resnetrs50", "layer1.0.se.fc2.bias", (4,), "block1/unit1/se/expand/bias"),
    ("ecaresnet50d", "layer1.0.se.conv.weight", (1, 1, 5), "block1/unit1/eca/kernel", (5,)),
    ("resnet50_gn", "layer1.0.bn2.weight", (4,), "block1/unit1/norm2/scale"),
    ("resnetv2_50", "stem.conv.weight", (2, 3, 7, 7), "conv_root/kernel", (7, 7, 3, 2)),
    ("resnetv2_50d", "stem.norm2.weight", (2,), "bn_root2/scale"),
    ("resnetv2_50d", "stem.conv3.weight", (2, 3, 3, 3), "conv_root/kernel"),
    ("resnetv2_50", "stages.1.blocks.2.norm3.bias", (2,), "block2/unit3/bn3/bias"),
    (
        *("resnetv2_50", "stages.0.blocks.0.downsample.conv.weight", (4, 2, 1, 1)),
        "block1/unit1/conv_proj/kernel",
    ),
    ("resnetv2_50", "norm.weight", (4,), "bn_final/scale"),
    ("resnetv2_50", "head.fc.weight", (5, 4, 1, 1), "head/kernel", (4, 5)),
]


@pytest.mark.parametrize("row", RESNETS, ids=lambda row: f"{row[0]} {row[1]}")
def test_names_of_resnets_of_timm(row):
    """Keys of timm's own networks, by hand."""
    variant, key, shape, name, *expected = row
    file = timm_resnetv2_torch if "v2" in variant else torchvision_resnet_torch
    raw = {name: np.ones(2) for name in file.SIGNATURE}
    if variant.endswith("gn"):
        raw["layer1.0.bn1.weight"] = np.ones(2)
    else:
        raw["stages.0.blocks.0.norm1.running_mean" if "v2" in variant else "bn1.running_mean"] = 1
    if (variant.endswith("d") and "v2" not in variant) or "rs" in variant:
        raw[POOLED] = np.ones(4)
    assert file.matches(raw)
    raw[key] = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    module = models.create("resnet", "50" if variant == "resnet50" else variant)
    for network in (module, None):  # None where it is not known yet
        arrays = file.convert(raw, network)
        got = arrays[f"params/{name}"]
        assert [got.shape] == (expected or [got.shape])
        if len(shape) == 4 and got.ndim == 4:
            np.testing.assert_array_equal(got, np.moveaxis(raw[key], (0, 1), (3, 2)))
        elif len(shape) == 4:
            np.testing.assert_array_equal(got, raw[key][:, :, 0, 0].T)
        else:
            np.testing.assert_array_equal(got, raw[key].reshape(-1))


def test_norms_and_shortcuts_of_another_resnet_are_named():
    raw = {name: np.ones(2) for name in torchvision_resnet_torch.SIGNATURE}
    with pytest.raises(ValueError, match=r"GroupNorm without .*: set norm='plain_group'"):
        torchvision_resnet_torch.convert(raw, models.create("resnet", "R50x1"))
    raw["bn1.running_mean"] = np.ones(2)
    with pytest.raises(ValueError, match=r"do not pool first, .* do: set shortcut_pool=False"):
        torchvision_resnet_torch.convert(raw, models.create("resnet", "resnet50d"))
    raw = {name: np.ones(2) for name in timm_resnetv2_torch.SIGNATURE}
    raw |= {"stem.conv1.weight": np.ones(2), "stages.0.blocks.0.norm1.v": np.ones(2)}
    with pytest.raises(ValueError, match="belongs to a ResNet with EvoNorm"):
        timm_resnetv2_torch.convert(raw, models.create("resnet", "resnetv2_50d_gn"))


def test_wrong_family_and_unknown_format_say_what_the_keys_look_like(tmp_path):
    made = torch_vits.state((8, 8))
    path = torch_vits.save(tmp_path / "a.safetensors", made)
    with pytest.raises(
        ValueError, match="'timm_vit_torch', which holds weights of the family 'vit'"
    ):
        vitcnn.load("resnet", "18", path)
    strange = {f"part{i % 3}.{key}": value for i, (key, value) in enumerate(made.items())}
    with pytest.raises(ValueError, match=r"nearest: 'timm_vit_torch' .*'pos_embed' too \(other"):
        load(torch_vits.save(tmp_path / "b.safetensors", strange))
    del strange["part0.pos_embed"]
    with pytest.raises(ValueError, match=r"nearest: 'timm_vit_torch' .*but also 'pos_embed'"):
        load(torch_vits.save(tmp_path / "b.safetensors", strange))
