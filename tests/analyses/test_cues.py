"""Cues against cross-validation in NumPy, and where the answer is known."""

import numpy as np
import pytest
from oracles import cross_validation, fold_of
from views import measured, tokens

import vitcnn
from vitcnn import data
from vitcnn.analyses import cues

N, CLASSES = 60, 3


def cases(seed=0):
    rng = np.random.default_rng(seed)
    label, texture = rng.integers(0, CLASSES, (2, N)).astype(np.int32)
    return label, {"texture": texture}, rng


def test_equals_cross_validation_on_means_and_class_tokens():
    label, of_cue, rng = cases()
    hidden = np.eye(CLASSES)[of_cue["texture"]] @ rng.normal(size=(CLASSES, 5))
    x = (hidden[:, None] + rng.normal(size=(N, 5, 5))).astype(np.float32)
    result = measured(
        cues, {"v": [(tokens("out", x), x)]}, label=label, cues=of_cue, classes=CLASSES
    )
    assert result.feature.values.tolist() == ["spatial", "class"]
    assert result.target.values.tolist() == ["class", "texture"]
    fold, penalties = np.array([fold_of(i, 4) for i in range(N)]), cues.Settings().penalties
    features = {"class": np.float64(x[:, :1]), "spatial": np.float64(x[:, 1:]).mean(1)[:, None]}
    for feature, a in features.items():
        for target, of in (("class", label), ("texture", of_cue["texture"])):
            y = np.eye(CLASSES)[of][:, None]
            expected, penalty = cross_validation(a, y, fold, 4, penalties)
            row = result.isel(layer=0).sel(feature=feature, target=target)
            np.testing.assert_allclose(row.r2_fold, expected, atol=1e-5)
            np.testing.assert_array_equal(row.penalty, penalty)
            np.testing.assert_allclose(row.r2, expected.mean(), atol=1e-5)
    assert float(result.r2.sel(target="texture").min()) > 0.1 > float(result.r2[0, 0, 0])
    labels = [t.get_text() for t in cues.draw([result]).axes[0].get_legend().get_texts()]
    assert labels == [
        "class, mean of positions",
        "texture, mean of positions",
        "class, class token",
        "texture, class token",
    ]


def test_the_engine_reads_the_cues_of_scenes_and_the_boxes_of_their_discs(tmp_path):
    """Of the picture itself: the discs have colours that the mean over their cell shows."""
    model = vitcnn.load("resnet", "mini", num_classes=8, units=(1,), widths=(32,))
    source = data.load("scenes", size=48, noise=0.05)
    config = {
        "analyses": {"cues": {"taps": ("stem/*",)}, "objects": {"taps": ("stem/*",)}},
        "group": 24,
    }
    results = vitcnn.analyze(config, tmp_path, models={"r": model}, source=source, progress=False)
    of_cues, of_boxes = results["cues.r"], results["objects.r"]
    assert of_cues.target.values.tolist() == ["class", "texture", "arrangement"]
    side = int(str(of_boxes.grid.values[0]).split("x")[0])
    y, x = np.meshgrid(*[(np.arange(side) + 0.5) / side] * 2, indexing="ij")
    shown = [
        np.any([(b[0] <= y) & (y < b[2]) & (b[1] <= x) & (x < b[3]) for b in source[i]["boxes"]], 0)
        for i in range(48)
    ]
    assert float(of_boxes.share[0]) == pytest.approx(np.mean(shown), rel=1e-5)
    assert float(of_boxes.r2.sel(target="presence").max()) > 0.4
    assert set(source[0]["cues"]) == {"texture", "arrangement"}


class Plain:
    """Images without boxes or cues."""

    labelled, classes, provenance = True, 8, {"source": "plain"}

    def __len__(self):
        return 24

    def __getitem__(self, i):
        return {"image": np.full((32, 32, 3), i, np.uint8), "label": i % 8}


def test_images_without_boxes_or_cues_are_not_asked(tmp_path):
    model = vitcnn.load("resnet", "mini", num_classes=8, units=(1,), widths=(32,))
    config = {"analyses": {"cues": {}, "objects": {}}, "group": 24}
    with (
        pytest.warns(UserWarning, match="objects needs boxes, which the data do not have: left"),
        pytest.warns(UserWarning, match="cues needs cues"),
        pytest.raises(ValueError, match="no analysis is left"),
    ):
        vitcnn.analyze(config, tmp_path, models={"r": model}, source=Plain(), progress=False)
