"""A name, or weights alone: family, variant and fields follow, or an error says what lacks."""

import json
import os

import jax
import numpy as np
import pytest
import torch_resnets
import torch_vits
from networks import shapes_of

import vitcnn
from vitcnn import checkpoints, models
from vitcnn.checkpoints import families
from vitcnn.checkpoints.files.contents import Contents
from vitcnn.checkpoints.sidecars import timm
from vitcnn.config import analysis, check_measurement, measurement, model, source
from vitcnn.engine.jobs import load_models

CFG = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "input_size": [3, 32, 32]}
SIZES = {"num_heads": 3, "embed_dim": 12, "depth": 2, "mlp_ratio": 20 / 12, "patch_size": 4}
VIT = {"architecture": "vit_base_patch16_224", "pretrained_cfg": CFG, "model_args": SIZES}


def save(folder, arrays, config=None):
    folder.mkdir(exist_ok=True)
    torch_vits.save(folder / "model.safetensors", arrays)
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


# Names.

NAMES = {
    "vit_base_patch16_224": ("vit", "B/16"),
    "vit_base_patch16_224.augreg_in21k": ("vit", "B/16"),
    "deit_base_distilled_patch16_224": ("vit", "DeiT-B/16-distilled"),
    "dinov2_vits14_reg": ("vit", "DINOv2-S/14-registers"),
    "vit_b_16": ("vit", "B/16"),
    "resnet50": ("resnet", "50"),
    "mixer_b16_224": ("mixer", "B/16"),
    "resnetv2_50x1_bit": ("bit", "R50x1"),
    "ViT-B/16": ("vit", "B/16"),
    "ViT-B_16": ("vit", "B/16"),
    "B16": ("vit", "B/16"),
    "b/16": ("vit", "B/16"),
    "Mixer-B/16": ("mixer", "B/16"),
    "deit-s/16": ("vit", "DeiT-S/16"),
    "DINOv2 L/14": ("vit", "DINOv2-L/14"),
    "ResNet-50": ("resnet", "50"),
    "BiT-R50x1": ("bit", "R50x1"),
    "DINO ViT-S/8": ("vit", "DINO-S/8"),
    "CLIP ViT-B/32": ("vit", "CLIP-B/32"),
    "TIPS-B/14": ("vit", "TIPSv2-B/14"),
    "ViT-Base/16": ("vit", "B/16"),
    "vit large 16": ("vit", "L/16"),
    "DeiT-Tiny/16": ("vit", "DeiT-Ti/16"),
    "DINOv2-giant/14": ("vit", "DINOv2-g/14"),
    "Mixer-Base/16": ("mixer", "B/16"),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_in_any_spelling(name):
    network = checkpoints.named(name)
    assert (network.family, network.variant) == NAMES[name]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("deit", r"'deit' is the name of \d+ networks, such as .*'DeiT-Ti/16'.*or give weights"),
        ("dino", r"'dino' is the name of \d+ networks, such as vitcnn.load\('vit', 'DINO-S/16'\)"),
        ("vit", "is the name of .* networks"),
        ("R50x1", r"several networks: vitcnn.load\('bit', 'R50x1'\) or vitcnn.load\('resnet'"),
        ("vit_base_patch16_2244", "neither a path nor .* did you mean 'vit_base_patch16_224'"),
        ("ViT-B/17", "did you mean 'vit B/16'"),
        ("facebook/dinov2-base", "did you mean 'hf:facebook/dinov2-base', a repository"),
        (
            "vit_base_patch16_xp_224",
            "'vit_base_patch16_xp_224' of timm has RMS norms, branches side by s",
        ),
        ("", "name a network, as in"),
        ("hf-hub:timm/vit_tiny", "did you mean 'hf:timm/vit_tiny', a repository"),
        ("https://huggingface.co/a/b/tree/main", "did you mean 'hf:a/b', the repository"),
        ("ViT-B-16-SigLIP", r"did you mean 'vit SigLIP-B/16'\?"),
        ("R50+ViT-B/16", r"did you mean 'vit R50\+B/16'\?"),
        ("convnext_tiny", "none is like it; the families are bit, mixer, resnet, vit"),
        ("efficientnet_b0", "none is like it"),
        ("vgg16", "none is like it"),
        (
            "resnet50.a1_in1k",
            r"'resnet50.a1_in1k' names weights of timm: vitcnn.load\('hf:timm/resnet50.a1_in1k'",
        ),
    ],
)
def test_a_name_that_is_not_one_network(name, message):
    with pytest.raises(ValueError, match=message):
        vitcnn.load(name)


@pytest.mark.parametrize(
    ("family", "name", "meant"),
    [
        ("vit", "ViT-B/16", "B/16"),
        ("vit", "b16", "B/16"),
        ("vit", "deit", "DeiT-S/16"),
        ("resnet", "resnet50", "50"),
        ("resnet", "R50", "50"),
        ("mixer", "Mixer-S/32", "S/32"),
    ],
)
def test_the_nearest_name_is_the_one_that_was_meant(family, name, meant):
    with pytest.raises(ValueError, match=f"{name}': did you mean '{meant}'"):
        models.create(family, name)


def test_every_architecture_of_the_table_makes_a_network():
    """No field of the table is unknown to its family, and each makes a network that is valid."""
    for name in timm.architectures():
        network = checkpoints.named(name)
        module = models.create(network.family, network.variant, **network.fields)
        _, fields = timm.architecture(name)
        for field, value in fields.items():
            own = getattr(module, field)
            assert own == (tuple(value) if isinstance(value, list) else value), (name, field)


def test_a_name_makes_a_random_network():
    model = vitcnn.load("ViT-mini/4")
    assert model.provenance["weights"]["format"] == "random"
    assert (model.provenance["family"], model.provenance["variant"]) == ("vit", "mini/4")


# Weights alone.

FORMS = {
    "plain": ({}, {}),
    "gap": ({"cls": False, "fc_norm": True}, {"global_pool": "avg", "class_token": False}),
    "registers": ({"registers": 2, "scale": True}, {"reg_tokens": 2, "init_values": 1e-5}),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("grid", [(8, 8), (4, 4)])
def test_fields_follow_from_the_arrays_and_the_json(tmp_path, form, grid):
    parts, arguments = FORMS[form]
    arrays = torch_vits.state(grid, **parts)
    config = {**VIT, "model_args": {**SIZES, **arguments}, "num_classes": 5}
    side = 4 * grid[0]
    config["pretrained_cfg"] = {**CFG, "input_size": [3, side, side]}
    model = vitcnn.load(save(tmp_path, arrays, config))
    fields = {field: getattr(model.module, field) for field in ("width", "depth", "heads", "patch")}
    assert fields == {"width": 12, "depth": 2, "heads": 3, "patch": 4}
    assert model.image_size == (side, side) and model.preprocess.mean == (0.1, 0.2, 0.3)
    images = np.random.default_rng(0).normal(size=(2, side, side, 3)).astype(np.float32)
    expected, _ = torch_vits.forward(arrays, images)
    np.testing.assert_allclose(model.run(images)[0], expected, atol=1e-4)
    # What is written down makes the same network again.
    record = model.provenance
    assert models.create(record["family"], record["variant"], **record["fields"]) == model.module


def test_transformers_config_decides(tmp_path):
    arrays = torch_vits.state((8, 8), scale=True)
    config = {"model_type": "dinov2", "hidden_size": 12, "num_hidden_layers": 2, "patch_size": 4}
    config |= {"num_attention_heads": 3, "image_size": 32, "layer_norm_eps": 1e-6}
    folder = save(tmp_path, torch_vits.hugging_face(arrays, "dinov2."), config)
    half = {"mean": [0.5] * 3, "std": [0.5] * 3}
    model = vitcnn.load(os.fspath(folder), preprocess=half)
    assert (model.module.gelu, model.module.epsilon) == ("exact", 1e-6)
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    np.testing.assert_allclose(
        model.run(images)[0], torch_vits.forward(arrays, images)[0], atol=1e-4
    )


def test_fields_of_the_caller_win_and_are_compared(tmp_path):
    folder = save(tmp_path, torch_vits.state((8, 8)), {**VIT, "num_classes": 5})
    assert vitcnn.load(folder, image_size=16).image_size == (16, 16)
    assert vitcnn.load(folder, num_classes=3, new_head=True).classes == 3
    with pytest.warns(UserWarning, match="heads = 4, where the JSON beside the weights says 3"):
        assert vitcnn.load(folder, heads=4).module.heads == 4
    with pytest.raises(ValueError, match=r"of another shape \(\d+\)"):
        vitcnn.load(folder, width=24)
    with pytest.raises(ValueError, match="unknown field of vit 'hads': did you mean 'heads'"):
        vitcnn.load(folder, hads=4)


def test_json_and_arrays_that_differ_are_refused(tmp_path):
    config = {**VIT, "model_args": {"num_heads": 3}}
    folder = save(tmp_path, torch_vits.state((8, 8)), config)
    with pytest.raises(ValueError, match=r"arrays have width = 12, and the JSON .* says 768"):
        vitcnn.load(folder)
    config = {"model_type": "vit", "num_hidden_layers": 3, "num_attention_heads": 3}
    folder = save(tmp_path, torch_vits.hugging_face(torch_vits.state((8, 8)), "vit."), config)
    with pytest.raises(ValueError, match=r"arrays have depth = 2, and the JSON .* says 3"):
        vitcnn.load(folder)


def test_weights_that_name_no_network_are_refused(tmp_path):
    folder = save(tmp_path, torch_vits.state((8, 8)))
    with pytest.raises(ValueError, match="does not say which network it holds: networks that"):
        vitcnn.load(folder)
    with pytest.raises(ValueError, match="family 'vit', and 'resnet50' is of the family"):
        vitcnn.load("resnet50", weights=folder)
    with pytest.raises(ValueError, match="family 'vit', and 'resnet' is of the family 'resnet'"):
        vitcnn.load("resnet", weights=folder)
    half = {"mean": [0.5] * 3, "std": [0.5] * 3}
    unseen = {"heads": 3, "gelu": "exact", "epsilon": 1e-6, "norm_after": False, "pool": "token"}
    with pytest.raises(ValueError, match="does not say which network it holds"):
        vitcnn.load(folder, heads=3, gelu="exact", epsilon=1e-6, norm_after=False)
    model = vitcnn.load(folder, **unseen, preprocess=half)
    assert (model.module.heads, model.module.gelu) == (3, "exact")  # all that no array shows
    with pytest.raises(ValueError, match=r"'dino' may mean DINO-S/16, .* shapes of none"):
        vitcnn.load("dino", weights=folder)
    config = {"model_type": "vit", "patch_size": 4}
    folder = save(tmp_path, torch_vits.hugging_face(torch_vits.state((8, 8)), "vit."), config)
    with pytest.raises(ValueError, match=r"no array shows its heads, .* set heads="):
        vitcnn.load(folder)


def test_a_word_and_the_shapes_decide_together():
    """Nothing but the arrays of a DINO-S/8: the word says heads and GELU."""
    small = torch_vits.state((1, 1), classes=0)
    sizes = {12: 384, 20: 1536, 36: 1152, 4: 8, 2: 1 + 28 * 28}
    arrays = {
        key.replace(".1.", f".{block}."): np.broadcast_to(
            np.float32(0), [sizes.get(side, side) for side in value.shape]
        )
        for key, value in small.items()
        for block in (range(1, 12) if ".1." in key else (0,))
    }
    contents = Contents(arrays)
    file = checkpoints.read_file("a.pth", contents=contents, sha256="0" * 64)
    network = checkpoints.identify(file, {}, "dino").network
    assert (network.family, network.variant) == ("vit", "DINO-S/8")
    network = checkpoints.identify(file, {}, "vit_small_patch8_224").network
    assert (network.variant, network.fields["gelu"]) == ("S/8", "exact")


def test_a_word_of_several_networks_of_the_same_shapes_needs_a_field():
    """CLIP-B/32 has two GELUs, which no array shows."""
    module = models.create("vit", "CLIP-B/32")
    shapes, _ = shapes_of(module)
    arrays = {
        name.removeprefix("params/"): np.broadcast_to(np.float32(0), leaf.shape)
        for name, leaf in checkpoints.flat(shapes).items()
    }
    file = checkpoints.read_file("a.npz", contents=Contents(arrays), sha256="0" * 64)
    with pytest.raises(ValueError, match=r"B/32 \(gelu='exact'\), .*'quick'\): set gelu, or name"):
        checkpoints.identify(file, {}, "clip")
    network = checkpoints.identify(file, {"gelu": "quick"}, "clip").network
    assert network.variant in ("CLIP-B/32", "CLIP-B/32-quickgelu")


def test_a_name_and_a_path_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "resnet50", torch_vits.state((8, 8)), {**VIT, "num_classes": 5})
    with pytest.raises(ValueError, match="'resnet50' is the name of a network and"):
        vitcnn.load("resnet50")
    assert vitcnn.load("./resnet50").provenance["family"] == "vit"


def test_a_training_run_is_its_own_name(tmp_path):
    module = models.create("vit", "mini/4", width=12, depth=1, mlp_dim=8, heads=3)
    shapes = jax.eval_shape(module.init, jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
    variables = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes)
    checkpoints.export(tmp_path / "weights.npz", variables)
    fields = {"width": 12, "depth": 1, "mlp_dim": 8, "heads": 3}
    run = {"family": "vit", "variant": "mini/4", "fields": fields}
    run["preprocess"] = {"mean": [0.5] * 3, "std": [0.5] * 3}
    (tmp_path / "run.json").write_text(json.dumps({"model": run}))
    model = vitcnn.load(tmp_path)
    assert (model.provenance["variant"], model.module.width) == ("mini/4", 12)
    with pytest.raises(ValueError, match="holds vit mini/4, not resnet"):
        vitcnn.load("resnet", weights=tmp_path)


def test_resnets_follow_from_their_arrays(tmp_path):
    arrays, ours = torch_resnets.state(True)
    sizes = {"layers": [1, 2, 1, 1], "channels": [8, 16, 32, 64]}
    config = {"architecture": "resnet50", "model_args": sizes, "pretrained_cfg": CFG}
    model = vitcnn.load(save(tmp_path, arrays, config))
    module = model.module
    assert (module.units, module.widths) == ((1, 2, 1, 1), (8, 16, 32, 64))
    assert (module.padding, module.stride_conv, module.bottleneck) == ("both", 2, True)
    assert model.image_size == (32, 32) and model.classes == 5
    variables = checkpoints.flat(model.variables)
    assert variables.keys() == ours.keys()
    for name, value in ours.items():
        np.testing.assert_array_equal(variables[name], np.float32(value))


def test_every_family_has_its_file():
    for family in families.names():
        reader = families.find(family)
        network = models.network(family)
        assert set(reader.UNSEEN) <= set(network.__dataclass_fields__)
        for beginning in reader.NAMES.values():
            assert any(v.startswith(beginning) for v in models.variants(family))
        for architecture in reader.OTHER_NAMES.values():
            assert timm.architecture(architecture)[0] == family


def test_a_config_needs_nothing_but_the_weights(tmp_path):
    folder = save(tmp_path, torch_vits.state((8, 8)), {**VIT, "num_classes": 5})
    measured = measurement()
    measured.models.network = model(weights="")
    measured.models.other = model("vit", weights=os.fspath(folder), image_size=16)
    measured.data = source("scenes", size=8)
    measured.analyses.cka = analysis("cka", models=("network",))
    with pytest.raises(ValueError, match=r"config.models.network.weights is empty"):
        check_measurement(measured)
    measured.models.network.weights = os.fspath(folder)
    loaded = load_models(check_measurement(measured).models)
    assert loaded["network"].provenance["family"] == "vit"
    assert [m.image_size for m in loaded.values()] == [(32, 32), (16, 16)]
    measured.models.network = model("vit", weights="random")
    with pytest.raises(ValueError, match=r"config.models.network.variant is not set"):
        check_measurement(measured)
