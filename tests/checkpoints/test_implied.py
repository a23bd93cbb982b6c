"""What lies beside weights, or in the file around them, and changes what their network computes."""

import argparse
import json

import numpy as np
import pytest
import running
import torch_resnets
import torch_vits

import vitcnn
from vitcnn import checkpoints
from vitcnn.checkpoints import published, sidecars
from vitcnn.checkpoints.sidecars import timm

HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
CFG = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "input_size": [3, 32, 32]}
VIT = {"architecture": "vit_base_patch16_224", "pretrained_cfg": CFG}
FIELDS = {**torch_vits.SIZES, "num_classes": 5, "patch": 4, "image_size": 32}


@pytest.fixture(scope="module")
def arrays():
    return torch_vits.state((8, 8))


def load(folder, arrays, config=None, processor=None, family="vit", variant="mini/4", **fields):
    """Loads weights with the JSON beside them."""
    folder.mkdir(exist_ok=True)
    torch_vits.save(folder / "model.safetensors", arrays)
    for name, content in (("config", config), ("preprocessor_config", processor)):
        if content is not None:
            (folder / f"{name}.json").write_text(json.dumps(content))
    return vitcnn.load(family, variant, folder, **{**FIELDS, "preprocess": HALF, **fields})


REFUSED_BY_TIMM = [
    ({"architecture": "vit_base_patch16_rpn_224"}, "qkv_bias = True: set pool='gap', norm_pooled"),
    (
        {"architecture": "vit_base_patch16_clip_quickgelu_224"},
        "embed_norm = False: set embed_norm=",
    ),
    (
        {"architecture": "vit_base_patch16_clip_224.laion2b"},
        "embed_norm = False: set embed_norm=Tr",
    ),
    ({"architecture": "vit_small_patch16_rope_ape_224"}, "has rotary positions .its layers Att"),
    ({"architecture": "vit_base_patch16_siglip_224"}, "has pool = 'token': set pool='map'"),
    ({"architecture": "eva_large_patch14_196"}, "norm_pooled = False: set norm_pooled=True"),
    ({"architecture": "vit_base_patch16_2244"}, "unknown architecture .* did you mean 'vit_base_p"),
    ({"architecture": "my_vit"}, "unknown architecture 'my_vit'"),
    ({"architecture": "resnet50", "model_args": {"num_heads": None}}, "of the family 'resnet'"),
    ({"global_pool": "map"}, "global_pool 'map' of an architecture with a class token"),
    ({"global_pool": "avgmax"}, "global_pool 'avgmax'"),
    ({"model_args": {"act_layer": "silu"}}, "act_layer is 'silu'; expected one of"),
    ({"model_args": {"norm_layer": "rmsnorm"}}, "norm_layer is 'rmsnorm'; expected 'layernorm'"),
    ({"model_args": {"block_fn": "ResPostBlock"}}, "does not know what block_fn 'ResPostBlock'"),
    ({"model_args": {"in_chans": 1}}, "in_chans is 1; expected 3"),
    ({"model_args": {"dynamic_img_pad": True}}, "dynamic_img_pad is True; expected False"),
    ({"model_args": {"pool_include_prefix": True}}, "pool_include_prefix is True"),
    ({"model_args": {"pos_embed": "rope"}}, "pos_embed is 'rope'; expected 'learn'"),
    ({"model_args": {"attn_scale": 2}}, "does not know what attn_scale 2 changes"),
    ({"architectur": "vit"}, "does not know what architectur 'vit' changes .*'architecture'"),
    ({"num_classes": 7}, "a head of 5 classes, and the JSON beside the weights says 7"),
    ({"pretrained_cfg": {**CFG, "label_offset": 1}}, "label_offset 1"),
    ({"pretrained_cfg": {**CFG, "input_size": [1, 32, 32]}}, "input_size is .*networks here take"),
    ({"pretrained_cfg": {**CFG, "colour_space": "BGR"}}, "does not know what colour_space 'BGR'"),
]


@pytest.mark.parametrize(("config", "message"), REFUSED_BY_TIMM)
def test_what_timm_says_and_we_do_not_compute_is_refused(tmp_path, arrays, config, message):
    config = {**VIT, **config}
    config["model_args"] = {"num_heads": 3, **config.get("model_args", {})}
    with pytest.raises(ValueError, match=message):
        load(tmp_path, arrays, config)


def test_heads_of_an_architecture_are_compared_and_the_caller_wins(tmp_path, arrays):
    twelve = {k: v for k, v in FIELDS.items() if k != "heads"}
    torch_vits.save(tmp_path / "model.safetensors", arrays)
    (tmp_path / "config.json").write_text(json.dumps({**VIT, "num_classes": 5}))
    with pytest.raises(ValueError, match=r"has heads = 3: set heads=12"):
        vitcnn.load("vit", "mini/4", tmp_path, **twelve)
    with pytest.warns(UserWarning, match="heads = 3, where the JSON beside the weights says 12"):
        model = vitcnn.load("vit", "mini/4", tmp_path, **FIELDS)
    assert model.provenance["weights"]["contradicted"]
    assert model.module.gelu == "exact" and model.preprocess.mean == (0.1, 0.2, 0.3)


def test_tanh_gelu_of_timm_is_adopted(tmp_path, arrays):
    config = {**VIT, "model_args": {"act_layer": "gelu_tanh", "num_heads": 3}}
    model = load(tmp_path, arrays, config)
    assert model.module.gelu == "tanh"
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    exact = torch_vits.forward(arrays, images)[0]
    assert np.abs(model.run(images)[0] - exact).max() > 1e-4


def test_old_files_of_timm_have_everything_at_the_top(tmp_path, arrays):
    config = {"architecture": "vit_base_patch16_224_in21k", "num_classes": 5, "labels": [], **CFG}
    model = load(tmp_path, arrays, {**config, "model_args": {"num_heads": 3}}, preprocess=None)
    assert model.preprocess.mean == (0.1, 0.2, 0.3)


def test_arguments_change_what_an_architecture_has():
    """timm makes its own LayerNorm of the name "layernorm", whatever the architecture has."""

    def fields(architecture, **arguments):
        return timm.read({"architecture": architecture, "model_args": arguments}).fields

    clip, giant = "vit_base_patch16_clip_224", "vit_giant_patch14_dinov2"
    assert fields(clip)["epsilon"] == 1e-5
    assert fields(clip, norm_layer="layernorm")["epsilon"] == 1e-6
    assert fields(giant, act_layer="silu") == fields(giant)
    with pytest.raises(ValueError, match="act_layer is 'gelu'; expected 'silu' or 'swish'"):
        fields(giant, act_layer="gelu")
    stem = fields("resnet50", stem_type="deep", avg_down=True, replace_stem_pool=True)
    assert stem.keys().isdisjoint({"stem_widths", "stem_kernel"})  # the arrays show them
    assert (stem["shortcut_pool"], stem["stem_pool_conv"]) == (True, True)
    gated = fields("resnet50", block_args={"attn_layer": "se"}, norm_layer="groupnorm")
    assert (gated["attention"], gated["norm"]) == ("se", "plain_group")
    with pytest.raises(ValueError, match=r"does not know what rd_ratio 0.5 changes"):
        fields("resnet50", block_args={"attn_layer": "se", "rd_ratio": 0.5})
    with pytest.raises(ValueError, match=r"attn_layer is 'cbam'; expected one of"):
        fields("resnet50", block_args={"attn_layer": "cbam"})
    with pytest.raises(ValueError, match="stem_type is 'fixed'; expected"):
        fields("resnetv2_50", stem_type="fixed")


@pytest.mark.parametrize(
    ("config", "field", "value"),
    [
        ({"global_pool": "avg"}, "pool", "clsgap"),
        ({"model_args": {"global_pool": "avg"}}, "pool", "clsgap"),
        ({"model_args": {"act_layer": "quick_gelu"}}, "gelu", "quick"),
    ],
)
def test_what_timm_says_of_pool_and_gelu_is_taken(tmp_path, arrays, config, field, value):
    config = {**VIT, **config}
    config["model_args"] = {"num_heads": 3, **config.get("model_args", {})}
    model = load(tmp_path, arrays, config)
    assert getattr(model.module, field) == value


REFUSED_BY_TRANSFORMERS = [
    ({"hidden_act": "quick_gelu"}, "hidden_act is 'quick_gelu'; expected one of"),
    ({"hidden_act": "relu"}, "hidden_act is 'relu'; expected one of"),
    ({"pooler_act": "relu"}, "pooler_act is 'relu'; expected 'tanh'"),
    ({"num_attention_heads": 4}, "has heads = 3: set heads=4"),
    ({"patch_size": 16}, "has patch = 4: set patch=16"),
    ({"hidden_size": 24}, "has width = 12: set width=24"),
    ({"num_channels": 1}, "num_channels is 1; expected 3"),
    ({"model_type": "vit_mae"}, "model_type is 'vit_mae'; expected one of"),
    ({"model_type": "yolos"}, "model_type is 'yolos'; expected one of"),
    ({"model_type": "resnet"}, "does not know what|of the family 'resnet'"),
    ({"id2label": {"0": "cat", "1": "dog"}}, "a head of 5 classes, .* says 2"),
    ({"pruned_heads": {"0": [1]}}, "pruned_heads is"),
    ({"quantization_config": {"bits": 8}}, "quantization_config is"),
    ({"rope_theta": 100.0}, "does not know what rope_theta 100.0 changes"),
    ({"attention_type": "linear"}, "does not know what attention_type 'linear' changes"),
    ({"layer_norm_eps": 0}, "layer_norm_eps is 0; expected a number above 0"),
]


@pytest.mark.parametrize(("config", "message"), REFUSED_BY_TRANSFORMERS)
def test_what_transformers_says_and_we_do_not_compute_is_refused(tmp_path, arrays, config, message):
    names = torch_vits.hugging_face(arrays, "vit.")
    unset = {"heads", "patch", "width"} & {
        {"num_attention_heads": "heads", "patch_size": "patch", "hidden_size": "width"}.get(key)
        for key in config
    }
    torch_vits.save(tmp_path / "model.safetensors", names)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit", **config}))
    fields = {k: v for k, v in FIELDS.items() if k not in unset}
    variant = "mini/4"
    with pytest.raises(ValueError, match=message.replace("width = 12", "width = 96")):
        vitcnn.load("vit", variant, tmp_path, preprocess=HALF, **fields)


def test_epsilon_of_transformers_is_that_of_its_type(tmp_path, arrays):
    names = torch_vits.hugging_face(arrays, "vit.")
    config = {"architectures": ["ViTForImageClassification"], "transformers_version": "4.40.0"}
    assert load(tmp_path, names, {"model_type": "vit", **config}).module.epsilon == 1e-12
    assert load(tmp_path, names, {"model_type": "dinov2", **config}).module.epsilon == 1e-6
    assert load(tmp_path, names, {"hidden_act": "gelu_new"}).module.gelu == "tanh"


def resnet(folder, config, variant="18"):
    folder.mkdir(exist_ok=True)
    torch_vits.save(
        folder / "model.safetensors", torch_resnets.hugging_face(torch_resnets.state(True)[0])
    )
    (folder / "config.json").write_text(json.dumps(config))
    fields = {"units": (1, 2, 1, 1), "widths": (8, 16, 32, 64), "num_classes": 5, "image_size": 64}
    return vitcnn.load("resnet", variant, folder, preprocess=HALF, **fields)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"hidden_act": "silu"}, "hidden_act is 'silu'; expected 'relu'"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'; expected 'relu'"),
        ({"downsample_in_first_stage": True}, "downsample_in_first_stage is True; expected False"),
        ({"downsample_in_bottleneck": "yes"}, "downsample_in_bottleneck is 'yes'"),
        ({"depths": [2, 2, 2, 2]}, None),  # the caller's units, which the arrays confirm
        ({"norm_type": "frozen"}, "does not know what norm_type 'frozen'"),
    ],
)
@pytest.mark.parametrize("model_type", [{"model_type": "resnet"}, {}])
def test_resnets_of_transformers(tmp_path, config, message, model_type):
    if message is None:
        resnet(tmp_path, {**model_type, **config}, "50")
        return
    with pytest.raises(ValueError, match=message):
        resnet(tmp_path, {**model_type, **config}, "50")


def test_a_stride_in_the_first_convolution_is_adopted(tmp_path):
    usual = resnet(tmp_path / "a", {"model_type": "resnet"}, "50")
    first = resnet(tmp_path / "b", {"downsample_in_bottleneck": True}, "50")
    assert (usual.module.stride_conv, first.module.stride_conv) == (2, 1)
    assert first.provenance["fields"]["stride_conv"] == 1


RESNETS = {
    "ecaresnet50d_pruned": "has units of different widths in a stage",
    "gluon_senet154": "has 3x3 convolutions in its shortcuts",
    "test_resnet": "has units of two kinds",
    "resnetv2_50d_evos": "has EvoNorms .its layers EvoNorm2dS0",
    "resnet51q": "unknown architecture 'resnet51q'",
}


@pytest.mark.parametrize("name", RESNETS)
def test_architectures_that_share_arrays_with_a_resnet(name):
    with pytest.raises(ValueError, match=RESNETS[name]):
        timm.architecture(name)


def test_old_names_and_tags_are_the_same_network():
    family, fields = timm.architecture("resnet50.a1_in1k")
    assert family == "resnet" and fields["units"] == [3, 4, 6, 3] and fields["stride_conv"] == 2
    assert timm.architecture("tv_resnet50") == timm.architecture("gluon_resnet50_v1b")
    assert timm.architecture("tv_resnet50") == (family, fields)
    assert timm.architecture("resnetv2_50x1_bitm")[0] == "bit"
    assert timm.architecture("vit_giant_patch14_dinov2")[1]["gated"]


@pytest.mark.oracle
def test_tables_are_what_the_libraries_document():
    pytest.importorskip("timm", "1.0.31")
    pytest.importorskip("torchvision")
    script = running.load(running.ROOT / "scripts/list_published.py")
    folder = running.ROOT / "vitcnn/checkpoints"
    assert (
        script.architectures()
        == (folder / "sidecars/architectures.tsv").read_text().split("\n")[:-1]
    )
    assert script.published() == (folder / "published.tsv").read_text().split("\n")[:-1]


def test_names_of_classes_come_along(tmp_path, arrays):
    names = {str(i): name for i, name in enumerate(["ant", "bee", "cat", "dog", "eel"])}
    hugging_face = torch_vits.hugging_face(arrays, "vit.")
    model = load(tmp_path / "a", hugging_face, {"model_type": "vit", "id2label": names})
    assert model.provenance["weights"]["class_names"] == list(names.values())
    placeholders = {str(i): f"LABEL_{i}" for i in range(5)}
    model = load(tmp_path / "a", hugging_face, {"model_type": "vit", "id2label": placeholders})
    assert "class_names" not in model.provenance["weights"]
    config = {**VIT, "label_names": list(names.values()), "num_classes": 5}
    model = load(tmp_path / "b", arrays, {**config, "model_args": {"num_heads": 3}})
    assert model.provenance["weights"]["class_names"] == list(names.values())


# Two sources for one name.


def test_two_keys_that_meet_are_an_error(tmp_path, arrays):
    both = {**{f"module.{k}": v for k, v in arrays.items()}, "norm.weight": np.ones(12, "f4")}
    with pytest.raises(ValueError, match=r"'module.norm.weight' and 'norm.weight' would both be"):
        load(tmp_path, both)
    names = torch_vits.hugging_face(arrays, "vit.")
    twice = {**names, "deit.layernorm.weight": np.ones(12, "f4")}
    with pytest.raises(ValueError, match=r"'vit.layernorm.weight' and 'deit.layernorm.weight'"):
        load(tmp_path, twice)
    twice = {
        **arrays,
        "reg_token": np.ones((1, 1, 12), "f4"),
        "register_tokens": np.ones((1, 1, 12)),
    }
    with pytest.raises(ValueError, match="'reg_token' and 'register_tokens' would both be"):
        load(tmp_path, twice, registers=1)


@pytest.mark.parametrize("prefixes", [("student.", "teacher."), ("model.", "ema."), ("", "ema.")])
def test_average_chooses_between_prefixes(tmp_path, arrays, prefixes):
    plain, average = prefixes
    other = torch_vits.state((8, 8), seed=1)
    file = {f"{plain}{k}": v for k, v in arrays.items()}
    file |= {f"{average}{k}": v for k, v in other.items()}
    model = load(tmp_path, file)
    assert model.digest() == load(tmp_path, other).digest()
    assert model.provenance["weights"]["network"].startswith("the moving average of")
    assert load(tmp_path, file, average=False).digest() == load(tmp_path, arrays).digest()


def test_average_chooses_between_trees_of_google(tmp_path):
    model = vitcnn.load("vit", "mini/4")
    other = vitcnn.load("vit", "mini/4", seed=1)
    flat = {k.removeprefix("params/"): v for k, v in checkpoints.flat(model.variables).items()}
    ema = {
        f"ema/{k.removeprefix('params/')}": v for k, v in checkpoints.flat(other.variables).items()
    }
    path = tmp_path / "a.npz"
    np.savez(path, **{f"params/{k}": v for k, v in flat.items()}, **ema)
    assert vitcnn.load("vit", "mini/4", path).digest() == other.digest()
    loaded = vitcnn.load("vit", "mini/4", path, average=False)
    assert loaded.digest() == model.digest()
    assert loaded.provenance["weights"]["network"].startswith("the weights of")
    again = {f"params_{k}": v for k, v in ema.items()}
    np.savez(path, **{f"params/{k}": v for k, v in flat.items()}, **ema, **again)
    with pytest.raises(ValueError, match="would both be"):
        vitcnn.load("vit", "mini/4", path)
    np.savez(path, **{f"params/{k}": v for k, v in flat.items()}, **flat)
    with pytest.raises(ValueError, match="would both be"):
        vitcnn.load("vit", "mini/4", path)


@pytest.mark.parametrize(
    ("weights", "average"),
    [("state_dict", "state_dict_ema"), ("model", "model_ema"), ("student", "teacher")],
)
def test_average_chooses_between_nests(tmp_path, arrays, weights, average):
    torch = pytest.importorskip("torch")
    other = torch_vits.state((8, 8), seed=1)
    as_torch = lambda tree: {k: torch.from_numpy(v) for k, v in tree.items()}  # noqa: E731
    file = {weights: as_torch(arrays), average: as_torch(other), "epoch": 3}
    file["args"] = argparse.Namespace(lr=0.1, model="vit_mine", betas=(0.9, 0.99))
    torch.save(file, tmp_path / "a.pth")
    options = {**FIELDS, "preprocess": HALF}
    model = vitcnn.load("vit", "mini/4", tmp_path / "a.pth", **options)
    assert model.digest() == load(tmp_path, other).digest()
    assert model.provenance["weights"]["network"] == f"{average!r} of {weights!r}, {average!r}"
    model = vitcnn.load("vit", "mini/4", tmp_path / "a.pth", average=False, **options)
    assert model.digest() == load(tmp_path, arrays).digest()
    torch.save({average: as_torch(other)}, tmp_path / "b.pth")
    with pytest.raises(ValueError, match="holds a moving average alone"):
        vitcnn.load("vit", "mini/4", tmp_path / "b.pth", average=False, **options)
    torch.save({"model": as_torch(arrays), "state_dict": as_torch(other)}, tmp_path / "c.pth")
    with pytest.raises(ValueError, match="holds several networks, 'state_dict', 'model'"):
        vitcnn.load("vit", "mini/4", tmp_path / "c.pth", **options)


def test_the_architecture_in_a_checkpoint_counts(tmp_path, arrays):
    torch = pytest.importorskip("torch")
    state = {k: torch.from_numpy(v) for k, v in arrays.items()}
    args = argparse.Namespace(model="vit_small_patch16_rope_ape_224")
    for file in ({"arch": "vit_small_patch16_rope_ape_224"}, {"args": args}, {"args": vars(args)}):
        torch.save({"state_dict": state, **file}, tmp_path / "a.pth")
        with pytest.raises(ValueError, match=r"has rotary positions"):
            vitcnn.load("vit", "mini/4", tmp_path / "a.pth", preprocess=HALF, **FIELDS)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ["quantised", "sparse", "meta", "complex"])
def test_tensors_that_are_no_arrays_are_named(tmp_path, kind):
    torch = pytest.importorskip("torch")
    zeros = torch.zeros(3, 3)
    tensor = {
        "quantised": lambda: torch.quantize_per_tensor(zeros, 0.1, 0, torch.qint8),
        "sparse": zeros.to_sparse,
        "meta": lambda: torch.zeros(3, 3, device="meta"),
        "complex": lambda: zeros.to(torch.complex64),
    }[kind]()
    torch.save({"a.weight": tensor, "b.weight": zeros}, tmp_path / "a.pth")
    message = f"a.pth: the tensor 'a.weight' is .*{kind}"
    with pytest.raises(ValueError, match=message):
        checkpoints.read(tmp_path / "a.pth")


def test_another_class_is_named_with_how_to_save_again(tmp_path):
    torch = pytest.importorskip("torch")
    import fractions

    torch.save(
        {"model": {}, "args": argparse.Namespace(share=fractions.Fraction(1, 2))},
        tmp_path / "a.pth",
    )
    with pytest.raises(ValueError, match=r"class fractions\.Fraction.* torch.save\("):
        checkpoints.read(tmp_path / "a.pth")


# Guessed preprocessing.


@pytest.mark.parametrize(
    ("name", "size", "resize", "interpolation"),
    [
        ("resnet50-11ad3fa6", 224, 232, "bilinear"),
        ("resnet50-0676ba61", 224, 256, "bilinear"),
        ("resnet101-cd907fc2", 224, 232, "bilinear"),
        ("resnet152-f82ba261", 224, 232, "bilinear"),
        ("vit_l_16-852ce7e3", 224, 242, "bilinear"),
        ("vit_h_14_swag-80465313", 518, 518, "bicubic"),
        ("deit_base_patch16_224-b5f2ef4d", 224, 248, "bicubic"),
    ],
)
def test_published_weights_have_the_preprocessing_of_their_library(
    tmp_path, name, size, resize, interpolation
):
    for found, certain in (
        (published.find(tmp_path / f"{name}.pth", "0" * 64), False),
        (published.find(tmp_path / "mine.pth", name[-8:] + "0" * 56), True),
    ):
        assert found.is_certain == certain
        assert (found.preprocess["size"], found.preprocess["resize"]) == ((size, size), resize)
        assert found.preprocess["interpolation"] == interpolation
        assert found.preprocess["mean"] == (0.485, 0.456, 0.406)
    assert published.find(tmp_path / "mine.pth", "0" * 64) is None


def test_a_guess_is_said_and_stands_in_provenance(tmp_path):
    torch = pytest.importorskip("torch")
    state = {k: torch.from_numpy(np.asarray(v)) for k, v in torch_resnets.state(True)[0].items()}
    fields = {"units": (1, 2, 1, 1), "widths": (8, 16, 32, 64), "num_classes": 5}
    torch.save(state, tmp_path / "resnet50-11ad3fa6.pth")
    with pytest.warns(UserWarning, match=r"torchvision's resnet50.IMAGENET1K_V2, by the name"):
        model = vitcnn.load("resnet", "50", tmp_path / "resnet50-11ad3fa6.pth", **fields)
    assert model.preprocess.resize == 232
    assert model.provenance["weights"]["preprocess"].startswith("guess: torchvision's resnet50")
    torch.save(state, tmp_path / "mine.pth")
    with pytest.warns(UserWarning, match="the format 'torchvision_resnet_torch'"):
        model = vitcnn.load("resnet", "50", tmp_path / "mine.pth", **fields)
    assert model.preprocess.resize == 256
    model = vitcnn.load("resnet", "50", tmp_path / "mine.pth", preprocess=HALF, **fields)
    assert model.preprocess.mean == (0.5, 0.5, 0.5)


def test_another_native_size_is_said(tmp_path, arrays):
    config = {"model_args": {"num_heads": 3}, "pretrained_cfg": {**CFG, "input_size": [3, 48, 48]}}
    torch_vits.save(tmp_path / "model.safetensors", torch_vits.state((12, 12)))
    (tmp_path / "config.json").write_text(json.dumps({**VIT, **config}))
    sizes = {k: v for k, v in FIELDS.items() if k not in ("image_size", "patch")}
    with pytest.warns(UserWarning, match=r"48 x 48 pixels, .* runs at 32 x 32.*set image_size=48"):
        model = vitcnn.load("vit", "mini/4", tmp_path, patch=4, **sizes)
    assert model.image_size == (32, 32)
    assert model.provenance["weights"]["native_size"] == [48, 48]
    model = vitcnn.load("vit", "mini/4", tmp_path, patch=4, image_size=48, **sizes)
    assert "native_size" not in model.provenance["weights"]


def test_positions_of_another_size_than_the_json_says_are_refused(tmp_path, arrays):
    config = {"model_args": {"num_heads": 3}, "pretrained_cfg": {**CFG, "input_size": [3, 64, 64]}}
    message = "positions for images of 32 x 32 pixels, and the JSON .* says 64 x 64"
    for size in (32, 64):
        with pytest.raises(ValueError, match=message):
            load(tmp_path, arrays, {**VIT, **config}, image_size=size)


@pytest.mark.parametrize(
    "name", ["LevitImageProcessor", "BlipImageProcessor", "ViTHybridImageProcessor"]
)
def test_unknown_processors_are_refused(tmp_path, name):
    content = {"image_processor_type": name, "image_mean": [0, 0, 0], "image_std": [1, 1, 1]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**content, "size": 32}))
    with pytest.raises(ValueError, match=f"the processor '{name}'"):
        sidecars.read_published(tmp_path / "model.safetensors")


def test_json_that_nobody_wrote_is_refused(tmp_path):
    for text, message in (
        ('{"learning_rate": 0.1}', "neither the architecture of timm nor the model_type"),
        ('{"model_type": "vit", "model_type": "vit"}', "'model_type' stands there twice"),
        ("[1]", "holds a list, expected an object"),
    ):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            sidecars.read_published(tmp_path / "model.safetensors")
