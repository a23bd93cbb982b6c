"""What we write is read by timm, at full size, and gives the same logits."""

import math
import re

import jax
import numpy as np
import pytest
from networks import shapes_of

from vitcnn import checkpoints, models


def unit_scale(shapes, rng):
    """Random weights, all far from zero, that keep activations near one."""

    def draw(path, leaf):
        value, name = rng.standard_normal(leaf.shape, np.float32), path[-1].key
        if name == "kernel":
            inputs = leaf.shape[0] if path[-2].key in ("query", "key", "value") else None
            inputs = 1 if path[-2].key == "standardized_conv2d" else inputs  # so it is used
            return value / np.float32(math.sqrt(inputs or leaf.size / leaf.shape[-1]))
        return np.float32(0.3) * value + np.float32(name in ("scale", "gamma"))

    return jax.tree_util.tree_map_with_path(draw, shapes)


def timm_mixer(torch, arrays):
    """Returns Mixer arrays under timm's names: it reads no NumPy archive of a Mixer."""
    places = {
        r"stem": "stem.proj",
        r"pre_head_layer_norm": "norm",
        r"head": "head",
        r"MixerBlock_(\d+)/LayerNorm_0": r"blocks.\1.norm1",
        r"MixerBlock_(\d+)/LayerNorm_1": r"blocks.\1.norm2",
        r"MixerBlock_(\d+)/token_mixing/Dense_0": r"blocks.\1.mlp_tokens.fc1",
        r"MixerBlock_(\d+)/token_mixing/Dense_1": r"blocks.\1.mlp_tokens.fc2",
        r"MixerBlock_(\d+)/channel_mixing/Dense_0": r"blocks.\1.mlp_channels.fc1",
        r"MixerBlock_(\d+)/channel_mixing/Dense_1": r"blocks.\1.mlp_channels.fc2",
    }
    state = {}
    for key, value in arrays.items():
        layer, _, weight = key.rpartition("/")
        (name,) = (re.sub(p, place, layer) for p, place in places.items() if re.fullmatch(p, layer))
        value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
        weight = "bias" if weight == "bias" else "weight"
        state[f"{name}.{weight}"] = torch.from_numpy(np.ascontiguousarray(value))
    return state


@pytest.mark.oracle
@pytest.mark.parametrize(
    ("family", "variant", "fields", "name", "keywords"),
    [
        ("vit", "Ti/16", {}, "vit_tiny_patch16_224", {}),
        (
            *("vit", "Ti/16", {"pool": "gap"}, "vit_tiny_patch16_224"),
            {"class_token": False, "global_pool": "avg", "fc_norm": False},
        ),
        ("bit", "R50x1", {"image_size": (97, 130)}, "resnetv2_50x1_bit", {}),
        ("mixer", "S/32", {}, "mixer_s32_224", {}),
    ],
)
def test_timm_reads_what_we_write(tmp_path, family, variant, fields, name, keywords):
    torch = pytest.importorskip("torch")
    timm = pytest.importorskip("timm", reason="timm is not installed")
    module = models.create(family, variant, **fields)
    shapes, image = shapes_of(module)
    rng = np.random.default_rng(0)
    variables = unit_scale(shapes, rng)
    images = rng.standard_normal((2, *image.shape[1:]), np.float32)
    checkpoints.export(tmp_path / "a.npz", variables)
    if family != "bit":
        keywords = {**keywords, "act_layer": lambda **_: torch.nn.GELU(approximate="tanh")}
    network = timm.create_model(name, **keywords).eval()
    assert sum(p.numel() for p in network.parameters()) == sum(
        leaf.size for leaf in jax.tree.leaves(shapes)
    )
    with torch.no_grad():
        if family == "mixer":
            with np.load(tmp_path / "a.npz") as file:
                network.load_state_dict(timm_mixer(torch, file))
        else:
            network.load_pretrained(str(tmp_path / "a.npz"))
        x = torch.from_numpy(images).permute(0, 3, 1, 2)
        expected = network.double()(x.double()).numpy()  # its float32 of BiT is off by 1e-4
    assert 0.5 < expected.std() < 1.5
    logits = jax.jit(module.apply)(variables, images)
    np.testing.assert_allclose(logits, expected, atol=1e-4)
