"""ResNet-50 of Keras in its HDF5 files, of every naming that there has been."""

import h5py
import jax
import numpy as np
import pytest
from networks import flat, shapes_of

from vitcnn import checkpoints, models

SMALL = {"units": (1, 2, 1, 1), "widths": (8, 8, 16, 16), "num_classes": 5, "image_size": 32}
PARTS = {
    "kernel": "kernel",
    "bias": "bias",
    "scale": "gamma",
    "mean": "moving_mean",
    "var": "moving_variance",
}
KERAS_1 = {
    "kernel": "W",
    "bias": "b",
    "gamma": "gamma",
    "beta": "beta",
    "moving_mean": "running_mean",
    "moving_variance": "running_std",
}


@pytest.fixture(scope="module")
def network():
    module = models.create("resnet", "50-keras", **SMALL)
    shapes, _ = shapes_of(module)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: rng.uniform(0.5, 1, leaf.shape), shapes)
    return module, shapes, jax.tree.map(np.float32, variables)


def keras_names(variables):
    """Yields (layer of 2015, layer of 2019, weight, array), the root taking BGR."""
    for path, value in flat(variables).items():
        *layer, weight = path.split("/")[1:]
        norm = "bn" in layer[-1]
        weight = "beta" if norm and weight == "bias" else PARTS[weight]
        if layer == ["head"]:
            names = "fc1000", "predictions"
        elif layer[-1].endswith("_root"):
            names = ("bn_conv1", "conv1_bn") if norm else ("conv1", "conv1_conv")
        else:
            stage, unit = int(layer[0][-1]) + 1, int(layer[1][-1])
            number = 0 if layer[-1].endswith("_proj") else int(layer[-1][-1])
            branch = ("1", "2a", "2b", "2c")[number]
            names = (
                f"{'bn' if norm else 'res'}{stage}{'abcdef'[unit - 1]}_branch{branch}",
                f"conv{stage}_block{unit}_{number}_{'bn' if norm else 'conv'}",
            )
        if path == "params/conv_root/kernel":
            value = value[:, :, ::-1]
        yield *names, weight, value


NAMINGS = {
    "Keras 1": lambda old, new, weight: f"{old}/{old}_{KERAS_1[weight]}_1:0",
    "2.0": lambda old, new, weight: f"{old}/{old}/{weight}:0",
    "2.3": lambda old, new, weight: f"{new}/{new}/{weight}:0",
    "3": lambda old, new, weight: f"model_weights/{new}/{new}/{weight}",
    "3, head of applications": lambda old, new, weight: (
        f"model_weights/{new}/{new}/{weight}".replace("predictions", "probs")
    ),
}


@pytest.mark.parametrize("naming", NAMINGS)
def test_every_naming_is_read(tmp_path, network, naming):
    module, shapes, variables = network
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        for old, new, weight, value in keras_names(variables):
            file[NAMINGS[naming](old, new, weight)] = value
        if naming == "3":
            file["optimizer_weights/adam/iteration"] = 7
    restored = checkpoints.restore(path, "resnet", module, shapes)
    assert restored.provenance["format"] == "keras_resnet"
    expected, got = flat(variables), flat(restored.variables)
    assert got.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(got[key], value, err_msg=key)


def test_what_has_no_name_of_ours_is_listed(tmp_path, network):
    module, shapes, variables = network
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for _, new, weight, value in keras_names(variables):
            file[f"{new}/{new}/{weight}:0"] = value
        file["top/top/kernel:0"] = np.zeros(3)
    with pytest.raises(ValueError, match=r"(?s)unexpected in the checkpoint \(1\).*top/top/kernel"):
        checkpoints.restore(tmp_path / "a.h5", "resnet", module, shapes)


def test_numbered_weights_of_keras_3_are_refused_with_the_way_out(tmp_path):
    with h5py.File(tmp_path / "a.weights.h5", "w") as file:
        file["layers/conv2d_9/vars/0"] = np.zeros(3)
    with pytest.raises(ValueError, match=r"layers/conv2d_9/vars/0.*model.save\('model.h5'\)"):
        checkpoints.read(tmp_path / "a.weights.h5")


@pytest.mark.parametrize("kept", [0, 100, 1500])
def test_truncated_file_is_refused(tmp_path, kept):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["conv1/conv1/kernel:0"] = np.zeros(1000)
    whole = (tmp_path / "a.h5").read_bytes()
    (tmp_path / "a.h5").write_bytes(whole[:kept])
    with pytest.raises(ValueError, match=r"a.h5 is truncated, or is not an HDF5 file"):
        checkpoints.read(tmp_path / "a.h5")


def test_damage_anywhere_is_refused_with_the_name_of_the_file(tmp_path):
    """One byte at a time, all over the file: as h5py puts it, that is an error of any kind."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["model_weights/conv1/kernel:0"] = np.arange(5.0)
    whole = (tmp_path / "a.h5").read_bytes()
    refused = 0
    for place in range(0, len(whole), 17):
        damaged = bytearray(whole)
        damaged[place] ^= 255
        (tmp_path / "b.h5").write_bytes(damaged)
        try:
            checkpoints.read(tmp_path / "b.h5")
        except ValueError as error:
            assert str(error).startswith("b.h5"), error
            refused += "is truncated, or is not an HDF5 file: " in str(error)
    assert refused > 20
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["model_weights"] = np.zeros(3)
    with pytest.raises(ValueError, match=r"c.h5 is truncated, or .* 'model_weights' is a dataset"):
        checkpoints.read(tmp_path / "c.h5")


@pytest.mark.parametrize(
    "link", [h5py.ExternalLink("other.h5", "/"), h5py.SoftLink("/there"), h5py.SoftLink("/absent")]
)
def test_a_link_in_place_of_the_weights_is_not_followed(tmp_path, link):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["conv1/kernel:0"] = np.zeros(3)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["there"] = h5py.ExternalLink("other.h5", "/")
        file["model_weights"] = link
    with pytest.raises(ValueError, match=r"a.h5: 'model_weights' is a link to elsewhere"):
        checkpoints.read(tmp_path / "a.h5")


def test_data_in_other_files_and_text_are_refused(tmp_path):
    (tmp_path / "secret").write_bytes(b"12345678")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("conv1", (1,), "f8", external=[(str(tmp_path / "secret"), 0, 8)])
    with pytest.raises(ValueError, match="'conv1' keeps its data in another file"):
        checkpoints.read(tmp_path / "a.h5")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["note"] = "text"
    with pytest.raises(ValueError, match="'note' holds object, not numbers"):
        checkpoints.read(tmp_path / "b.h5")
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["conv1"] = h5py.ExternalLink(str(tmp_path / "b.h5"), "note")
    with pytest.raises(ValueError, match="holds no arrays"):
        checkpoints.read(tmp_path / "c.h5")


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # in Keras itself
@pytest.mark.parametrize("side", [224, 193])
def test_logits_are_those_of_keras(tmp_path, monkeypatch, side):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")
    import vitcnn

    theirs = keras.applications.ResNet50(weights=None, input_shape=(side, side, 3))
    rng = np.random.default_rng(0)
    for weight in theirs.weights:
        if weight.name == "kernel":
            value = rng.normal(size=weight.shape) / np.sqrt(np.prod(weight.shape[:-1]))
        elif weight.name == "moving_variance":
            value = 0.5 + rng.normal(size=weight.shape) ** 2
        else:
            value = 0.3 * rng.normal(size=weight.shape) + (weight.name == "gamma")
        weight.assign(value)
    theirs.save(tmp_path / "a.h5")
    images = rng.integers(0, 256, (3, side, side, 3), np.uint8)
    bgr = keras.applications.resnet.preprocess_input(images.astype(np.float32))
    names = [
        f"conv{s}_block{u}_out"
        for s, n in zip((2, 3, 4, 5), (3, 4, 6, 3), strict=True)
        for u in range(1, n + 1)
    ]
    theirs.layers[-1].activation = None  # logits in place of probabilities
    outputs = [theirs.get_layer(name).output for name in names]
    *blocks, expected = map(np.asarray, keras.Model(theirs.input, [*outputs, theirs.output])(bgr))
    model = vitcnn.load("resnet", "50-keras", tmp_path / "a.h5", image_size=side)
    logits, got = model.run(model.preprocess.normalise(images), "stage*/unit*/out")
    np.testing.assert_allclose(logits, expected, atol=1e-4 * expected.std())
    assert len(got) == len(blocks) == 16
    for mine, block in zip(got.values(), blocks, strict=True):
        np.testing.assert_allclose(mine, block, atol=1e-4 * block.std())
