"""Verdicts of claims on training, on Results of ablations whose numbers are set by hand."""

import json

import numpy as np
import pytest
import xarray

from vitcnn import claims

SEEDS = 3


def result(ablation, job, variables, coords, warnings=(), kind="vit"):
    runs = coords["run"]
    provenance = {
        "analysis": "ablation",
        "ablation": ablation,
        "name": job,
        "warnings": list(warnings),
        "models": {run: {"kind": kind} for run in runs},
    }
    return xarray.Dataset(variables, coords, {"provenance": json.dumps(provenance)})


def skips(warnings=(), kind="vit"):
    runs = ["baseline", *(f"block{i:02d}" for i in range(6))]
    top1 = np.full((7, SEEDS), 0.9)
    top1[3] = (0.86, 0.85, 0.84)  # blocks 2 and 3 are the middle third
    top1[4] = (0.82, 0.83, 0.84)
    block = ("run", [np.nan, *range(6)])
    return result(
        "skips",
        "accuracy",
        {"top1": (("run", "seed"), top1)},
        {"run": runs, "block": block},
        warnings,
        kind,
    )


def only(results):
    (claim,) = claims.all_claims(results)
    return claim


def test_accuracy_lost_without_the_skips_of_middle_blocks():
    claim = only({"accuracy": skips()})
    assert (claim.number, claim.verdict) == (6, "holds")
    lost = np.array([0.06, 0.06, 0.06])  # each seed: mean of 0.04 and 0.08, 0.05 and 0.07, ...
    assert claim.effect == pytest.approx(lost.mean())
    assert claim.interval == pytest.approx((0.06, 0.06))


def test_a_cnn_is_not_asked_about_skips():
    assert claims.all_claims({"accuracy": skips(kind="cnn")}) == []


def test_a_void_ablation_cannot_tell():
    claim = only({"accuracy": skips(warnings=["VOID: the accuracy of the baseline is 50%"])})
    assert claim.verdict == "cannot tell"
    assert "VOID" in claim.note


@pytest.mark.parametrize(
    ("gap", "verdict"),
    [
        ((0.1, 0.2, 0.3), "holds"),
        ((0.5, 0.6, 0.7), "cannot tell"),
        ((0.9, 1.0, 1.1), "does not hold"),
    ],
)
def test_class_token_against_gap(gap, verdict):
    contrast = np.array([[0.6, 0.6, 0.6], gap])
    claim = only(
        {
            "localization": result(
                "pooling",
                "localization",
                {"last_own_contrast": (("run", "seed"), contrast)},
                {"run": ["baseline", "gap"]},
            )
        }
    )
    assert (claim.number, claim.verdict) == (7, verdict)
    # The quantile 0.975 of Student's t with 2 degrees of freedom; the deviation is 0.1.
    half = 4.3026527 * 0.1 / np.sqrt(3)
    assert claim.effect == pytest.approx(0.6 - np.mean(gap))
    assert claim.interval == pytest.approx((claim.effect - half, claim.effect + half))


def data(job, variables, **coords):
    runs = ["baseline", "large_003", "large_030", "large_100", "small_003"]
    factors = {
        "network": ("run", ["small", "large", "large", "large", "small"]),
        "fraction": ("run", [1.0, 0.03, 0.3, 1.0, 0.03]),
    }
    return {job: result("data", job, variables, {"run": runs, **factors, **coords})}


def test_little_data_and_local_heads():
    distance = np.zeros((5, SEEDS))
    distance[1], distance[3] = (0.9, 0.8, 0.85), (0.5, 0.5, 0.5)
    claim = only(data("attention_distance", {"lowest_distance": (("run", "seed"), distance)}))
    assert (claim.number, claim.source, claim.verdict) == (4, "Fig. 4", "holds")
    assert claim.effect == pytest.approx(0.35)
    assert "3% minus all" in claim.effect_name


def test_more_data_and_probes_of_middle_blocks():
    accuracy = np.zeros((5, SEEDS, 6, 2))
    accuracy[3, :, 2:4, 1] = 0.8  # the middle third of 6 blocks, the mean of positions
    accuracy[1, :, 2:4, 1] = np.array([0.7, 0.6, 0.8])[:, None]
    accuracy[1, :, (0, 5)] = 1.0
    claim = only(
        data(
            "probe",
            {"accuracy": (("run", "seed", "layer", "feature"), accuracy)},
            feature=["class", "spatial"],
        )
    )
    assert (claim.number, claim.source) == (8, "Fig. 13")
    assert claim.effect == pytest.approx(0.1)
    assert claim.verdict == "cannot tell"


def test_other_results_of_an_ablation_say_nothing():
    assert claims.all_claims(data("accuracy", {"top1": (("run", "seed"), np.zeros((5, 3)))})) == []
