"""Verdicts on Results whose effects are set by hand."""

import json
import math

import numpy as np
import pytest
import xarray
from fabricated import alone, cka, pair, provenance, vit_layers

from vitcnn import claims, verdicts

# claim -> (variable, model x, model y) that it must read
READS = {
    "1": ("lower_upper_difference", "vit", "resnet"),
    "2": ("lower_match_lag", "resnet", "vit"),
    "3": ("upper_match_drop", "vit", "resnet"),
}


def judged(number, effect, error, **fields):
    result = pair(**fields)
    name, x, y = READS[number]
    result[name].loc[{"model_x": x, "model_y": y}] = effect
    result[f"{name}_standard_error"].loc[{"model_x": x, "model_y": y}] = error
    (claim,) = [claim for claim in claims.all_claims({"cka": result}) if claim.number == number]
    return claim


@pytest.mark.parametrize("number", READS)
@pytest.mark.parametrize(
    ("effect", "error", "verdict"),
    [
        (0.2, 0.1, "holds"),  # 0.2 - 0.196 > 0
        (0.19, 0.1, "cannot tell"),
        (-0.19, 0.1, "cannot tell"),
        (-0.2, 0.1, "does not hold"),
        (0.05, 0.0, "holds"),
        (0.0, 0.0, "cannot tell"),
        (1e-17, 0.0, "cannot tell"),  # rounding is no effect
    ],
)
def test_verdict_is_the_sign_of_the_whole_interval(number, effect, error, verdict):
    claim = judged(number, effect, error)
    assert claim.verdict == verdict
    assert claim.effect == effect
    np.testing.assert_allclose(claim.interval, (effect - 1.96 * error, effect + 1.96 * error))
    assert claim.models == ("vit", "resnet")
    assert claim.source == {"1": "Fig. 1", "2": "Fig. 2", "3": "Fig. 2"}[number]
    assert ("includes zero" in claim.note) == (verdict == "cannot tell")
    assert ("no width" in claim.note) == (error == 0)
    assert verdict.upper() in str(claim)


@pytest.mark.parametrize("number", READS)
def test_what_is_undefined_cannot_tell_and_says_why(number):
    claim = judged(number, math.nan, math.nan)
    assert (claim.verdict, math.isnan(claim.effect)) == ("cannot tell", True)
    assert "undefined" in claim.note
    claim = judged(number, 0.5, math.nan, images=32)
    assert (claim.verdict, claim.effect) == ("cannot tell", 0.5)
    assert "two groups" in claim.note and "there is 1" in claim.note


def test_notes_name_what_makes_an_interval_doubtful():
    assert "argmax" in judged("2", 0.2, 0.01).note
    assert "argmax" in judged("3", 0.2, 0.01).note
    assert judged("1", 0.2, 0.01).note == ""
    assert "Only 3 groups" in judged("1", 0.2, 0.01, images=96).note
    result = pair()
    known = json.loads(result.attrs["provenance"])
    known["models"]["vit"]["weights"] = {"format": "random", "seed": 0}
    found = claims.all_claims([result.assign_attrs(provenance=json.dumps(known))])
    assert all("vit has random weights." in claim.note for claim in found)


def test_every_pair_of_a_vit_and_a_resnet_is_asked():
    taps = vit_layers(1)
    models = {
        "a": ("vit", "tiny", taps),
        "b": ("vit", "tiny", taps),
        "c": ("resnet", "small", taps),
        "d": ("resnet", "small", taps),
        "e": ("mixer", "small", taps),
        "f": ("", "", taps),  # a network of the user's own
    }
    found = claims.all_claims([cka(models)])
    expected = [(n, pair) for n in "123" for pair in (("a", "c"), ("a", "d"), ("b", "c"))]
    asked = [(claim.number, claim.models) for claim in found]
    assert sorted(asked) == sorted([*expected, *((n, ("b", "d")) for n in "123")])


def test_results_of_one_model_from_two_runs_are_two_claims():
    first, second = (
        alone("skip_ratio", "v", "vit", {"phases": ((), effect)}) for effect in (0.1, 0.2)
    )
    assert [claim.effect for claim in claims.all_claims([first, second])] == [0.1, 0.2]
    folders = {"a/skip_ratio.v": first, "b/skip_ratio.v": second}
    assert [claim.effect for claim in claims.all_claims(folders)] == [0.1, 0.2]


def test_cka_of_one_model_each_gives_no_claim_between_them():
    """The claims on CKA need both models in one Result."""
    taps = vit_layers(1)
    results = [cka({"v": ("vit", "tiny", taps)}), cka({"r": ("resnet", "small", taps)})]
    assert claims.all_claims(results) == []


def test_no_pair_or_no_cka_no_claim():
    assert claims.all_claims([cka({"a": ("vit", "tiny", vit_layers(1))})]) == []
    known = provenance("accuracy", {"a": ("vit", "x"), "b": ("resnet", "y")})
    assert claims.all_claims([pair().assign_attrs(provenance=json.dumps(known))]) == []


@pytest.mark.parametrize(
    ("effect", "verdict"), [(0.3, "holds"), (-0.3, "does not hold"), (0.01, "cannot tell")]
)
def test_claims_of_one_vit_are_read_off_its_own_results(effect, verdict):
    results = {
        "attention_distance.v": alone(
            "attention_distance", "v", "vit", {"local_and_global": ((), effect)}
        ),
        "skip_ratio.v": alone("skip_ratio", "v", "vit", {"phases": ((), effect)}),
        "skip_ratio.r": alone("skip_ratio", "r", "resnet", {"phases": ((), math.nan)}),
    }
    found = claims.all_claims(results)
    assert [(c.number, c.models, c.effect, c.verdict) for c in found] == [
        ("4a", ("v",), effect, verdict),
        ("5", ("v",), effect, verdict),
    ]
    np.testing.assert_allclose(found[0].interval, (effect - 0.0196, effect + 0.0196))


def reach(model, family, radii, side):
    taps = [f"block{i:02d}/out" for i in range(len(radii))]
    depth, branch = np.linspace(0, 1, len(radii)), np.zeros(len(radii), bool)
    coords = {"tap": taps, "depth": ("tap", depth), "branch": ("tap", branch)}
    values = {"radius": ("tap", radii), "field": (("tap", "y", "x"), np.zeros((len(radii), *side)))}
    return alone("receptive_field", model, family, values, coords)


def test_claims_between_two_results_take_the_difference_and_both_errors():
    grid = {"grid": ("layer", ["7x7", "7x7"])}
    results = {
        "localization.v": alone(
            "localization", "v", "vit", {"own_rate": ("layer", [1, 0.9])}, grid
        ),
        "localization.r": alone(
            "localization", "r", "bit", {"own_rate": ("layer", [1, 0.2])}, grid
        ),
        "receptive_field.v": reach("v", "vit", [8, 10, 12, 30], (32, 32)),
        "receptive_field.r": reach("r", "bit", [1, 3, 9, 20], (64, 64)),
    }
    place, low = claims.all_claims(results)
    assert (place.number, place.models, place.verdict) == ("7a", ("v", "r"), "holds")
    assert place.effect == pytest.approx(0.7) and place.note == ""
    half = 1.96 * math.sqrt(2) * 0.01
    np.testing.assert_allclose(place.interval, (0.7 - half, 0.7 + half))
    # the lowest third of four layers are two, of depth 0 and 1/3
    assert low.number == "9" and low.effect == pytest.approx(9 / 32 - 2 / 64)
    half = 1.96 * 0.01 * math.hypot(1 / 32, 1 / 64)
    np.testing.assert_allclose(low.interval, (low.effect - half, low.effect + half))


def test_other_grids_and_other_jobs_are_told_apart():
    made = {}
    for model, family, cells in (("v", "vit", "14x14"), ("r", "resnet", "7x7")):
        grid = {"grid": ("layer", [cells])}
        made[f"localization.{model}"] = alone(
            "localization", model, family, {"own_rate": ("layer", [0.5])}, grid
        )
    (claim,) = claims.all_claims(made)
    assert "14x14 and 7x7 cells" in claim.note
    other = json.loads(made["localization.r"].attrs["provenance"]) | {"name": "coarse.r"}
    made["localization.r"].attrs["provenance"] = json.dumps(other)
    assert claims.all_claims(made) == []


def test_an_undefined_effect_says_what_its_claim_takes():
    """Claim 5 of a ViT without a class token, claim 4 of one with 2 blocks."""
    made = {
        "attention_distance.v": alone(
            "attention_distance", "v", "vit", {"local_and_global": ((), math.nan)}
        ),
        "skip_ratio.v": alone("skip_ratio", "v", "vit", {"phases": ((), math.nan)}),
    }
    four, five = claims.all_claims(made)
    assert "undefined: it takes at least 4 blocks" in four.note
    assert "undefined: it takes a class token" in five.note
    assert not any("live layers" in claim.note for claim in (four, five))


def test_a_vit_without_a_class_token_is_not_asked_whether_it_keeps_place():
    grid = {"grid": ("layer", ["7x7"])}
    made = {
        f"localization.{model}": alone(
            "localization",
            model,
            family,
            {"own_rate": ("layer", [0.5]), "own_contrast": ("layer", [0.2])},
            grid,
        )
        for model, family in (("v", "vit"), ("g", "vit"), ("r", "resnet"))
    }
    made["localization.g"].attrs["class_token"] = 0
    of_cnn = [claim.models for claim in claims.all_claims(made) if claim.number == "7a"]
    assert of_cnn == [("v", "r")]


def test_errors_over_single_images_are_not_said_to_rest_on_groups():
    def low(images):
        made = {
            f"receptive_field.{model}": reach(model, family, [8, 10, 12], (32, 32))
            for model, family in (("v", "vit"), ("r", "resnet"))
        }
        for result in made.values():
            known = json.loads(result.attrs["provenance"])
            known["fields"]["images"] = images
            result.attrs["provenance"] = json.dumps(known)
        (claim,) = claims.all_claims(made)
        return claim.note

    assert "Only" not in low(64)  # 2 groups of 32
    assert "Only 5 images: the interval is too narrow" in low(5)


def only(results, number):
    (claim,) = [claim for claim in claims.all_claims(results) if claim.number == number]
    return claim


SIGNS = pytest.mark.parametrize(
    ("sign", "verdict"), [(1, "holds"), (-1, "does not hold"), (0, "cannot tell")]
)


@SIGNS
def test_local_heads_and_low_layers_of_a_cnn(sign, verdict):
    layers = ["r/stage1/unit01/out", "r/stage1/unit02/out", "v/block01/out"]
    z = np.array([-0.5, -0.3, 9.0]) * sign
    variables = {"spearman_z": ("layer", z), "spearman_z_standard_error": ("layer", [0.1, 0.2, 9])}
    known = provenance("head_cka", {"v": ("vit", "x"), "r": ("resnet", "y")})
    attrs = {"heads_of": "v/block00/heads", "provenance": json.dumps(known)}
    result = xarray.Dataset(variables, {"layer": layers}, attrs)
    claim = only([result], "Fig. 5")
    assert (claim.models, claim.verdict) == (("v", "r"), verdict)
    half = 1.96 * 0.15
    np.testing.assert_allclose(claim.effect, 0.4 * sign)
    np.testing.assert_allclose(claim.interval, (claim.effect - half, claim.effect + half))
    assert f"correlation is {math.tanh(-0.4 * sign) + 0.0:.2f}" in claim.note


def probes(model, family, accuracy, features, **attrs):
    """accuracy: [layer, feature]."""
    depth = np.linspace(0, 1, len(accuracy))
    coords = {"layer": [f"l{i}" for i in range(len(accuracy))], "feature": features}
    values = {"accuracy": (("layer", "feature"), accuracy)}
    return alone("probe", model, family, values, {**coords, "depth": ("layer", depth)})


@SIGNS
def test_probes_of_single_positions(sign, verdict):
    results = {
        "probe.v": probes("v", "vit", [[0.1, 0.2], [0.6, 0.3]], ["class", "tokens"]),
        "probe.g": probes("g", "vit", [[0.2], [0.3]], ["tokens"]),  # no class token: not asked
        "probe.r": probes("r", "resnet", [[0.9], [0.3 + 0.1 * sign]], ["tokens"]),
    }
    claim = only(results, "Fig. 11 left")
    assert (claim.models, claim.verdict) == (("r", "v"), verdict)
    assert claim.effect == pytest.approx(0.1 * sign)


@SIGNS
def test_the_class_token_gathers_what_positions_know(sign, verdict):
    features = ["class", "spatial"]
    accuracy = np.array([[0.1, 0.4], [0.3, 0.35], [0.6, 0.65 - 0.1 * sign]])
    claim = only([probes("v", "vit", accuracy, features)], "Fig. 11 right")
    assert claim.verdict == verdict
    # last layer: class - spatial = -0.05 + 0.1 sign; middle layer: -0.05
    assert claim.effect == pytest.approx(0.1 * sign)
    assert claim.interval[1] - claim.effect == pytest.approx(1.96 * 0.02)


@SIGNS
def test_size_of_a_vit(sign, verdict):
    accuracy = np.array([[0.9], [0.5], [0.5], [0.1]])  # the middle third are layers 1 and 2
    results = {
        "probe.s": probes("s", "vit", accuracy, ["spatial"]),
        "probe.l": probes(
            "l", "vit", accuracy + np.array([[0], [0.2 * sign], [0], [0]]), ["spatial"]
        ),
    }
    known = json.loads(results["probe.l"].attrs["provenance"])
    known["models"]["l"]["parameters"] = 2345678
    results["probe.l"].attrs["provenance"] = json.dumps(known)
    claim = only(results, "8b")
    assert (claim.models, claim.verdict) == (("l", "s"), verdict)
    assert claim.effect == pytest.approx(0.1 * sign)


@SIGNS
def test_attention_before_the_residual_sum(sign, verdict):
    taps = [f"block{i:02d}/{part}" for i in range(4) for part in ("attn", "mlp")]
    outside = np.array([0.1, 0.9, 0.1, 0.9, *(0.5 + 0.2 * sign, 0.5) * 2])
    coords = {"tap": taps, "branch": ("tap", [True] * 8), "depth": ("tap", np.linspace(0, 1, 8))}
    result = alone("receptive_field", "v", "vit", {"outside": ("tap", outside)}, coords)
    claim = only([result], "Fig. C.4")
    assert (claim.verdict, claim.over) == (verdict, "images")
    assert claim.effect == pytest.approx(0.2 * sign)
    after = result.assign_coords(branch=("tap", [False] * 8))
    assert claims.all_claims([after]) == []


def mixer(**values):
    models = {
        "m": ("mixer", "B/16", vit_layers(1)),
        "v": ("vit", "B/16", vit_layers(1)),
        "r": ("resnet", "50", vit_layers(1)),
    }
    result = cka(models)
    for name, (by, numbers, error) in values.items():
        result[name] = (by, numbers)
        result[f"{name}_standard_error"] = (by, np.full(np.shape(numbers), error))
        return result


@SIGNS
def test_two_blocks_of_a_mixer(sign, verdict):
    blocks = ("model_x", np.array([0.3 * sign, 9.0, 9.0]), 0.1)
    claim = only([mixer(two_blocks=blocks)], "Fig. H.1")
    assert (claim.models, claim.verdict, claim.effect) == (("m",), verdict, 0.3 * sign)


@SIGNS
def test_a_mixer_between_a_vit_and_a_cnn(sign, verdict):
    matrix = np.array([[1, 0.5 + 0.2 * sign, 0.5], [9, 9, 9], [9, 9, 9]])
    claim = only([mixer(mean_cka=(("model_x", "model_y"), matrix, 0.03))], "Fig. H.2")
    assert (claim.models, claim.verdict) == (("m", "v", "r"), verdict)
    assert claim.effect == pytest.approx(0.2 * sign)
    assert claim.interval[1] - claim.effect == pytest.approx(1.96 * np.hypot(0.03, 0.03))


@SIGNS
def test_a_class_token_against_gap_in_one_measurement(sign, verdict):
    grid = {"grid": ("layer", ["7x7", "7x7"])}
    results = {}
    for model, contrast, class_token in (("t", 0.5 + 0.1 * sign, 1), ("g", 0.5, 0)):
        values = {"own_contrast": ("layer", [9.0, contrast]), "own_rate": ("layer", [1, 1])}
        attrs = {"class_token": class_token}
        results[f"localization.{model}"] = alone("localization", model, "vit", values, grid, attrs)
    claim = only(results, "7b")
    assert (claim.models, claim.verdict) == (("t", "g"), verdict)
    assert claim.effect == pytest.approx(0.1 * sign)


def test_claim_7_shows_what_can_be_read_from_the_tokens():
    grid = {"grid": ("layer", ["7x7"])}
    decoded = {"layer": ["out"], "target": ["position", "pixels"]}
    results = {}
    for model, family, r2 in (("v", "vit", [0.9, 0.1]), ("r", "resnet", [0.8, 0.2])):
        values = {"own_rate": ("layer", [0.5])}
        results[f"localization.{model}"] = alone("localization", model, family, values, grid)
        values = {"r2": (("layer", "target"), [r2])}
        results[f"decoding.{model}"] = alone("decoding", model, family, values, decoded)
    note = only(results, "7a").note
    assert "to position: v 0.90 ± 0.01, r 0.80 ± 0.01; to pixels: v 0.10" in note
    apart = {f"{n.split('.')[0]}/{n}": result for n, result in results.items()}
    assert "position" not in only(apart, "7a").note  # of another run


def test_best_matches_are_measured_against_permuted_images():
    result = pair()
    n, x = result.sizes["layer_x"], ("layer_x", "model_y")
    result["match_cka"] = (x, np.full((n, 2), 0.7))
    result["match_null"] = (x, np.full((n, 2), 0.05))
    for number in ("2", "3"):
        assert (
            "0.70 on average, 0.65 above the best matches of permuted images (0.05)"
            in only([result], number).note
        )
    result["match_null"] = (x, np.full((n, 2), 0.8))
    for number in ("2", "3"):
        claim = only([result], number)
        assert claim.verdict == "cannot tell" and "no better than by chance" in claim.note


def test_what_cannot_be_told_says_what_would_settle_it():
    # 0.1 with an error of 0.1: (1.96 * 0.1 / 0.1)^2 = 3.84 times 640 images, and a tenth more.
    claim = judged("1", 0.1, 0.1)
    assert claim.settled_by.endswith("about 2,800 images would settle it.")
    assert "no practicable number of images" in judged("1", 0.001, 0.1).settled_by
    assert "no practicable number of images" in judged("1", 0.0, 0.1).settled_by
    assert judged("1", 0.3, 0.1).settled_by == ""
    assert "is defined" in judged("1", math.nan, math.nan).settled_by
    assert "two groups of images" in judged("1", 0.3, math.nan).settled_by


def test_holm_over_the_twelve_questions():
    assert len(verdicts.QUESTIONS) == 12
    result = pair()
    effects = {"1": (0.5, 0.1), "2": (0.33, 0.1), "3": (-0.33, 0.1)}
    for number, (effect, error) in effects.items():
        name, x, y = READS[number]
        result[name].loc[{"model_x": x, "model_y": y}] = effect
        result[f"{name}_standard_error"].loc[{"model_x": x, "model_y": y}] = error
    found = {claim.number: claim for claim in claims.all_claims([result])}
    # Student's t of 5.0 and 3.3 errors with 19 degrees of freedom, for 20 groups of 32 images.
    p = {"1": 7.98e-5, "2": 3.76e-3, "3": 3.76e-3}
    assert {n: claim.p for n, claim in found.items()} == pytest.approx(p, rel=1e-2)
    assert found["1"].corrected_p == pytest.approx(12 * found["1"].p)
    # The second smallest counts 11 times, and the third no less than the second.
    assert found["2"].corrected_p == pytest.approx(11 * found["2"].p)
    assert found["3"].corrected_p == pytest.approx(11 * found["3"].p)
    assert {n: c.survives for n, c in found.items()} == {"1": True, "2": True, "3": True}
    result["lower_match_lag"].loc[{"model_x": "resnet", "model_y": "vit"}] = 0.25  # p = 0.022
    found = {claim.number: claim for claim in claims.all_claims([result])}
    assert found["2"].verdict == "holds" and not found["2"].survives
    assert found["3"].survives


def test_claims_come_in_the_order_of_the_questions():
    result = mixer(two_blocks=("model_x", np.ones(3), 0.1))
    order = [claim.number for claim in claims.all_claims([result])]
    assert order == ["1", "2", "3", "Fig. H.1"]
