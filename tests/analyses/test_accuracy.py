"""Accuracy and calibration against NumPy on logits made by hand."""

import jax.numpy as jnp
import numpy as np
import pytest
from networks import randomised

import vitcnn
from vitcnn import analyses, data
from vitcnn.analyses import accuracy
from vitcnn.engine.sums import Sums, estimate
from vitcnn.numerics.exact import to_host


def result_of(logits, labels, group=None, **fields):
    """Runs measure and finalize on logits alone, in groups."""
    config = analyses.Config(accuracy.Settings(**fields))
    logits, labels = np.asarray(logits, np.float32), np.asarray(labels, np.int32)
    sums, group = Sums(), group or len(labels)
    for k, start in enumerate(range(0, len(labels), group)):
        part = slice(start, start + group)
        view = analyses.View(None, {}, jnp.asarray(logits[part]), {}, None)
        seen = analyses.Group(jnp.asarray(labels[part]), None, {"m": view})
        sums.add(to_host(accuracy.measure(seen, config, {})), len(labels[part]), k)
    return estimate(sums, lambda total: accuracy.finalize(total, config))


def oracle(logits, labels, bins=15):
    """Image by image."""
    logits = np.asarray(logits, np.float64)
    rows = {name: [] for name in ("top1", "top5", "nll", "brier")}
    inside = [[] for _ in range(bins)]
    for z, label in zip(logits, labels, strict=True):
        if label < 0:
            continue
        p = np.exp(z - z.max())
        p /= p.sum()
        better = sum(z[c] >= z[label] for c in range(len(z)) if c != label)
        rows["top1"].append(better < 1)
        rows["top5"].append(better < 5)
        rows["nll"].append(-np.log(p[label]))
        rows["brier"].append(sum((p[c] - (c == label)) ** 2 for c in range(len(z))))
        for m in range(bins):
            if m / bins < p.max() <= (m + 1) / bins:
                inside[m].append((better < 1, p.max()))
    n = len(rows["nll"])
    expected = {name: np.mean(values) for name, values in rows.items()}
    pairs = [np.mean(b, axis=0) if b else (np.nan, np.nan) for b in inside]
    expected["bin_accuracy"], expected["bin_confidence"] = np.array(pairs, np.float64).T
    expected["bin_images"] = np.array([len(b) for b in inside])
    expected["ece"] = sum(
        len(b) / n * abs(right - sure) for b, (right, sure) in zip(inside, pairs, strict=True) if b
    )
    return expected


def made(n=200, classes=8, seed=0):
    rng = np.random.default_rng(seed)
    logits = (rng.normal(size=(n, classes)) * rng.uniform(0, 6, (n, 1))).astype(np.float32)
    logits[:5, 3] = logits[:5].max(1)  # ties with the best
    logits[5] = 0  # all alike
    labels = rng.integers(0, classes, n)
    labels[:5] = 3
    labels[5:9] = (0, 1, 2, 3)
    return logits, labels


@pytest.mark.parametrize("bins", [1, 15, 40])
def test_every_number_equals_numpy(bins):
    logits, labels = made()
    result = result_of(logits, labels, group=33, bins=bins)
    for name, expected in oracle(logits, labels, bins).items():
        np.testing.assert_allclose(result[name], expected, rtol=1e-5, err_msg=name)
    assert int(result.images) == 200 and result.bin.size == bins
    np.testing.assert_allclose(result.bin, (np.arange(bins) + 0.5) / bins)
    for name in ("ece", "brier", "nll", "top1"):
        assert 0 < float(result[f"{name}_standard_error"]) < abs(float(result[name])), name


def test_ties_count_against_the_model_and_confidence_is_shared():
    result = result_of([[2, 2, -np.inf, -np.inf], [0, 0, 0, 0]], [0, 1], bins=4)
    assert float(result.top1) == 0 and float(result.top5) == 1
    np.testing.assert_array_equal(result.bin_images, [1, 1, 0, 0])  # edges: 1/4 and 1/2
    np.testing.assert_allclose(result.bin_confidence[:2], [0.25, 0.5], rtol=1e-6)
    assert np.isnan(result.bin_accuracy[2:]).all() and np.isnan(result.bin_confidence[2:]).all()
    assert float(result.ece) == pytest.approx((0.25 + 0.5) / 2)
    assert float(result.brier) == pytest.approx((0.5 + 0.75) / 2)


def test_a_sure_model_lies_in_the_last_bin():
    logits = 1000 * np.eye(3)[[0, 1, 2, 0]]
    right, wrong = result_of(logits, [0, 1, 2, 0]), result_of(logits, [1, 2, 0, 1])
    for result, share in ((right, 1), (wrong, 0)):
        assert int(result.bin_images[-1]) == 4 and int(result.bin_images.sum()) == 4
        assert float(result.bin_accuracy[-1]) == share
        assert float(result.ece) == pytest.approx(1 - share, abs=1e-6)
        assert float(result.brier) == pytest.approx(2 - 2 * share, abs=1e-6)


def test_a_calibrated_model_has_no_calibration_error():
    """Of 20 images with confidence q, 20 q are right: two classes, q = 0.5, 0.55, ..., 0.95."""
    logits, labels = [], []
    for right in range(11, 20):
        q = right / 20
        logits += [[np.log(q), np.log(1 - q)]] * 20
        labels += [0] * right + [1] * (20 - right)
    result = result_of(logits, labels)
    assert float(result.ece) < 1e-6
    filled = result.isel(bin=result.bin_images.values > 0)
    np.testing.assert_allclose(filled.bin_accuracy, filled.bin_confidence, rtol=1e-6)
    assert int(result.images) == 180


def test_unlabelled_images_do_not_count():
    logits, labels = made()
    labels[::7] = -1
    with pytest.warns(UserWarning, match="29 images have no label"):
        result = result_of(logits, labels, group=50)
    for name, expected in oracle(logits, labels).items():
        np.testing.assert_allclose(result[name], expected, rtol=1e-5, err_msg=name)
    assert int(result.images) == 171 == int(result.bin_images.sum())
    with pytest.warns(UserWarning, match="4 images have no label"):
        none = result_of(logits[:4], [-1] * 4)
    assert np.isnan(none.ece) and np.isnan(none.top1) and not none.bin_images.any()


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_logits_that_are_no_numbers_are_wrong_and_show_in_every_loss(broken):
    logits, labels = made(40)
    whole = oracle(np.delete(logits, 20, axis=0), np.delete(labels, 20))
    logits[20] = broken
    result = result_of(logits, labels)
    assert int(result.right) == round(whole["top1"] * 39) and int(result.images) == 40
    assert int(result.bin_images.sum()) == 39
    for name in ("nll", "brier", "ece"):
        assert np.isnan(result[name]), name
    np.testing.assert_allclose(result.bin_accuracy, whole["bin_accuracy"], rtol=1e-5)


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_one_logit_that_is_no_number_makes_the_image_wrong(broken):
    result = result_of([[3, broken, 1], [3, -np.inf, 1]], [0, 0])
    assert int(result.right) == 1 and float(result.top5) == 0.5 and int(result.images) == 2
    assert int(result.bin_images.sum()) == 1


def test_a_network_equals_numpy_for_any_group(tmp_path):
    model = randomised(vitcnn.load("vit", "mini/4", depth=1, width=48, mlp_dim=64, num_classes=8))
    source = data.load("scenes", size=30)
    examples = [source[i] for i in range(30)]
    logits, _ = model.run(model.preprocess([e["image"] for e in examples]))
    expected = oracle(logits, [e["label"] for e in examples])
    for group in (30, 7):
        result = vitcnn.analyze(
            {"analyses": {"accuracy": {}}, "group": group},
            tmp_path / str(group),
            models={"v": model},
            source=source,
            progress=False,
        )["accuracy.v"]
        for name, values in expected.items():
            np.testing.assert_allclose(result[name], values, rtol=1e-5, err_msg=name)


def test_no_bins_is_an_error():
    with pytest.raises(ValueError, match="bins = 0: set the field to 1 or more"):
        result_of([[0, 1]], [0], bins=0)


def test_figures_show_the_numbers():
    results = [result_of(*made(seed=seed), group=20) for seed in range(2)]
    titles = [axes.get_xlabel() for axes in accuracy.draw(results).axes]
    assert titles == [
        "top-1 accuracy (%)",
        "negative log-likelihood (nat)",
        "expected calibration error (%)",
    ]
    old = [result.drop_vars(["ece", "bin_accuracy"]) for result in results]
    assert len(accuracy.draw(old).axes) == 2 and accuracy.draw_calibration(old) is None
    figure = accuracy.draw_calibration(results)
    for axes, result in zip(figure.axes, results, strict=True):
        curve, diagonal = axes.lines
        filled = result.bin_images.values > 0
        np.testing.assert_array_equal(curve.get_xdata(), result.bin_confidence[filled])
        np.testing.assert_array_equal(curve.get_ydata(), result.bin_accuracy[filled])
        np.testing.assert_array_equal(diagonal.get_xydata(), [[0, 0], [1, 1]])
        assert axes.get_xlabel() == f"confidence (calibration error {100 * result.ece:.1f}%)"
