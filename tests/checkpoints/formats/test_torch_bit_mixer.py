"""BiT and Mixer under the names of PyTorch libraries: every array arrives in its place."""

import json
import re

import numpy as np
import pytest
import torch_vits
from networks import flat, shapes_of

import vitcnn
from vitcnn import models
from vitcnn.checkpoints import sidecars

VARIANT = {"bit": "R50x1", "mixer": "S/32"}
HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
FIELDS = {
    "bit": {"units": (2, 1), "widths": (32, 64), "image_size": 40, "num_classes": 5},
    "mixer": {
        **{"width": 12, "depth": 2, "patch": (4, 2), "tokens_mlp_dim": 10, "channels_mlp_dim": 20},
        **{"image_size": (12, 20), "num_classes": 5},
    },
}


def random_arrays(family):
    """Returns random arrays of a small network of ours by bare name."""
    shapes, _ = shapes_of(models.create(family, VARIANT[family], **FIELDS[family]))
    rng = np.random.default_rng(0)
    return {
        k: rng.normal(size=v.shape).astype(np.float32) for k, v in flat(shapes["params"]).items()
    }


def foreign(arrays, name_of):
    """Returns the arrays as torch has them: outputs first, and names of its own."""
    renamed = {}
    for key, value in arrays.items():
        layer, _, weight = key.rpartition("/")
        if value.ndim == 4:
            value = np.moveaxis(value, (3, 2), (0, 1))
        elif value.ndim == 2:
            value = np.swapaxes(value, 0, 1)
        renamed[f"{name_of(layer)}.{'bias' if weight in ('bias', 'beta') else 'weight'}"] = value
    assert len(renamed) == len(arrays)
    return renamed


def timm_mixer(layer):
    if layer in ("stem", "pre_head_layer_norm", "head"):
        return {"stem": "stem.proj", "pre_head_layer_norm": "norm", "head": "head"}[layer]
    block, *rest = layer.removeprefix("MixerBlock_").split("/")
    if rest[0].startswith("LayerNorm"):
        return f"blocks.{block}.norm{int(rest[0][-1]) + 1}"
    mixed, dense = rest
    return f"blocks.{block}.mlp_{mixed.removesuffix('_mixing')}s.fc{int(dense[-1]) + 1}"


def bit_layer(unit, stem, norm, head):
    def name_of(layer):
        if part := re.match(r"resnet/block(\d)/unit(\d\d)/(.+)", layer):
            place = unit.format(int(part[1]) - 1, int(part[2]) - 1)
            if part[3].startswith("a/proj/"):
                return f"{place}.downsample.conv"
            step, kind = part[3].split("/")
            kind = {"standardized_conv2d": "conv", "group_norm": "norm"}[kind]
            return f"{place}.{kind}{'abc'.index(step) + 1}"
        return stem if "root_block" in layer else norm if "resnet" in layer else head

    return name_of


def timm_bit(arrays):
    made = foreign(arrays, bit_layer("stages.{}.blocks.{}", "stem.conv", "norm", "head.fc"))
    return {k: v[..., None, None] if k == "head.fc.weight" else v for k, v in made.items()}


def hf_bit(arrays, prefix="bit."):
    unit = prefix + "encoder.stages.{}.layers.{}"
    return foreign(
        arrays,
        bit_layer(unit, f"{prefix}embedder.convolution", f"{prefix}norm", "classifier.1"),
    )


FILES = {  # name of the file -> family, format, arrays under its names
    "timm mixer": ("mixer", "timm_mixer_torch", lambda arrays: foreign(arrays, timm_mixer)),
    "timm bit": ("bit", "timm_bit_torch", timm_bit),
    "BitForImageClassification": ("bit", "hf_bit_torch", hf_bit),
    "BitModel": ("bit", "hf_bit_torch", lambda arrays: hf_bit(arrays, "")),
}


def load(family, path, **fields):
    fields = {**FIELDS[family], "preprocess": HALF, **fields}
    return vitcnn.load(family, VARIANT[family], path, **fields)


@pytest.mark.parametrize("classes", [5, 0])
@pytest.mark.parametrize("name", FILES)
def test_every_array_arrives_in_its_place(tmp_path, name, classes):
    family, kind, rename = FILES[name]
    arrays = random_arrays(family)
    if not classes:
        arrays = {key: value for key, value in arrays.items() if not key.startswith("head/")}
    made = rename(arrays)
    wrapped = {f"module.{key}": value for key, value in made.items()}
    for file in (made, wrapped):
        path = torch_vits.save(tmp_path / "a.safetensors", file)
        model = load(family, path, num_classes=classes)
        assert model.provenance["weights"]["format"] == kind
        got = flat(model.variables["params"])
        assert got.keys() == arrays.keys()
        for key, value in arrays.items():
            np.testing.assert_array_equal(got[key], value, err_msg=key)
    assert getattr(model.module, "gelu", "exact") == "exact"  # not as in Google's files


def test_names_as_the_libraries_write_them():
    """Some keys and shapes of the libraries' own files, by hand."""
    bit, mixer = random_arrays("bit"), random_arrays("mixer")
    shapes = {key: value.shape for key, value in timm_bit(bit).items()}
    assert shapes["stem.conv.weight"] == (32, 3, 7, 7)
    assert shapes["stages.0.blocks.1.norm1.bias"] == (128,)
    assert shapes["stages.1.blocks.0.conv2.weight"] == (64, 64, 3, 3)
    assert shapes["stages.1.blocks.0.downsample.conv.weight"] == (256, 128, 1, 1)
    assert shapes["norm.weight"] == (256,) and shapes["head.fc.weight"] == (5, 256, 1, 1)
    shapes = {key: value.shape for key, value in hf_bit(bit).items()}
    assert shapes["bit.embedder.convolution.weight"] == (32, 3, 7, 7)
    assert shapes["bit.encoder.stages.0.layers.1.norm3.weight"] == (32,)
    assert shapes["bit.encoder.stages.1.layers.0.downsample.conv.weight"] == (256, 128, 1, 1)
    assert shapes["bit.norm.bias"] == (256,) and shapes["classifier.1.weight"] == (5, 256)
    shapes = {key: value.shape for key, value in foreign(mixer, timm_mixer).items()}
    assert shapes["stem.proj.weight"] == (12, 3, 4, 2)
    assert shapes["blocks.1.mlp_tokens.fc1.weight"] == (10, 30)
    assert shapes["blocks.1.mlp_channels.fc2.weight"] == (12, 20)
    assert shapes["blocks.0.norm2.weight"] == shapes["norm.bias"] == (12,)


STRANGE = [
    ("timm mixer", "blocks.0.linear_tokens.weight", "belongs to a ResMLP, which"),
    ("timm mixer", "blocks.1.ls1", "belongs to a ResMLP"),
    ("timm mixer", "blocks.0.norm1.alpha", "belongs to a ResMLP"),
    ("timm mixer", "blocks.0.mlp_channels.gate.proj.weight", "belongs to a gMLP"),
    ("timm mixer", "stem.norm.weight", "a Mixer that normalises its patches"),
    ("timm mixer", "blocks.0.strange.weight", r"\(1\):\n    blocks.0.strange.weight"),
    ("timm bit", "stages.0.blocks.0.downsample.norm.weight", "norms after its convolutions"),
    ("timm bit", "stages.0.blocks.0.strange.weight", r"\(1\):\n    stages.0.blocks.0.strange"),
    ("BitModel", "embedder.norm.weight", "layer_type 'bottleneck'"),
    ("BitForImageClassification", "bit.strange.weight", r"\(1\):\n    strange.weight"),
]


@pytest.mark.parametrize(("name", "key", "message"), STRANGE)
def test_networks_that_these_families_are_not_are_named(tmp_path, name, key, message):
    family, kind, rename = FILES[name]
    made = {**rename(random_arrays(family)), key: np.ones(3)}
    with pytest.raises(ValueError, match=message) as error:
        load(family, torch_vits.save(tmp_path / "a.safetensors", made))
    assert f"a.safetensors (format {kind!r})" in str(error.value)


@pytest.mark.parametrize("key", ["stem.conv1.weight", "stages.0.blocks.0.norm1.running_mean"])
def test_resnets_of_version_2_are_of_another_family(tmp_path, key):
    made = timm_bit(random_arrays("bit"))
    if key.startswith("stem"):
        del made["stem.conv.weight"]
    path = torch_vits.save(tmp_path / "a.safetensors", {**made, key: np.ones(3)})
    with pytest.raises(ValueError, match=r"'timm_resnetv2_torch', .* of the family 'resnet'"):
        load("bit", path)


def test_gated_mlps_are_named(tmp_path):
    made = foreign(random_arrays("mixer"), timm_mixer)
    for block in (0, 1):  # half of the hidden units multiplies the other half
        key = f"blocks.{block}.mlp_tokens.fc2.weight"
        made[key] = made[key][:, :5]
    path = torch_vits.save(tmp_path / "a.safetensors", made)
    with pytest.raises(ValueError, match=r"MixerBlock_0/token_mixing' is gated \(gMixer\)"):
        load("mixer", path)


@pytest.mark.parametrize("name", FILES)
def test_wrong_family_and_missing_normalisation_are_named(tmp_path, name):
    family, kind, rename = FILES[name]
    path = torch_vits.save(tmp_path / "a.safetensors", rename(random_arrays(family)))
    with pytest.raises(ValueError, match=f"'{kind}', which holds weights of the family '{family}'"):
        vitcnn.load("resnet", "18", path)
    with pytest.raises(ValueError, match="pass preprocess with mean and"):
        load(family, path, preprocess=None)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("global_padding", "SAME", "is 'SAME'; expected None, since vitcnn has no"),
        ("num_groups", 16, "is 16; expected 32"),
        ("hidden_act", "gelu", "is 'gelu'; expected 'relu'"),
        ("layer_type", "bottleneck", "is 'bottleneck'; expected 'preactivation'"),
    ],
)
def test_what_only_the_config_of_transformers_says_is_not_passed_over(
    tmp_path, field, value, message
):
    config = {"model_type": "bit", "num_groups": 32, "hidden_act": "relu", "global_padding": None}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert sidecars.read_published(tmp_path / "a.safetensors").file is None
    (tmp_path / "config.json").write_text(json.dumps({**config, field: value}))
    with pytest.raises(ValueError, match=rf"config.json beside the weights: {field} {message}"):
        sidecars.read_published(tmp_path / "a.safetensors")
