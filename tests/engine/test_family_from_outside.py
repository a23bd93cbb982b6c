"""A family that no file of the package knows runs through every analysis, claim and figure."""

import every_analysis
import numpy as np
import pytest
from every_analysis import SCENES
from networks import randomised

import vitcnn
from vitcnn import analyses, claims, results
from vitcnn import config as configs

pytestmark = pytest.mark.slow  # every analysis is compiled for two networks

FAMILY = "toys.pyramid"
OUTPUTS = ("*/block*/out", "stage*/unit*/out")


@pytest.fixture(scope="module")
def models():
    toy = vitcnn.load(FAMILY, "tiny", num_classes=4)
    resnet = vitcnn.load("resnet", "20", units=(1, 1, 1), num_classes=4)
    return {"toy": randomised(toy), "resnet": randomised(resnet)}


@pytest.fixture(scope="module")
def measured(models, tmp_path_factory):
    """Returns (workdir, Results) of every analysis that there is."""
    fields = {
        "attention_distance": {"models": ("toy",)},
        "head_cka": {"subset": 1},
        "receptive_field": {"channels": 8, "images": 4, "taps": OUTPUTS},
        "similarity": {"measures": ("cka", "neighbours"), "images": 40, "taps": OUTPUTS},
        "lesion": {"taps": (*OUTPUTS, "stage2/block*/*attn", "stage2/unit*/skip")},
        "layer_cka": {"taps": ("logits",)},
    }
    workdir = tmp_path_factory.mktemp("toy")
    return every_analysis.measured(models, workdir, fields, zeros=".resnet")


def test_every_analysis_ran(measured):
    _, found = measured
    kinds = {results.provenance(result)["analysis"] for result in found.values()}
    assert kinds == set(analyses.names()) - {"probe_fit"}
    assert results.provenance(found["cka"])["models"]["toy"]["kind"] == "vit"
    layers = found["cka"].layer_x.values.tolist()
    assert "toy/stage2/block02/out" in layers and "resnet/stage3/unit01/out" in layers


def test_heads_grow_and_windows_bound_the_distance(models, measured):
    """Attention distances of windows, and of more heads above, against NumPy."""
    _, found = measured
    result = found["attention_distance.toy"]
    assert result.layer.values.tolist() == [
        *(f"stage1/block{b:02d}/attn_weights" for b in range(2)),
        *(f"stage2/block{b:02d}/attn_weights" for b in range(3)),
    ]
    has = np.isfinite(result.distance.values).sum(1)
    assert has.tolist() == [2, 2, 4, 4, 4]
    toy = models["toy"]
    source = vitcnn.data.load("scenes", size=40, split="test", **SCENES)
    images = toy.preprocess([source[i]["image"] for i in range(40)])
    _, taps = toy.run(images, "*attn_weights")
    # Positions of a window of stage 1 are 4 px apart, those of stage 2 8 px; both are 4 x 4.
    y, x = np.divmod(np.arange(16), 4)
    apart = np.hypot(y[:, None] - y, x[:, None] - x)
    for name, weights in taps.items():
        weights = np.float64(weights)
        step = 4 if name.startswith("stage1") else 8
        expected = (weights * apart * step).sum(-1).mean(-1)  # [n, (windows,) heads]
        expected = expected.mean((0, 1) if expected.ndim == 3 else 0)
        got = result.distance.sel(layer=name).values[: len(expected)]
        np.testing.assert_allclose(got, expected, rtol=1e-5)
    uniform = result.attrs["uniform"]
    assert len(uniform) == 5 and uniform[0] == pytest.approx(16.5, abs=0.1)


def test_every_claim_that_asks_of_vits_and_cnns_is_judged(measured):
    _, found = measured
    judged = {claim.number: claim for claim in claims.all_claims(found)}
    assert {"1", "2", "3", "4a", "5", "9"} <= set(judged)
    assert all("toy" in claim.models for claim in judged.values())
    assert judged["5"].verdict == "cannot tell" and "class token" in judged["5"].note
    assert np.isfinite([judged[n].effect for n in ("1", "2", "3", "4a", "9")]).all()


def test_every_figure_is_drawn_and_the_report_written(measured, tmp_path):
    page = every_analysis.page_with_every_figure(measured, tmp_path)
    assert "toy" in page and "stage2/block02/out" in page


def test_it_trains_and_loads_again(tmp_path):
    config = configs.training()
    config.model = configs.network(FAMILY, "tiny")
    config.data = configs.source("scenes", size=32)
    config.batch, config.steps = 8, 2
    model = vitcnn.train(config, tmp_path, progress=False)
    again = vitcnn.load(FAMILY, "tiny", tmp_path)
    assert again.digest() == model.digest()


def test_an_unknown_module_is_named():
    with pytest.raises(ValueError, match=r"unknown model family 'toys.pyramids': Python finds no"):
        vitcnn.load("toys.pyramids", "tiny")
    with pytest.raises(ValueError, match=r"unknown variant of toys.pyramid 'tny': .* 'tiny'"):
        vitcnn.load(FAMILY, "tny")
