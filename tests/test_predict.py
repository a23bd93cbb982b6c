"""scripts/predict.py: the programs that it compiles are those of the config."""

import importlib.util

import jax
import pytest
import running

import vitcnn
from vitcnn.config import analysis, measurement, model, network, source, training

SMALL = {"depth": 1, "width": 32, "mlp_dim": 32, "heads": 2, "num_classes": 8}


@pytest.fixture(scope="module")
def predict():
    return running.load(running.ROOT / "scripts/predict.py")


def number_of_bytes(lowered):
    """Returns the bytes of all arguments of a lowered program."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(lowered.in_avals))


def test_a_measurement_has_a_program_for_each_shape_of_group(predict):
    config = measurement()
    config.models.vit = model("vit", "mini/4", **SMALL)
    config.models.vit.weights = ""  # which a config has that leaves the weights to the user
    config.data = source("npz", path="")
    config.group = 16
    config.analyses.cka = analysis("cka", images=40)
    config.analyses.accuracy = analysis("accuracy", images=40)
    programs = dict(predict.of_measurement(config, jax.devices()))
    assert list(programs) == ["a group of 16 images", "a group of 8 images"]
    weights = vitcnn.load("vit", "mini/4", **SMALL).variables
    weights = sum(x.size for x in jax.tree.leaves(weights)) * 4
    for images, lowered in zip((16, 8), programs.values(), strict=True):
        # Pixels of one byte, a label and an index of four.
        assert number_of_bytes(lowered) == weights + images * (32 * 32 * 3 + 4 + 4)


def test_a_step_of_training_has_the_whole_batch_and_the_optimizer(predict):
    config = training()
    config.model = network("vit", "mini/4", **SMALL)
    config.data = source("scenes")
    config.batch, config.steps = 24, 10
    ((what, lowered),) = predict.of_training(config, jax.devices()[:1])
    assert what == "a step of 24 images on 1 chips"
    weights = vitcnn.load("vit", "mini/4", **SMALL).variables
    weights = sum(x.size for x in jax.tree.leaves(weights)) * 4
    # Two moments beside each weight; counters of the step and of the optimizer are a few bytes.
    assert 0 < number_of_bytes(lowered) - 3 * weights - 24 * (32 * 32 * 3 + 4) <= 16


def test_what_is_missing_is_named(predict, monkeypatch):
    if importlib.util.find_spec("libtpu"):
        pytest.skip("libtpu is installed")
    with pytest.raises(ValueError, match=r'topology = .v5e:2x2.*pip install "vitcnn\[tpu\]"'):
        predict.chips("v5e:2x2")
