"""timm's and torchvision's own networks at full size: logits and every block are the same."""

import numpy as np
import pytest
import torch_vits
from networks import flat, shapes_of
from torch_oracles import HALF, compare, randomised, save

import vitcnn
from vitcnn import models
from vitcnn.checkpoints.formats import timm_bit_torch, timm_mixer_torch, timm_vit_torch
from vitcnn.models import bit, mixer, resnet

pytestmark = pytest.mark.oracle
VITS = [
    ("vit_small_patch16_224", "S/16", 224, {}),
    ("vit_small_patch16_224", "S/16", 288, {}),
    ("deit_small_distilled_patch16_224", "DeiT-S/16-distilled", 160, {}),
    ("deit3_small_patch16_224", "S/16", 224, {"layer_scale": 1e-6}),
    ("deit_small_patch16_224", "DeiT-S/16", 224, {}),
    ("deit_base_patch16_384", "DeiT-B/16", 384, {}),
    ("vit_small_patch8_224.dino", "DINO-S/8", 224, {}),
    ("vit_small_patch16_224.dino", "DINO-S/16", 224, {}),
    ("vit_base_patch16_224.dino", "DINO-B/16", 224, {}),
    ("vit_base_patch8_224.dino", "DINO-B/8", 160, {}),
    ("vit_small_patch14_dinov2", "DINOv2-S/14", 518, {}),
    ("vit_small_patch14_reg4_dinov2", "DINOv2-S/14-registers", 518, {}),
    ("vit_small_patch14_reg4_dinov2", "DINOv2-S/14-registers", 224, {}),
    ("vit_base_patch32_224", "B/32", 224, {}),
    ("vit_huge_patch14_224", "H/14", 224, {"num_classes": 0}),  # 10 GB of memory
]
MIXERS = [("mixer_s32_224", "S/32"), ("mixer_b16_224", "B/16")]
OTHERS = {  # of one class with a network that loads
    "gmixer_12_224": ("mixer", "S/16", "gMixer"),
    "resmlp_12_224": ("mixer", "S/16", "a ResMLP"),
    "gmlp_ti16_224": ("mixer", "S/16", "a gMLP"),
    "resnetv2_50": ("bit", "R50x1", "holds weights of the family 'resnet'"),
    "resnetv2_50d_evos": ("resnet", "resnetv2_50d", "a ResNet with EvoNorm"),
    "resnetv2_50d_frn": ("resnet", "resnetv2_50d", "filter response normalisation"),
    "resnet50_gn": ("resnet", "R50x1", "set norm='plain_group'"),
    "ecaresnetlight": ("resnet", "seresnet50", "shortcuts pool first, .*set shortcut_pool=True"),
}
SIZES = [
    *((f"mixer_{v[0].lower()}{v[2:]}_224", "mixer", v) for v in mixer.VARIANTS if v != "H/14"),
    *((f"resnetv2_{v[1:]}_bit", "bit", v) for v in bit.VARIANTS),
    ("vit_giant_patch14_dinov2", "vit", "DINOv2-g/14"),
    ("vit_giant_patch14_reg4_dinov2", "vit", "DINOv2-g/14-registers"),
]
RESNETS = [("resnet18", "18", 224), ("resnet34", "34", 160), ("resnet50", "50", 193)]
# One of each kind, with few units: "mean" takes sizes that are multiples of 32.
KINDS = [
    *(("resnet50c", 65), ("resnet50d", 77), ("resnet50s", 64), ("resnet26t", 75)),
    *(("resnext50_32x4d", 75), ("resnext101_32x16d", 64), ("wide_resnet50_2", 70)),
    *(("seresnet18", 75), ("seresnext26t_32x4d", 66), ("ecaresnet26t", 75), ("ecaresnetlight", 70)),
    *(("resnetrs50", 75), ("resnetblur18", 75), ("resnetblur50d", 71), ("resnetaa50", 64)),
    *(("seresnextaa101d_32x8d", 96), ("resnet50_gn", 75)),
    *(("resnetv2_18", 75), ("resnetv2_34d", 70), ("resnetv2_50", 71), ("resnetv2_50t", 75)),
    ("resnetv2_50d_gn", 75),
]


@pytest.mark.parametrize(("name", "variant", "size", "fields"), VITS)
def test_vits_of_timm(tmp_path, name, variant, size, fields):
    torch, timm = pytest.importorskip("torch"), pytest.importorskip("timm")
    from timm.models.vision_transformer import checkpoint_filter_fn

    trained = randomised(torch, timm.create_model(name))
    path = save(tmp_path / "a.safetensors", trained)
    network = timm.create_model(name, img_size=size).eval()  # with timm's resized positions
    network.load_state_dict(checkpoint_filter_fn(dict(trained.state_dict()), network))
    model = vitcnn.load("vit", variant, path, image_size=size, preprocess=HALF, **fields)
    names = [f"block{i:02d}/out" for i in range(len(network.blocks))]
    compare(torch, network, model, network.blocks, names, size)


@pytest.mark.parametrize("size", [56, 70])
@pytest.mark.parametrize("name", ["", "_reg4"])
def test_gated_vits_of_timm(tmp_path, name, size):
    """DINOv2's giants, made small, in timm's names and in those of the original."""
    torch, timm = pytest.importorskip("torch"), pytest.importorskip("timm")
    from timm.models.vision_transformer import checkpoint_filter_fn

    name = f"vit_giant_patch14{name}_dinov2"
    sizes = {"embed_dim": 96, "depth": 3, "num_heads": 3, "img_size": 56, "num_classes": 5}
    fields = {"width": 96, "depth": 3, "heads": 3, "mlp_dim": 256, "num_classes": 5}
    fields |= {"image_size": size, "preprocess": HALF}
    variant = "DINOv2-g/14-registers" if "reg4" in name else "DINOv2-g/14"
    trained = randomised(torch, timm.create_model(name, **sizes))
    path = save(tmp_path / "a.safetensors", trained)
    original = {key: value.numpy() for key, value in trained.state_dict().items()}
    if "reg4" in name:  # the original has a position for its class token
        place = np.random.default_rng(0).normal(size=(1, 1, 96)).astype(np.float32)
        original["pos_embed"] = np.concatenate([place, original["pos_embed"]], 1)
    original = torch_vits.dinov2(original) | {"mask_token": np.ones((1, 96), np.float32)}
    assert "blocks.0.mlp.w12.weight" in original and "reg_token" not in original
    other = torch_vits.save(tmp_path / "b.safetensors", original)
    state = {key: torch.from_numpy(value) for key, value in original.items()}
    for file, theirs in ((path, dict(trained.state_dict())), (other, state)):
        network = timm.create_model(name, **sizes | {"img_size": size}).eval()
        network.load_state_dict(checkpoint_filter_fn(theirs, network))
        model = vitcnn.load("vit", variant, file, **fields)
        names = [f"block{i:02d}/out" for i in range(3)]
        compare(torch, network, model, network.blocks, names, size)


@pytest.mark.parametrize("library", ["timm", "torchvision"])
@pytest.mark.parametrize(("name", "variant", "size"), RESNETS)
def test_resnets(tmp_path, library, name, variant, size):
    torch, made = pytest.importorskip("torch"), pytest.importorskip(library)
    network = randomised(
        torch, made.create_model(name) if library == "timm" else made.models.get_model(name)
    )
    path = save(tmp_path / "a.safetensors", network)
    model = vitcnn.load("resnet", variant, path, image_size=size, preprocess=HALF)
    names = [name for name in model.taps if name.endswith("/out")]
    blocks = [unit for s in (1, 2, 3, 4) for unit in getattr(network, f"layer{s}")]
    compare(torch, network, model, blocks, names, size)


@pytest.mark.parametrize(("name", "size"), KINDS)
def test_kinds_of_resnets_of_timm(tmp_path, name, size):
    """Logits and every unit, at two sizes."""
    torch, timm = pytest.importorskip("torch"), pytest.importorskip("timm")
    units = (1, 2, 1, 1)
    network = randomised(torch, timm.create_model(name, layers=units, num_classes=7))
    path = save(tmp_path / "a.safetensors", network)
    if name.startswith("resnetv2"):
        blocks = [unit for stage in network.stages for unit in stage.blocks]
    else:
        blocks = [unit for s in (1, 2, 3, 4) for unit in getattr(network, f"layer{s}")]
    for side in (size, 96 if size == 64 else 64):
        fields = {"image_size": side, "units": units, "preprocess": HALF}
        model = vitcnn.load("resnet", resnet.ARCHITECTURES[name], path, **fields)
        names = [name for name in model.taps if name.endswith("/out")]
        compare(torch, network, model, blocks, names, side)


def test_vit_of_torchvision(tmp_path):
    torch, torchvision = pytest.importorskip("torch"), pytest.importorskip("torchvision")
    network = randomised(torch, torchvision.models.vit_b_32())
    model = vitcnn.load("vit", "B/32", save(tmp_path / "a.safetensors", network), preprocess=HALF)
    names = [f"block{i:02d}/out" for i in range(12)]
    compare(torch, network, model, network.encoder.layers, names, 224)


@pytest.mark.parametrize(("name", "variant"), MIXERS)
def test_mixers_of_timm(tmp_path, name, variant):
    torch, timm = pytest.importorskip("torch"), pytest.importorskip("timm")
    network = randomised(torch, timm.create_model(name))
    path = save(tmp_path / "a.safetensors", network)
    model = vitcnn.load("mixer", variant, path, preprocess=HALF)
    names = [f"block{i:02d}/out" for i in range(len(network.blocks))]
    compare(torch, network, model, network.blocks, names, 224)


@pytest.mark.parametrize("size", [224, 160])
def test_bit_of_timm(tmp_path, size):
    torch, timm = pytest.importorskip("torch"), pytest.importorskip("timm")
    network = randomised(torch, timm.create_model("resnetv2_50x1_bit"))
    path = save(tmp_path / "a.safetensors", network)
    model = vitcnn.load("bit", "R50x1", path, image_size=size, preprocess=HALF)
    names = [name for name in model.taps if name.endswith("/out")]
    blocks = [unit for stage in network.stages for unit in stage.blocks]
    network = network.double()  # its float32 is off by 4e-4
    compare(torch, network, model, blocks, names, size, tolerance=1e-4)


@pytest.mark.parametrize("name", OTHERS)
def test_networks_of_the_same_classes_are_refused(tmp_path, name):
    timm = pytest.importorskip("timm")
    family, variant, message = OTHERS[name]
    path = save(tmp_path / "a.safetensors", timm.create_model(name))
    with pytest.raises(ValueError, match=message):
        vitcnn.load(family, variant, path, preprocess=HALF)


@pytest.mark.parametrize(("name", "family", "variant"), SIZES)
def test_names_and_shapes_of_every_size(name, family, variant):
    """Without numbers, of which the largest have 4 GB."""
    torch, timm = pytest.importorskip("torch"), pytest.importorskip("timm")
    with torch.device("meta"):
        state = timm.create_model(name).state_dict()
    raw = {key: np.broadcast_to(np.float32(0), value.shape) for key, value in state.items()}
    adapters = {"bit": timm_bit_torch, "mixer": timm_mixer_torch, "vit": timm_vit_torch}
    adapter = adapters[family]
    assert adapter.matches(raw)
    module = models.create(family, variant)
    got = {key: value.shape for key, value in adapter.convert(raw, module).items()}
    shapes, _ = shapes_of(module)
    assert got == {f"params/{key}": leaf.shape for key, leaf in flat(shapes["params"]).items()}
