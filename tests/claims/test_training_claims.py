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
    assert (claim.number, claim.verdict) == ("6", "holds")
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
    assert (claim.number, claim.verdict) == ("7b", verdict)
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
    assert (claim.number, claim.source, claim.verdict) == ("4b", "Fig. 4", "holds")
    assert claim.effect == pytest.approx(0.35)
    assert "3% minus all" in claim.effect_name


def test_more_data_and_probes_of_middle_blocks():
    accuracy = np.zeros((5, SEEDS, 6, 2))
    accuracy[3, :, 2:4, 1] = 0.8  # the middle third of 6 blocks, the mean of positions
    accuracy[1, :, 2:4, 1] = np.array([0.7, 0.6, 0.8])[:, None]
    accuracy[1, :, (0, 5)] = 1.0
    of_data, _ = claims.all_claims(probes(accuracy))
    claim = of_data
    assert (claim.number, claim.source) == ("8a", "Fig. 13")
    assert claim.effect == pytest.approx(0.1)
    assert claim.verdict == "cannot tell"


def probes(accuracy, **more):
    variables = {"accuracy": (("run", "seed", "layer", "feature"), accuracy)}
    return data("probe", {**variables, **more}, feature=["class", "spatial"])


@pytest.mark.parametrize(
    ("gain", "verdict"), [(0.1, "holds"), (0.0, "cannot tell"), (-0.1, "does not hold")]
)
def test_larger_networks_and_probes_of_middle_blocks(gain, verdict):
    accuracy = np.zeros((5, SEEDS, 6, 2))
    accuracy[0, :, :, 1] = np.array([0.5, 0.6, 0.7])[:, None]  # small, all of the images
    accuracy[3, :, 2:4, 1] = accuracy[0, :, 2:4, 1] + gain + np.array([[0.01], [0.0], [-0.01]])
    errors = {"accuracy_standard_error": (("run", "seed", "layer", "feature"), accuracy * 0 + 0.03)}
    _, claim = claims.all_claims(probes(accuracy, **errors))
    assert (claim.number, claim.verdict) == ("8b", verdict)
    assert claim.effect == pytest.approx(gain)
    half = 4.3026527 * 0.01 / np.sqrt(3)
    assert claim.interval == pytest.approx((gain - half, gain + half))
    half = 1.96 * np.hypot(0.03, 0.03)
    assert claim.image_interval == pytest.approx((gain - half, gain + half))
    assert "over seeds" in str(claim) and "over images" in str(claim)
    assert "3 seeds: the interval is 4.3 standard errors" in claim.note


@pytest.mark.parametrize(
    ("slope", "verdict"), [(-0.1, "holds"), (0.1, "does not hold"), (0.0, "cannot tell")]
)
def test_fine_tuning_and_the_first_blocks(slope, verdict):
    runs = ["baseline", "noise", "texture"]
    kept = np.full((3, SEEDS, 6), np.nan)
    kept[1:] = 0.8 + slope * np.arange(6) / 5 + 0.001 * np.arange(SEEDS)[:, None] * np.arange(6)
    claim = only(
        {
            "cka_paired": result(
                "finetune",
                "cka_paired",
                {"same_layer": (("run", "seed", "layer"), kept)},
                {"run": runs},
            )
        }
    )
    assert (claim.number, claim.verdict) == ("Fig. G.1", verdict)
    # blocks 0 and 1 minus 4 and 5 are 4 of 5 steps; seeds differ by 0.004
    assert claim.effect == pytest.approx(-0.8 * slope - 0.004)
    assert "over 2 targets" in claim.note
    assert np.isnan(claim.corrected_p) and not claim.survives


def of_seeds(analysis, kinds, variables, coords=None, attrs=None):
    """The Result of an analysis over runs and seeds; each variable has an error of 0.02."""
    names = list(kinds)
    errors = {f"{n}_standard_error": (dims, 0 * v + 0.02) for n, (dims, v) in variables.items()}
    provenance = {
        "analysis": "ablation",
        "ablation": "seeds",
        "name": analysis,
        "fields": {"analysis": analysis, "images": 640},
        "group": 32,
        "warnings": [],
        "models": {run: {"kind": kind} for run, kind in kinds.items()},
    }
    coords = {"run": names, **(coords or {})}
    attrs = {**(attrs or {}), "provenance": json.dumps(provenance)}
    return xarray.Dataset({**variables, **errors}, coords, attrs)


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ((0.1, 0.2, 0.3), "cannot tell"),
        ((0.19, 0.2, 0.21), "holds"),
        ((-0.19, -0.2, -0.21), "does not hold"),
    ],
)
def test_networks_of_an_ablation_are_asked_seed_by_seed(values, verdict):
    margin = np.array([values, np.full(3, 9.0)])
    kinds = {"baseline": "vit", "changed": "vit"}  # a run that is changed is not asked
    result = of_seeds("attention_distance", kinds, {"local_and_global": (("run", "seed"), margin)})
    claim = only({"a/attention_distance": result})
    assert (claim.number, claim.verdict, claim.over) == ("4a", verdict, "seeds")
    assert claim.models == ("a:baseline",)
    mean, half = np.mean(values), 4.3026527 * np.std(values, ddof=1) / np.sqrt(3)
    assert claim.interval == pytest.approx((mean - half, mean + half))
    assert claim.image_interval == pytest.approx((mean - 1.96 * 0.02, mean + 1.96 * 0.02))
    settled = "about 4 seeds would settle it" in claim.settled_by
    assert settled == (verdict == "cannot tell")


def test_networks_of_two_ablations_are_compared_by_seed():
    low = {"lower_upper": (("run", "seed"), np.array([[0.5, 0.6, 0.7]]))}
    high = {"lower_upper": (("run", "seed"), np.array([[0.2, 0.31, 0.39]]))}
    claim = only(
        {
            "v/cka": of_seeds("cka", {"baseline": "vit"}, low),
            "r/cka": of_seeds("cka", {"baseline": "cnn"}, high),
        }
    )
    assert (claim.number, claim.models) == ("1", ("v:baseline", "r:baseline"))
    assert claim.effect == pytest.approx(0.3) and claim.verdict == "holds"
    half = 4.3026527 * np.std([0.3, 0.29, 0.31], ddof=1) / np.sqrt(3)
    assert claim.interval == pytest.approx((0.3 - half, 0.3 + half))
    half = 1.96 * np.hypot(0.02, 0.02)
    assert claim.image_interval == pytest.approx((0.3 - half, 0.3 + half))


def test_a_single_seed_has_no_interval():
    margin = {"local_and_global": (("run", "seed"), np.array([[0.4]]))}
    claim = only(
        {"attention_distance": of_seeds("attention_distance", {"baseline": "vit"}, margin)}
    )
    assert claim.verdict == "cannot tell"
    assert "No interval: it takes at least two seeds" in claim.note
    assert claim.settled_by == "At least two seeds would give the effect an interval."


def test_other_results_of_an_ablation_say_nothing():
    assert claims.all_claims(data("accuracy", {"top1": (("run", "seed"), np.zeros((5, 3)))})) == []
