"""Small ViTs of timm, one of each kind: logits and blocks are the same, with its config.json."""

import json

import numpy as np
import pytest
from torch_oracles import HALF, compare, randomised, save

import vitcnn

pytestmark = pytest.mark.oracle
SMALL = {"embed_dim": 48, "depth": 2, "num_heads": 3, "num_classes": 5}
OURS = {"width": 48, "depth": 2, "heads": 3, "mlp_dim": 192, "num_classes": 5}
NETWORKS = {  # one of each kind -> timm's further arguments, our variant, our further fields
    "deit3_small_patch16_224": ({}, "DeiT-III-S/16", {}),
    "vit_base_patch14_reg1_tipsv2": ({}, "TIPSv2-B/14", {}),
    "vit_huge_patch14_gap_224": ({}, "I-JEPA-H/14", {}),
    "vit_medium_patch16_gap_256": ({}, "SBB-M/16", {}),
    "vit_medium_patch16_reg4_gap_256": ({}, "SBB-M/16-reg4", {}),
    "vit_so150m2_patch16_reg1_gap_256": ({"mlp_ratio": 4}, "SBB-so150m2/16-reg1", {}),
    "vit_so150m_patch16_reg4_gap_256": ({"mlp_ratio": 4}, "SBB-so150m/16-reg4", {}),
    "vit_base_patch16_siglip_gap_256": ({}, "SigLIP-B/16-gap", {}),
    "vit_base_patch16_siglip_256": ({}, "SigLIP-B/16", {}),
    "vit_so400m_patch16_siglip_256": ({"mlp_ratio": 4}, "SigLIP-so400m/16", {}),
    "vit_so150m_patch16_reg4_map_256": (
        *({"mlp_ratio": 4}, "SBB-so150m/16-reg4"),
        {"pool": "map", "gelu": "exact"},
    ),
    "vit_base_patch16_clip_224": ({}, "CLIP-B/16", {"projection": 0}),
    "vit_base_patch16_clip_quickgelu_224": ({}, "CLIP-B/16-quickgelu", {"projection": 0}),
    "eva_large_patch14_196": ({}, "EVA-L/14", {}),
    "beit3_base_patch16_224": ({}, "BEiT-3-B/16", {}),
    "vit_intern300m_patch14_448": ({}, "InternViT-300M/14", {}),
    "vit_relpos_medium_patch16_224": ({}, "relpos-M/16", {}),
    "vit_relpos_medium_patch16_cls_224": ({}, "relpos-M/16-token", {}),
    "vit_relpos_base_patch16_clsgap_224": ({}, "relpos-B/16-clsgap", {}),
    "vit_relpos_medium_patch16_rpn_224": ({}, "relpos-M/16-rpn", {}),
    "vit_base_patch16_rpn_224": ({}, "B/16-rpn", {}),
    "vit_srelpos_small_patch16_224": ({}, "relpos-S/16-shared", {}),
}


@pytest.mark.parametrize("cells", [3, 5])
@pytest.mark.parametrize("name", NETWORKS)
def test_vits_of_timm(tmp_path, name, cells):
    torch, timm = pytest.importorskip("torch"), pytest.importorskip("timm")
    from timm.models.vision_transformer import checkpoint_filter_fn

    others, variant, fields = NETWORKS[name]
    patch = 14 if "patch14" in name else 16
    sizes = {**SMALL, **others, "img_size": 3 * patch}
    trained = randomised(torch, timm.create_model(name, **sizes))
    path = save(tmp_path / "a.safetensors", trained)
    arguments = {k: v for k, v in sizes.items() if k != "num_classes"}
    config = {"architecture": name, "num_classes": 5, "model_args": arguments}
    (tmp_path / "config.json").write_text(json.dumps(config))
    network = timm.create_model(name, **sizes | {"img_size": cells * patch}).eval()
    network.load_state_dict(checkpoint_filter_fn(dict(trained.state_dict()), network))
    settings = {**OURS, "image_size": cells * patch, "preprocess": HALF, **fields}
    model = vitcnn.load("vit", variant, path, **settings)
    names = ["block00/out", "block01/out"]
    compare(torch, network, model, network.blocks, names, cells * patch)


HYBRIDS = {
    "vit_tiny_r_s16_p8_224": ("R+Ti/16", 32),
    "vit_small_r26_s32_224": ("R26+S/32", 32),
    "vit_base_r50_s16_224": ("R50+B/16", 16),
}


@pytest.mark.parametrize("cells", [3, 5])
@pytest.mark.parametrize("name", HYBRIDS)
def test_hybrids_of_timm(tmp_path, name, cells):
    torch, timm = pytest.importorskip("torch"), pytest.importorskip("timm")
    from timm.models.vision_transformer import checkpoint_filter_fn

    variant, patch = HYBRIDS[name]
    sizes = {**SMALL, "img_size": 3 * patch}
    trained = randomised(torch, timm.create_model(name, **sizes))
    path = save(tmp_path / "a.safetensors", trained)
    arguments = {k: v for k, v in sizes.items() if k != "num_classes"}
    config = {"architecture": name, "num_classes": 5, "model_args": arguments}
    (tmp_path / "config.json").write_text(json.dumps(config))
    network = timm.create_model(name, **sizes | {"img_size": cells * patch}).eval()
    network.load_state_dict(checkpoint_filter_fn(dict(trained.state_dict()), network))
    model = vitcnn.load("vit", variant, path, image_size=cells * patch, preprocess=HALF, **OURS)
    assert (model.module.epsilon, model.module.stem_form) == (1e-6, "timm")
    units = [
        unit
        for stage in getattr(network.patch_embed.backbone, "stages", ())
        for unit in stage.blocks
    ]
    names = [name for name in model.taps if name.endswith("/out")]
    network = network.double()  # after sixteen units, timm's own float32 is off by 1.2e-4
    blocks = [*units, *network.blocks]
    compare(torch, network, model, blocks, names, cells * patch, 1e-4, of_blocks=3e-4)
    if not units:
        return
    backbone = network.patch_embed.backbone
    counts = tuple(len(stage.blocks) for stage in backbone.stages)
    widths = tuple(64 * 2**i for i in range(len(counts)))
    settings = {"units": counts, "widths": widths, "num_classes": 0, "image_size": cells * patch}
    alone = vitcnn.load("resnet", "R50x1", path, **settings)
    assert alone.module.epsilon == 1e-5
    images = np.random.default_rng(0).normal(size=(2, *[cells * patch] * 2, 3)).astype(np.float32)
    with torch.no_grad():
        maps = backbone(torch.from_numpy(images).double().permute(0, 3, 1, 2))
        expected = maps.mean((2, 3)).numpy()
    # Google standardises filters with another epsilon than timm.
    assert np.abs(alone.run(images)[0] - expected).max() < 3e-3 * expected.std()


@pytest.mark.parametrize("gelu", ["exact", "quick"])
def test_the_head_of_a_clip_is_its_projection(tmp_path, gelu):
    torch, timm = pytest.importorskip("torch"), pytest.importorskip("timm")
    name = f"vit_base_patch16_clip_{'quickgelu_' * (gelu == 'quick')}224"
    network = randomised(torch, timm.create_model(name, **SMALL, img_size=48))
    with torch.no_grad():
        network.head.bias.zero_()
    path = save(tmp_path / "a.safetensors", network)
    fields = {**OURS, "image_size": 48, "num_classes": 0, "projection": 5, "gelu": gelu}
    model = vitcnn.load("vit", "CLIP-B/16", path, preprocess=HALF, **fields)
    images = np.random.default_rng(0).normal(size=(2, 48, 48, 3)).astype(np.float32)
    output, taps = model.run(images, "projection")
    with torch.no_grad():
        expected = network(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_array_equal(output, taps["projection"])
    np.testing.assert_allclose(output, expected, atol=1e-5 * expected.std())
