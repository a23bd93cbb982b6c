"""Every analysis and figure runs on every kind of ResNet: gated, grouped, blurred, version 2."""

import warnings

import numpy as np
import pytest
from networks import randomised

import vitcnn
from vitcnn import analyses, report, results
from vitcnn import config as configs

pytestmark = pytest.mark.slow  # every analysis is compiled for three networks

SCENES = {"classes": 4, "image_size": 32}
SMALL = {"image_size": 32, "units": (1, 2), "num_classes": 4, "stem_widths": (8, 8, 16)}
MODELS = {
    "gated": (
        "seresnextaa101d_32x8d",
        {"widths": (64, 64), "groups": 4, "norm": "plain_group", "stem_widths": (32, 32, 32)},
    ),
    "version2": ("resnetv2_50t", {"widths": (8, 16), "attention": "eca", "stem_pool_conv": True}),
    "blurred": ("resnetblur18", {"widths": (8, 16), "stem_widths": ()}),
}
OUTPUTS = ("stage*/unit*/out",)
FOR_ATTENTION = ("attention_distance", "head_cka")


@pytest.fixture(scope="module")
def models():
    return {
        name: randomised(vitcnn.load("resnet", variant, **{**SMALL, **fields}))
        for name, (variant, fields) in MODELS.items()
    }


@pytest.fixture(scope="module")
def measured(models, tmp_path_factory, fast_compilation):
    """Returns (workdir, Results) of every analysis that asks for no attention."""
    config = configs.measurement()
    config.data = configs.source("scenes", size=40, split="test", **SCENES)
    config.group = 20
    fields = {
        "decoding": {"targets": ("position", "colour"), "folds": 3},
        "receptive_field": {"channels": 8, "images": 4},
        "similarity": {"measures": ("cka", "neighbours"), "images": 40, "taps": OUTPUTS},
        "localization": {"max_positions": 16},
    }
    for name in analyses.names():
        if not name.startswith("probe") and name not in FOR_ATTENTION:
            config.analyses[name] = configs.analysis(name, **fields.get(name, {}))
    before = {"residual": "before", "channels": 8, "images": 4}
    config.analyses.receptive_field_before = configs.analysis("receptive_field", **before)
    config.stages.fit = configs.stage(data=configs.source("scenes", size=60, **SCENES))
    config.stages.fit.analyses.probe = configs.analysis("probe_fit", positions=())
    config.analyses.probe = configs.analysis("probe", penalties=(1.0, 100.0))
    workdir = tmp_path_factory.mktemp("resnets")
    with warnings.catch_warnings():  # zeros behind a ReLU of small networks
        warnings.filterwarnings("ignore", "skip_ratio.*: a skip, a branch or their sum")
        return workdir, vitcnn.analyze(config, workdir, models=models, progress=False)


def test_every_analysis_ran_on_every_kind(measured):
    _, found = measured
    ran = {results.provenance(result)["analysis"] for result in found.values()}
    assert ran == set(analyses.names()) - {"probe_fit", *FOR_ATTENTION}
    layers = set(found["cka"].layer_x.values.tolist())
    assert {"gated/stage1/unit01/gate", "version2/norm", "blurred/stage2/unit01/pool"} <= layers


@pytest.mark.parametrize(
    ("model", "branch"), [("gated", "gated"), ("version2", "gated"), ("blurred", "norm2")]
)
def test_branches_end_where_they_are_added(measured, model, branch):
    _, found = measured
    ends = [f"stage{s}/unit{u:02d}/{branch}" for s, u in ((1, 1), (2, 1), (2, 2))]
    ratio = found[f"skip_ratio.{model}"]
    assert ratio.branch.values.tolist() == ends
    assert np.isfinite(ratio.ratio_spatial.values).all()
    before = found[f"receptive_field_before.{model}"]
    assert before.tap.values.tolist() == ends
    parts = {str(part) for part in found[f"lesion.{model}"].part.values}
    assert parts == {"branch", "skip"}


def test_a_gate_reads_the_whole_image(models, measured):
    """So the field of a gated branch is as wide as the image; that of a blurred one is not."""
    _, found = measured
    field = found["receptive_field_before.version2"].field.sel(tap="stage1/unit01/gated").values
    assert (field > 0).all()
    field = found["receptive_field_before.blurred"].field.sel(tap="stage1/unit01/norm2").values
    assert (field == 0).any()


def test_every_figure_is_drawn_and_the_report_written(measured, tmp_path):
    workdir, found = measured
    page = report.write(report.read(workdir), tmp_path).read_text()
    drawn = {path.name for path in (tmp_path / "figures").glob("*.png")}
    for name in found:
        assert any(figure.startswith(name.split(".")[0]) for figure in drawn), name
    assert "version2" in page
