"""Image towers of CLIP and SigLIP: OpenAI's archive, open_clip, and transformers' own networks."""

import json
import pickle
import warnings
import zipfile

import numpy as np
import pytest
import torch_clip
import torch_vits

import vitcnn
from vitcnn import checkpoints, models
from vitcnn.checkpoints import families
from vitcnn.checkpoints.files import torchscript
from vitcnn.checkpoints.files.contents import Contents

HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
FIELDS = {**torch_clip.SIZES, "num_classes": 0, "image_size": 12}
CLIPS_NUMBERS = (0.48145466, 0.4578275, 0.40821073)


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


def load(path, **fields):
    return vitcnn.load("vit", "CLIP-B/16", path, **{"preprocess": HALF, **FIELDS, **fields})


def expect(torch, clip, model):
    """Fails unless embeddings and blocks are those of the network of torch."""
    images = np.random.default_rng(0).normal(size=(2, 12, 12, 3)).astype(np.float32)
    seen = []
    hooks = [
        block.register_forward_hook(lambda _, __, out: seen.append(out.permute(1, 0, 2).numpy()))
        for block in clip.visual.transformer.resblocks
    ]
    with torch.no_grad():
        embeddings = clip.visual(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    for hook in hooks:
        hook.remove()
    got, taps = model.run(images, ("block*/out", "projection"))
    for ours, theirs in zip(taps.values(), [*seen, embeddings], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * theirs.std())
    np.testing.assert_array_equal(got, taps["projection"])


def test_an_archive_of_openai_is_read_and_its_gelu_known(torch, tmp_path):
    clip = torch_clip.network(torch, quick=True).half().float()  # OpenAI's numbers have 16 bits
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of its own modules, and of such archives
        archive = torch.jit.trace(clip, torch.zeros(1, 3, 12, 12))
        archive.half().save(tmp_path / "ViT-B-16.pt")
        clip.float()  # its numbers are those of the archive
    with pytest.warns(UserWarning, match="takes the preprocessing of the format 'clip_vit_torch'"):
        model = load(tmp_path / "ViT-B-16.pt", preprocess=None)
    assert (model.module.gelu, model.module.epsilon) == ("quick", 1e-5)
    np.testing.assert_allclose(model.preprocess.mean, CLIPS_NUMBERS)
    expect(torch, clip, model)
    tower = load(tmp_path / "ViT-B-16.pt", projection=0)
    assert list(tower.taps)[-1] == "pooled"


@pytest.mark.parametrize("quick", [False, True])
def test_files_of_open_clip_need_their_json_or_the_gelu(torch, tmp_path, quick):
    clip = torch_clip.network(torch, quick)
    path = torch_vits.save(tmp_path / "open_clip_model.safetensors", torch_clip.state(clip))
    with pytest.raises(ValueError, match='does not say its gelu: set gelu="quick" for weights of'):
        load(path)
    gelu = "quick" if quick else "exact"
    stated = load(path, gelu=gelu)
    config = {
        "model_cfg": {
            "embed_dim": 7,
            "quick_gelu": quick,
            "vision_cfg": {
                **{"image_size": 12, "layers": 2, "width": 24, "head_width": 8, "patch_size": 4}
            },
            "text_cfg": {"width": 8},
        },
        "preprocess_cfg": {"mean": [0.1, 0.2, 0.3], "std": [1, 1, 1], "interpolation": "bilinear"},
    }
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    model = load(path, preprocess=None)
    assert model.module.gelu == gelu
    assert (model.preprocess.mean, model.preprocess.interpolation) == ((0.1, 0.2, 0.3), "bilinear")
    assert model.digest() == stated.digest()
    expect(torch, clip, model)
    config["model_cfg"]["vision_cfg"]["attentional_pool"] = True
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"open_clip_config.json .*attentional_pool is True"):
        load(path)


def test_a_network_of_timm_in_a_file_of_open_clip(tmp_path):
    made = torch_vits.state((8, 8), classes=0)
    trunk = {f"visual.trunk.{key}": value for key, value in made.items()}
    projection = np.random.default_rng(0).normal(size=(7, 12)).astype(np.float32)
    texts = {"visual.head.proj.weight": projection, "text.x": np.ones(1), "logit_scale": np.ones(1)}
    path = torch_vits.save(tmp_path / "open_clip_model.safetensors", trunk | texts)
    config = {
        "model_cfg": {
            "vision_cfg": {
                "image_size": 32,
                "timm_model_name": "vit_base_patch16_224",
                "timm_pool": "token",
                "timm_proj": "linear",
            }
        }
    }
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    fields = {**torch_vits.SIZES, "patch": 4, "image_size": 32, "num_classes": 0}
    with pytest.warns(UserWarning, match=r"heads = 3, where the JSON beside the weights says 12"):
        model = vitcnn.load("vit", "B/16", path, preprocess=HALF, projection=7, **fields)
    assert model.module.gelu == "exact"
    np.testing.assert_array_equal(model.variables["params"]["projection"]["kernel"], projection.T)
    (tmp_path / "open_clip_config.json").unlink()
    plain = torch_vits.save(tmp_path / "a.safetensors", made)
    other = vitcnn.load("vit", "B/16", plain, preprocess=HALF, **fields)
    images = np.ones((1, 32, 32, 3), np.float32)
    np.testing.assert_array_equal(model.run(images, "pooled")[1]["pooled"], other.run(images)[0])


@pytest.mark.parametrize(("tag", "gelu"), [("openai", "quick"), ("laion2b", "exact")])
def test_weights_of_timm_have_the_gelu_of_their_training(tmp_path, tag, gelu):
    made = torch_vits.state((8, 8), classes=7)
    made |= {f"norm_pre.{name}": made[f"norm.{name}"] for name in ("weight", "bias")}
    del made["patch_embed.proj.bias"]
    made["head.bias"] = np.zeros(7, np.float32)
    path = torch_vits.save(tmp_path / "a.safetensors", made)
    fields = {**torch_vits.SIZES, "patch": 4, "image_size": 32, "preprocess": HALF}
    fields |= {"projection": 7, "num_classes": 0}
    with pytest.raises(ValueError, match=r"does not say its gelu: config\.json says it"):
        vitcnn.load("vit", "CLIP-B/16", path, **fields)
    sizes = {"embed_dim": 12, "depth": 2, "num_heads": 3, "img_size": 32, "patch_size": 4}
    config = {
        "architecture": "vit_base_patch16_clip_224",
        "model_args": {**sizes, "mlp_ratio": 5 / 3},
        "pretrained_cfg": {"tag": tag},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = vitcnn.load("vit", "CLIP-B/16", path, **fields)
    messages = [str(warning.message) for warning in caught]
    assert ["was trained with gelu='quick'" in text for text in messages] == [True] * (
        tag == "openai"
    )
    assert (model.module.gelu, model.module.epsilon) == (gelu, 1e-5)
    kernel = model.variables["params"]["projection"]["kernel"]
    np.testing.assert_array_equal(kernel, made["head.weight"].T)


PATCH32, QUICK = "vit_base_patch32_clip_224", "vit_base_patch32_clip_quickgelu_224"


def tower_of_timm(folder, config=None):
    """Writes the image tower of a CLIP as timm does, with or without JSON."""
    arrays = torch_vits.state((8, 8), classes=7)
    arrays |= {f"norm_pre.{name}": arrays[f"norm.{name}"] for name in ("weight", "bias")}
    del arrays["patch_embed.proj.bias"]
    folder.mkdir()
    torch_vits.save(folder / "model.safetensors", arrays)
    sizes = {"embed_dim": 12, "depth": 2, "num_heads": 3, "img_size": 32, "patch_size": 4}
    if config is not None:
        architecture, tag, arguments = config
        cfg = {"mean": [0.5] * 3, "std": [0.5] * 3, "input_size": [3, 32, 32], "tag": tag}
        arguments = {**sizes, "mlp_ratio": 5 / 3, **arguments}
        config = {"architecture": architecture, "pretrained_cfg": cfg, "model_args": arguments}
        (folder / "config.json").write_text(json.dumps(config))
    return folder


TANH = {"act_layer": "gelu_tanh"}
TOWER = {**torch_vits.SIZES, "patch": 4, "image_size": 32, "num_classes": 7}
TOWER.pop("gelu", None)
# (name that the caller gives, JSON or None) -> the GELU, and whether timm computes another one.
TAGS = {
    "the tag": (("", (PATCH32, "openai", {})), "quick", True),
    "the tag, with a bare name": ((PATCH32, (PATCH32, "openai", {})), "quick", True),
    "the same tag twice": ((f"{PATCH32}.openai", (PATCH32, "openai", {})), "quick", True),
    "the name of the tag's network": ((QUICK, (PATCH32, "openai", {})), "quick", True),
    "another tag": ((PATCH32, (PATCH32, "laion2b_e16", {})), "exact", False),
    "a tag that trained on": (("", (PATCH32, "openai_ft_in1k", {})), "exact", False),
    "no tag": (("", (PATCH32, None, {})), "exact", False),
    "an architecture": (("", (QUICK, "openai", {})), "quick", False),
    "an argument": ((PATCH32, (PATCH32, "laion2b_e16", TANH)), "tanh", False),
}
CONTRADICTIONS = {
    "two tags": (f"{PATCH32}.laion2b_e16", (PATCH32, "openai", {})),
    "two architectures": (QUICK, (PATCH32, "laion2b_e16", {})),
    "tag and argument": (f"{PATCH32}.openai", (PATCH32, "openai", TANH)),
}


@pytest.mark.parametrize("case", TAGS)
def test_name_tag_and_json_decide_the_gelu_together(tmp_path, case):
    (name, config), gelu, differs = TAGS[case]
    folder = tower_of_timm(tmp_path / "a", config)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = vitcnn.load(name, weights=folder, **TOWER) if name else vitcnn.load(folder)
    assert model.module.gelu == gelu
    assert any("trained with gelu='quick'" in str(w.message) for w in caught) == differs


@pytest.mark.filterwarnings("ignore:.*was trained with")
@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_a_name_that_contradicts_the_json_is_refused(tmp_path, case):
    name, config = CONTRADICTIONS[case]
    folder = tower_of_timm(tmp_path / "a", config)
    with pytest.raises(ValueError, match=rf"the architecture '{name}' has gelu = .* correct one"):
        vitcnn.load(name, weights=folder, **TOWER)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert vitcnn.load(name, weights=folder, gelu="tanh", **TOWER).module.gelu == "tanh"


def test_a_tag_counts_without_weights():
    networks = [checkpoints.named(name) for name in (PATCH32, f"{PATCH32}.laion2b_e16", QUICK)]
    with pytest.warns(UserWarning, match=f"{PATCH32}.openai was trained with gelu='quick'"):
        networks.append(checkpoints.named(f"{PATCH32}.openai"))
    made = [models.create(n.family, n.variant, **n.fields) for n in networks]
    assert [module.gelu for module in made] == ["exact", "exact", "quick", "quick"]


def test_a_name_that_contradicts_an_archive_is_refused(torch, tmp_path):
    arrays = torch_clip.state(torch_clip.network(torch, quick=True))
    arrays |= {n: np.ones(1) for n in ("input_resolution", "context_length", "vocab_size")}
    file = checkpoints.read_file("a.pt", contents=Contents(arrays), sha256="0" * 64)
    with pytest.raises(ValueError, match=r"gelu = 'exact', and the keys of the file mean 'quick'"):
        checkpoints.identify(file, {}, PATCH32)


class _Call:
    def __reduce__(self):
        return print, ("run",)


@pytest.mark.parametrize(
    ("content", "message"),
    [(_Call(), "it calls __builtin__.print, which is no part of a tensor"), (b"", None)],
)
def test_nothing_in_an_archive_is_run(tmp_path, capsys, content, message):
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps(content, protocol=2) if message else b"\x80")
        archive.writestr("a/constants.pkl", b"")
    assert torchscript.is_archive(path)
    with pytest.raises(ValueError, match=message or "a.pt is no readable TorchScript archive"):
        torchscript.read(path)
    assert capsys.readouterr().out == ""


# The networks of transformers themselves.

SMALL = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 64,
    "patch_size": 8,
}
TOWERS = {
    "CLIPVisionModel": ("CLIPVisionConfig", "CLIP-B/16", {"hidden_act": "quick_gelu"}),
    "CLIPVisionModelWithProjection": ("CLIPVisionConfig", "CLIP-B/16", {"hidden_act": "gelu"}),
    "SiglipVisionModel": ("SiglipVisionConfig", "SigLIP-B/16", {}),
}


@pytest.mark.oracle
@pytest.mark.parametrize("size", [24, 40])
@pytest.mark.parametrize("name", TOWERS)
def test_towers_of_transformers(torch, tmp_path, name, size):
    transformers = pytest.importorskip("transformers")
    config_class, variant, others = TOWERS[name]
    config = getattr(transformers, config_class)(**SMALL, image_size=size, **others)
    network = getattr(transformers, name)(config).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for key, value in network.named_parameters():
            scale = 0.3 if value.ndim == 1 else value[0].numel() ** -0.5
            value.copy_(scale * torch.randn(value.shape))
            value.add_(value.ndim == 1 and "norm" in key and key.endswith("weight"))
    network.save_pretrained(tmp_path)
    (tmp_path / "live").mkdir()
    torch.save(network.state_dict(), tmp_path / "live/a.pth")
    projects = "Projection" in name
    fields = {"width": 48, "depth": 2, "heads": 3, "mlp_dim": 64, "patch": 8, "num_classes": 0}
    fields |= {"projection": config.projection_dim} if projects else {}
    fields |= {} if projects or "Siglip" in name else {"projection": 0}
    settings = {"image_size": size, "preprocess": HALF, **fields}
    model = vitcnn.load("vit", variant, tmp_path, **settings)
    gelus = {"quick_gelu": "quick", "gelu": "exact", "gelu_pytorch_tanh": "tanh"}
    assert model.module.gelu == gelus[config.hidden_act]
    assert model.module.epsilon == config.layer_norm_eps
    live = tmp_path / "live/a.pth"
    with pytest.raises(ValueError, match=r"does not say its gelu: config\.json beside the weights"):
        vitcnn.load("vit", variant, live, **settings)
    said = {"gelu": model.module.gelu, "epsilon": model.module.epsilon}
    assert vitcnn.load("vit", variant, live, **settings, **said).digest() == model.digest()
    images = np.random.default_rng(0).normal(size=(2, size, size, 3)).astype(np.float32)
    with torch.no_grad():
        out = network(torch.from_numpy(images).permute(0, 3, 1, 2), output_hidden_states=True)
    logits, taps = model.run(images, ("embed", "block*/out"))
    for ours, theirs in zip(taps.values(), out.hidden_states, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-4 * theirs.numpy().std())
    expected = (out.image_embeds if projects else out.pooler_output).numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-4 * expected.std())


@pytest.mark.oracle
def test_tags_are_those_that_timm_documents():
    timm = pytest.importorskip("timm", "1.0.31")
    notes = {name: timm.get_pretrained_cfg(name).notes for name in timm.list_pretrained("vit*")}
    notes = {name: text for name, text in notes.items() if "quickgelu" not in name}
    documented = {name for name, text in notes.items() if "natively QuickGELU" in str(text)}
    assert documented == families.find("vit").TRAINED.keys()
    assert not any(text for name, text in notes.items() if name not in documented)
