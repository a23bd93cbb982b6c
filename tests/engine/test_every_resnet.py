"""Every analysis and figure runs on every kind of ResNet: gated, grouped, blurred, version 2."""

import every_analysis
import numpy as np
import pytest
from networks import randomised

import vitcnn
from vitcnn import analyses, results

pytestmark = pytest.mark.slow  # every analysis is compiled for three networks

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
def measured(models, tmp_path_factory):
    """Returns (workdir, Results) of every analysis that asks for no attention."""
    field = {"channels": 8, "images": 4}
    fields = {
        "receptive_field": field,
        "similarity": {"measures": ("cka", "neighbours"), "images": 40, "taps": OUTPUTS},
    }
    before = ("receptive_field_before", "receptive_field", {"residual": "before", **field})
    return every_analysis.measured(
        models,
        tmp_path_factory.mktemp("resnets"),
        fields,
        leave_out=FOR_ATTENTION,
        more=[before],
        probe_fit={"positions": ()},
    )


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
    assert "version2" in every_analysis.page_with_every_figure(measured, tmp_path)
