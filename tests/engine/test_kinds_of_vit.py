"""ViTs of every kind that differs in what it computes run through every analysis and figure."""

import every_analysis
import numpy as np
import pytest
from networks import randomised

import vitcnn
from vitcnn import analyses, results

pytestmark = pytest.mark.slow  # every analysis is compiled for four networks

SMALL = {"width": 24, "depth": 2, "mlp_dim": 48, "heads": 3, "patch": 8, "num_classes": 4}
KINDS = {
    "clip": {"embed_norm": True, "gelu": "quick", "epsilon": 1e-5, "projection": 12},
    "siglip": {"pool": "map", "registers": 2},
    "relpos": {"pool": "clsgap", "norm_pooled": True, "positions": "relative", "qkv_bias": False},
    "hybrid": {"stem": "resnet", "stem_units": (1,)},
    "radio": {"final_norm": False, "positions": "relative_shared", "layer_scale": 0.1},
}
WRITTEN = ("embed", "*/attn_weights", "block01/heads", "block01/skip*", "p*")  # pooled, projection


@pytest.fixture(scope="module")
def models():
    load = lambda fields: vitcnn.load("vit", "B/16", image_size=32, **SMALL, **fields)  # noqa: E731
    networks = {name: randomised(load(fields)) for name, fields in KINDS.items()}
    resnet = vitcnn.load("resnet", "20", units=(1, 1, 1), num_classes=4)
    return networks | {"resnet": randomised(resnet)}


@pytest.fixture(scope="module")
def measured(models, tmp_path_factory):
    """Returns (workdir, Results) of every analysis that there is."""
    fields = {
        "attention_distance": {"models": tuple(KINDS)},
        "head_cka": {"subset": 1, "models": ("relpos", "resnet")},
        "receptive_field": {"channels": 4, "images": 4},
        "layer_cka": {"taps": ("logits",)},
        "similarity": {"measures": ("cka", "neighbours"), "images": 40},
    }
    return every_analysis.measured(models, tmp_path_factory.mktemp("kinds"), fields)


def test_every_analysis_ran(measured):
    _, found = measured
    kinds = {results.provenance(result)["analysis"] for result in found.values()}
    assert kinds == set(analyses.names()) - {"probe_fit"}
    layers = found["cka"].layer_x.values.tolist()
    assert "clip/projection" in layers and "siglip/pooled" in layers
    assert "hybrid/stage1/unit01/out" in layers and "hybrid/block01/out" in layers
    assert "radio/norm" not in layers and "relpos/norm" not in layers
    for name in KINDS:
        assert np.isfinite(found[f"attention_distance.{name}"].distance.values).all()


def test_every_figure_is_drawn_and_the_report_written(measured, tmp_path):
    page = every_analysis.page_with_every_figure(measured, tmp_path)
    assert all(name in page for name in KINDS)


@pytest.mark.parametrize("name", KINDS)
def test_a_tap_that_is_written_changes_the_logits(models, name):
    model = models[name]
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    before, values = model.run(images, WRITTEN)
    for tap, value in values.items():
        noise = np.random.default_rng(1).normal(size=value.shape).astype(np.float32)
        after = model.run(images, "logits", edit={tap: value + noise})[0]
        assert np.abs(after - before).max() > 1e-4, tap
