"""Real weights: the known accuracies, and logits equal to PyTorch's on the file's own arrays."""

import csv
import math

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from vitcnn import checkpoints, models

torch = pytest.importorskip("torch")
functional = torch.nn.functional

CIFAR = [
    ("vit", "cifar/4", "vit_cifar10_d128_l4.pth", 7193),
    ("resnet", "20", "resnet20-12fca82f.th", 9173),
]


def restore(path, family, variant):
    module = models.create(family, variant)
    images = jax.ShapeDtypeStruct((1, module.image_size, module.image_size, 3), jnp.float32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), images)
    return module, checkpoints.restore(path, family, module, shapes)


def normalise(images, preprocess):
    unit = images.astype(np.float32) / np.float32(255)
    return (unit - np.float32(preprocess["mean"])) / np.float32(preprocess["std"])


def state_of(path):
    content = torch.load(path, map_location="cpu", weights_only=True)
    return {
        k.removeprefix("module."): v.double() for k, v in content.get("state_dict", content).items()
    }


def channels_first(images, mean, std):
    x = torch.from_numpy(images).double() / 255
    x = (x - torch.tensor(mean, dtype=x.dtype)) / torch.tensor(std, dtype=x.dtype)
    return x.permute(0, 3, 1, 2)


def batch_norm(x, p, name, eps=1e-5):
    stats = (p[f"{name}.running_mean"], p[f"{name}.running_var"])
    return functional.batch_norm(x, *stats, p[f"{name}.weight"], p[f"{name}.bias"], eps=eps)


def torch_resnet20(p, images):
    x = channels_first(images, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    x = batch_norm(functional.conv2d(x, p["conv1.weight"], padding=1), p, "bn1").relu()
    for stage in (1, 2, 3):
        for unit in range(3):
            name, stride = f"layer{stage}.{unit}", 2 if stage > 1 and unit == 0 else 1
            y = functional.conv2d(x, p[f"{name}.conv1.weight"], stride=stride, padding=1)
            y = functional.conv2d(
                batch_norm(y, p, f"{name}.bn1").relu(), p[f"{name}.conv2.weight"], padding=1
            )
            y = batch_norm(y, p, f"{name}.bn2")
            if stride == 2:
                planes = y.shape[1]
                x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, planes // 4, planes // 4))
            x = (x + y).relu()
    return functional.linear(x.mean((2, 3)), p["linear.weight"], p["linear.bias"])


def torch_vit(p, images):
    x = channels_first(images, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
    stem = "embedding.patch_embeddings.conv"
    x = functional.conv2d(x, p[f"{stem}.weight"], p[f"{stem}.bias"], stride=4)
    x = x.flatten(2).transpose(1, 2)
    x = torch.cat([p["embedding.cls_token"].expand(len(x), -1, -1), x], dim=1)
    x = x + p["embedding.pos_embeddings"]

    def norm(x, name):
        return functional.layer_norm(x, (128,), p[f"{name}.alpha"], p[f"{name}.beta"], 1e-6)

    def linear(x, name):
        return functional.linear(x, p[f"{name}.weight"], p[f"{name}.bias"])

    for i in range(4):
        name = f"encoder.layers.{i}"
        y = norm(x, f"{name}.norm1")
        q, k, v = (
            linear(y, f"{name}.attn.{m}").unflatten(2, (4, 32)).transpose(1, 2)
            for m in ("query", "key", "value")
        )
        y = (q @ k.transpose(2, 3) / math.sqrt(32)).softmax(-1) @ v
        x = x + linear(y.transpose(1, 2).flatten(2), f"{name}.attn.out_proj")
        y = functional.gelu(linear(norm(x, f"{name}.norm2"), f"{name}.ffn.fc1"))
        x = x + linear(y, f"{name}.ffn.fc2")
    return linear(norm(x, "norm")[:, 0], "mlp_head")


def torch_keras_resnet50(p, images):
    """On BGR pixels less the mean, with the kernel as it is in the file."""
    p = {k: torch.from_numpy(np.float64(v)) for k, v in p.items()}

    def conv(x, name, stride=1, padding=0):
        kernel = p[f"{name}/kernel"].permute(3, 2, 0, 1)
        return functional.conv2d(x, kernel, p[f"{name}/bias"], stride, padding)

    def norm(x, name):
        stats = (p[f"{name}/moving_mean"], p[f"{name}/moving_variance"])
        return functional.batch_norm(x, *stats, p[f"{name}/gamma"], p[f"{name}/beta"], eps=1.001e-5)

    x = torch.from_numpy(images[..., ::-1].astype(np.float64))
    x = (x - torch.tensor([103.939, 116.779, 123.68], dtype=x.dtype)).permute(0, 3, 1, 2)
    x = norm(conv(x, "conv1", 2, 3), "bn_conv1").relu()
    x = functional.max_pool2d(functional.pad(x, (1, 1, 1, 1)), 3, 2)
    for stage, letters in ((2, "abc"), (3, "abcd"), (4, "abcdef"), (5, "abc")):
        for letter in letters:
            name = f"{stage}{letter}_branch"
            stride = 2 if stage > 2 and letter == "a" else 1
            y = norm(conv(x, f"res{name}2a", stride), f"bn{name}2a").relu()
            y = norm(conv(y, f"res{name}2b", padding=1), f"bn{name}2b").relu()
            y = norm(conv(y, f"res{name}2c"), f"bn{name}2c")
            if letter == "a":
                x = norm(conv(x, f"res{name}1", stride), f"bn{name}1")
            x = (x + y).relu()
    return x.mean((2, 3)) @ p["fc1000/kernel"] + p["fc1000/bias"]


def imagenet_samples(shared_data, rows):
    """Centre crops of 224 pixels of images whose short side is 256, and their labels."""
    with (shared_data / "imagenet_samples/labels.csv").open() as file:
        rows = list(csv.DictReader(file))[rows]
    crops = []
    for row in rows:
        image = PIL.Image.open(shared_data / "imagenet_samples" / row["file"]).convert("RGB")
        assert min(image.size) == 256
        left, top = ((side - 224) // 2 for side in image.size)
        crops.append(np.asarray(image.crop((left, top, left + 224, top + 224))))
    return np.stack(crops), np.array([int(row["label"]) for row in rows])


@pytest.mark.slow
@pytest.mark.parametrize(("family", "variant", "file", "right"), CIFAR)
def test_cifar10_accuracy_is_the_known_one(shared_data, family, variant, file, right):
    module, restored = restore(shared_data / "weights" / file, family, variant)
    run = jax.jit(lambda images: module.apply(restored.variables, images).argmax(-1))
    with np.load(shared_data / "cifar10_test.npz") as data:
        images, labels = data["image"], data["label"]
    guesses = [
        run(normalise(images[i : i + 500], restored.preprocess)) for i in range(0, 10_000, 500)
    ]
    assert int((np.concatenate(guesses) == labels).sum()) == right


@pytest.mark.parametrize(
    ("family", "variant", "file", "oracle"),
    [(*CIFAR[0][:3], torch_vit), (*CIFAR[1][:3], torch_resnet20)],
)
def test_cifar10_logits_are_pytorchs(shared_data, family, variant, file, oracle):
    path = shared_data / "weights" / file
    module, restored = restore(path, family, variant)
    with np.load(shared_data / "cifar10_test.npz") as data:
        images = data["image"][:64]
    expected = oracle(state_of(path), images).numpy()
    assert np.abs(expected).max() > 3
    logits = jax.jit(module.apply)(restored.variables, normalise(images, restored.preprocess))
    np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_deeper_cifar_resnet_is_restored_too(shared_data):
    module, restored = restore(shared_data / "weights/resnet56-4bfd9763.th", "resnet", "56")
    with np.load(shared_data / "cifar10_test.npz") as data:
        images, labels = data["image"][:500], data["label"][:500]
    logits = jax.jit(module.apply)(restored.variables, normalise(images, restored.preprocess))
    assert (logits.argmax(-1) == labels).mean() > 0.9


def test_keras_resnet50_logits_are_pytorchs(shared_data):
    path = shared_data / "weights/resnet50_imagenet_keras_f16.npz"
    module, restored = restore(path, "resnet", "50-keras")
    assert restored.provenance["format"] == "keras_resnet"
    images, _ = imagenet_samples(shared_data, slice(0, 1000, 250))
    expected = torch_keras_resnet50(checkpoints.read(path), images).numpy()
    logits = jax.jit(module.apply)(restored.variables, normalise(images, restored.preprocess))
    np.testing.assert_allclose(logits, expected, atol=1e-4)


@pytest.mark.slow
def test_keras_resnet50_imagenet_accuracy_is_the_known_one(shared_data):
    path = shared_data / "weights/resnet50_imagenet_keras_f16.npz"
    module, restored = restore(path, "resnet", "50-keras")
    run = jax.jit(lambda images: jax.lax.top_k(module.apply(restored.variables, images), 5)[1])
    hits = []
    for start in range(0, 1000, 50):
        images, labels = imagenet_samples(shared_data, slice(start, start + 50))
        hits.append(np.asarray(run(normalise(images, restored.preprocess))) == labels[:, None])
    hits = np.concatenate(hits)
    assert abs(hits[:, 0].mean() - 0.900) <= 0.003
    assert abs(hits.any(1).mean() - 0.986) <= 0.003
