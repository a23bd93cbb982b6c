"""Hugging Face's own networks, saved by their library: logits and every block are the same."""

import json

import jax
import numpy as np
import pytest

import vitcnn
from vitcnn import checkpoints

pytestmark = pytest.mark.oracle
SMALL = {
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "image_size": 32,
    "patch_size": 8,
}
OURS = {"width": 48, "depth": 3, "heads": 3, "patch": 8, "mlp_dim": 64, "num_classes": 0}
VITS = {
    "ViTForImageClassification": ("ViTConfig", {"num_classes": 5}),
    "ViTModel": ("ViTConfig", {"pre_logits": 48}),
    "DeiTForImageClassificationWithTeacher": ("DeiTConfig", {"num_classes": 5, "distilled": True}),
    "Dinov2Model": ("Dinov2Config", {"layer_scale": 1e-5}),
    "Dinov2WithRegistersModel": (
        "Dinov2WithRegistersConfig",
        {"layer_scale": 1e-5, "registers": 4},
    ),
    "Dinov2Model gated": ("Dinov2Config", {"layer_scale": 1e-5, "gated": True}),
    "Dinov2WithRegistersModel gated": (
        "Dinov2WithRegistersConfig",
        {"layer_scale": 1e-5, "registers": 4, "gated": True},
    ),
}


HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers")


def randomised(torch, network):
    """Every weight is away from zero, scales and variances away from one."""
    draw = torch.Generator().manual_seed(0)
    state = network.state_dict()
    for name, value in state.items():
        if value.is_floating_point():
            noise = torch.randn(value.shape, generator=draw)
            if value.ndim > 1 and "token" not in name and "position" not in name:
                noise = noise / value[0].numel() ** 0.5
            elif name.endswith(("norm.weight", "norm1.weight", "norm2.weight", "lambda1")) or (
                "layernorm" in name and name.endswith("weight")
            ):
                noise = 1 + 0.3 * noise
            elif name.endswith("normalization.weight") or name.endswith("running_var"):
                noise = 0.5 + noise**2
            elif value.ndim == 1:
                noise = 0.3 * noise
            value.copy_(noise)
    network.load_state_dict(state)
    return network.eval()


def compare(torch, network, model, images, blocks, names):
    seen = []
    for block in blocks:
        block.register_forward_hook(lambda _, __, out: seen.append(out))
    with torch.no_grad():
        out = network(torch.from_numpy(images).permute(0, 3, 1, 2))
    expected = out.logits if "logits" in out else out.pooler_output
    logits, got = model.run(images, names)
    expected = expected.flatten(1).numpy()  # pooled features of a convolutional network are 1 x 1
    np.testing.assert_allclose(logits, expected, atol=1e-4 * max(1, expected.std()))
    assert expected.std() > 0.3 and len(seen) == len(got) == len(names)
    for mine, theirs in zip(got.values(), seen, strict=True):
        theirs = (theirs[0] if isinstance(theirs, tuple) else theirs).numpy()
        theirs = theirs.transpose(0, 2, 3, 1) if theirs.ndim == 4 else theirs
        np.testing.assert_allclose(mine, theirs, atol=1e-4 * max(1, theirs.std()))


@pytest.mark.parametrize("size", [32, 48])
@pytest.mark.parametrize("name", VITS)
def test_vits(tmp_path, transformers, name, size):
    torch = pytest.importorskip("torch")
    config, fields = VITS[name]
    name, gated = name.split()[0], "gated" in fields
    hidden = {"intermediate_size": 64}
    if "Dinov2" in name:  # whose hidden layer is a multiple of the width; gated, 2/3 of that
        hidden = {"mlp_ratio": 2, "use_swiglu_ffn": gated}
    fields = {**OURS, "mlp_dim": 96 if "Dinov2" in name and not gated else 64, **fields}
    config = getattr(transformers, config)(**SMALL, **hidden, num_labels=5)
    network = randomised(torch, getattr(transformers, name)(config))
    network.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0, 0, 0], "image_std": [1, 1, 1], "size": 32})
    )
    model = vitcnn.load("vit", "B/16", tmp_path, image_size=size, **fields)
    assert model.module.epsilon == config.layer_norm_eps
    if size != 32:  # theirs resizes without antialiasing: give it our table
        config.image_size = size
        table = checkpoints.flat(model.variables)["params/Transformer/posembed_input/pos_embedding"]
        state = network.state_dict()
        key = next(key for key in state if key.endswith("position_embeddings"))
        state[key] = torch.from_numpy(np.array(table))
        network = getattr(transformers, name)(config).eval()
        network.load_state_dict(state)
    # The names that the network has in memory are not those of its files.
    # config.json speaks of the size before the table was resized, so that they lie elsewhere.
    (tmp_path / "live").mkdir()
    torch.save(network.state_dict(), tmp_path / "live/a.pth")
    live = {"weights": tmp_path / "live/a.pth", "image_size": size}
    same = vitcnn.load(
        "vit", "B/16", preprocess={"mean": (0, 0, 0), "std": (1, 1, 1)}, **live, **fields
    )
    assert same.digest() == model.digest()
    base = getattr(network, "vit", getattr(network, "deit", network))
    blocks = base.layers if hasattr(base, "layers") else base.encoder.layer
    images = np.random.default_rng(0).normal(size=(2, size, size, 3)).astype(np.float32)
    if name.startswith("Dinov2"):
        assert model.taps["block00/attn"].prefix_tokens == 1 + fields.get("registers", 0)
    compare(torch, network, model, images, blocks, [f"block{i:02d}/out" for i in range(3)])


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("size", [64, 80])
@pytest.mark.parametrize(("kind", "variant"), [("basic", "18"), ("bottleneck", "50")])
def test_resnets(tmp_path, transformers, kind, variant, size, first):
    torch = pytest.importorskip("torch")
    factor = 4 if kind == "bottleneck" else 1
    config = transformers.ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8 * factor, 16 * factor, 32 * factor],
        depths=[2, 1, 2],
        layer_type=kind,
        num_labels=5,
        downsample_in_bottleneck=first,
    )
    network = randomised(torch, transformers.ResNetForImageClassification(config))
    network.save_pretrained(tmp_path)
    fields = {"units": (2, 1, 2), "widths": (8, 16, 32), "num_classes": 5, "image_size": size}
    model = vitcnn.load("resnet", variant, tmp_path, preprocess=HALF, **fields)
    assert model.module.stride_conv == (1 if first else 2)
    blocks = [unit for stage in network.resnet.encoder.stages for unit in stage.layers]
    names = [n for n in model.taps if n.endswith("/out")]
    images = np.random.default_rng(0).normal(size=(2, size, size, 3)).astype(np.float32)
    compare(torch, network, model, images, blocks, names)
    assert jax.tree.leaves(model.variables["batch_stats"])


@pytest.mark.parametrize("size", [64, 81])
@pytest.mark.parametrize("name", ["BitForImageClassification", "BitModel", "BitBackbone"])
def test_bit(tmp_path, transformers, name, size):
    torch = pytest.importorskip("torch")
    config = transformers.BitConfig(
        embedding_size=32, hidden_sizes=[128, 256, 512], depths=[2, 1, 2], num_labels=5
    )
    network = randomised(torch, getattr(transformers, name)(config))
    network.save_pretrained(tmp_path)
    transformers.BitImageProcessor(size={"shortest_edge": 96}, crop_size=size).save_pretrained(
        tmp_path
    )
    classes = 5 if name == "BitForImageClassification" else 0
    fields = {"units": (2, 1, 2), "widths": (32, 64, 128), "num_classes": classes}
    model = vitcnn.load("bit", "R50x1", tmp_path, image_size=size, **fields)
    assert model.provenance["weights"]["format"] == "hf_bit_torch"
    assert (model.preprocess.size, model.preprocess.resize) == ((size, size), 96)
    torch.save(network.state_dict(), tmp_path / "a.pth")  # under the names that it has in memory
    live = vitcnn.load("bit", "R50x1", tmp_path / "a.pth", image_size=size, **fields)
    assert live.digest() == model.digest()
    base = getattr(network, "bit", network)
    blocks = [unit for stage in base.encoder.stages for unit in stage.layers]
    names = [n for n in model.taps if n.endswith("/out")]
    images = np.random.default_rng(0).normal(size=(2, size, size, 3)).astype(np.float32)
    compare(torch, network if classes else base, model, images, blocks, names)
