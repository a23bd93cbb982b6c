"""Folders as timm writes them, one of each kind of network: the weights alone say all fields."""

import json

import numpy as np
import pytest
from torch_oracles import randomised, save

import vitcnn

pytestmark = pytest.mark.oracle
UNITS = {"layers": (1, 1, 1, 1)}
RESNETS = (
    *("resnet50d", "resnet50s", "resnext50_32x4d", "wide_resnet50_2", "seresnet18", "ecaresnet26t"),
    *("resnetrs50", "resnetblur50", "resnetaa50d", "resnet50_gn", "resnetv2_18d", "resnetv2_50"),
    *("resnetv2_50d_gn",),
)
VITS = (
    *("deit3_small_patch16_224", "vit_base_patch32_clip_quickgelu_224", "eva_large_patch14_196"),
    *("vit_base_patch16_siglip_224", "vit_relpos_small_patch16_224", "vit_base_patch16_rpn_224"),
    *("vit_srelpos_small_patch16_224", "beit3_base_patch16_224", "vit_small_r26_s32_224"),
    *("vit_mediumd_patch16_reg4_gap_256", "vit_small_patch14_reg4_dinov2"),
)


@pytest.mark.parametrize("name", [*RESNETS, *VITS])
def test_weights_alone(tmp_path, name):
    torch, timm = pytest.importorskip("torch"), pytest.importorskip("timm")
    arguments = UNITS if name in RESNETS else {"depth": 2}
    network = randomised(torch, timm.create_model(name, num_classes=7, **arguments))
    save(tmp_path / "model.safetensors", network)
    side = 96 if name in RESNETS else network.pretrained_cfg["input_size"][1]
    weights = {"mean": [0.5] * 3, "std": [0.5] * 3, "input_size": [3, side, side]}
    config = {"architecture": name, "num_classes": 7, "pretrained_cfg": weights}
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_args": arguments}))
    model = vitcnn.load(tmp_path)
    assert model.image_size == (side, side)
    images = np.random.default_rng(0).normal(size=(2, side, side, 3)).astype(np.float32)
    with torch.no_grad():
        expected = network(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    assert np.abs(model.run(images)[0] - expected).max() < 1e-5 * expected.std()
