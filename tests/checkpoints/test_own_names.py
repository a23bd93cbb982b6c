"""Weights of our own runs load again, also those of a family from outside of the package."""

import json

import numpy as np
import pytest
from networks import shapes_of

import vitcnn
from vitcnn import checkpoints, models

FAMILY = """
import flax.linen as nn

KIND = "odd"
HEADS = ("logits",)


class Module(nn.Module):
    image_size: int = 8
    width: int = 6
    num_classes: int = 3

    @nn.compact
    def __call__(self, images, train=False):
        x = nn.relu(nn.Dense(self.width, name="embedding")(images.mean((1, 2))))
        return nn.Dense(self.num_classes, name="logits")(x)


NETWORK = Module
VARIANTS = {"tiny": {}}
"""


@pytest.fixture
def family(tmp_path, monkeypatch):
    folder = tmp_path / "outside_of_vitcnn"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "family.py").write_text(FAMILY)
    monkeypatch.syspath_prepend(tmp_path)
    return "outside_of_vitcnn.family"


def write_run(folder, model):
    """Writes what training leaves in its working directory."""
    checkpoints.export(folder / checkpoints.WEIGHTS, model.variables)
    (folder / "run.json").write_text(json.dumps({"model": dict(model.provenance)}))


def test_a_run_has_recorded_what_its_arrays_do_not_show(tmp_path):
    """The GELU of a DeiT is that of its variant; its arrays have the names of Google's files."""
    fields = {"depth": 1, "width": 12, "mlp_dim": 16, "heads": 3, "image_size": 16, "pre_logits": 6}
    model = vitcnn.load("vit", "DeiT-S/16", **fields)
    assert model.module.gelu == "exact"
    write_run(tmp_path, model)
    again = vitcnn.load("vit", "DeiT-S/16", tmp_path)
    assert again.module.gelu == "exact" and again.digest() == model.digest()
    with pytest.raises(ValueError, match="does not say its gelu"):
        vitcnn.load("vit", "DeiT-S/16", tmp_path / checkpoints.WEIGHTS, **fields)


def test_a_hidden_layer_goes_with_the_old_head_where_it_is_left_out(tmp_path):
    shape = {"depth": 1, "width": 12, "mlp_dim": 16, "heads": 3}
    write_run(tmp_path, vitcnn.load("vit", "mini/4", pre_logits=6, **shape))
    kept = vitcnn.load("vit", "mini/4", tmp_path, num_classes=2, new_head=True)
    assert kept.variables["params"]["head"]["kernel"].shape == (6, 2)
    left_out = vitcnn.load("vit", "mini/4", tmp_path, num_classes=2, new_head=True, pre_logits=0)
    assert left_out.variables["params"]["head"]["kernel"].shape == (12, 2)
    assert "pre_logits" not in left_out.variables["params"]
    with pytest.raises(ValueError, match=r"(?s)unexpected in the checkpoint.*pre_logits"):
        vitcnn.load("vit", "mini/4", tmp_path, pre_logits=0)


def test_a_family_from_outside_is_trained_and_loaded_again(family, tmp_path):
    model = vitcnn.load(family, "tiny", num_classes=4, seed=5)
    assert model.kind == model.provenance["kind"] == "odd"
    write_run(tmp_path, model)
    again = vitcnn.load(family, "tiny", tmp_path)
    assert again.digest() == model.digest() and again.preprocess == model.preprocess
    assert again.provenance["weights"]["format"] == "vitcnn" and again.kind == "odd"
    assert again.provenance["fields"] == {"num_classes": 4}
    other = vitcnn.load(family, "tiny", tmp_path, num_classes=2, new_head=True)
    assert other.provenance["weights"]["new"] == ["params/logits/bias", "params/logits/kernel"]
    with pytest.raises(ValueError, match=f"holds {family} tiny, not vit mini/4"):
        vitcnn.load("vit", "mini/4", tmp_path)


def test_the_number_of_classes_is_read_from_the_head_of_the_family(family, tmp_path):
    model = vitcnn.load(family, "tiny", num_classes=4)
    checkpoints.export(tmp_path / "a.npz", model.variables)
    half = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    assert vitcnn.load(family, "tiny", tmp_path / "a.npz", preprocess=half).classes == 4
    with pytest.raises(
        ValueError, match=r"(?s)format 'vitcnn'.*another shape.*new_head=True drops"
    ):
        vitcnn.load(family, "tiny", tmp_path / "a.npz", num_classes=2)


def test_a_foreign_family_may_have_the_names_of_google(tmp_path):
    """Its file matches google_vit_npz, but it is of another family and fits the network."""
    module = models.create("vit", "mini/4", depth=1, width=12, mlp_dim=20, heads=3)
    shapes = shapes_of(module)[0]
    variables = vitcnn.load("vit", "mini/4", depth=1, width=12, mlp_dim=20, heads=3).variables
    checkpoints.export(tmp_path / "a.npz", variables)
    restored = checkpoints.restore(tmp_path / "a.npz", "mixer", module, shapes)
    assert restored.provenance["format"] == "vitcnn"
    np.testing.assert_array_equal(
        restored.variables["params"]["cls"], variables["params"]["cls"], strict=True
    )
