"""Verdicts on Results whose effects are set by hand."""

import json
import math

import numpy as np
import pytest
from fabricated import alone, cka, pair, provenance, vit_layers

from vitcnn import claims

# claim -> (variable, model x, model y) that it must read
READS = {
    1: ("lower_upper_difference", "vit", "resnet"),
    2: ("lower_match_lag", "resnet", "vit"),
    3: ("upper_match_drop", "vit", "resnet"),
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
    assert claim.source == {1: "Fig. 1", 2: "Fig. 2", 3: "Fig. 2"}[number]
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
    assert "argmax" in judged(2, 0.2, 0.01).note
    assert "argmax" in judged(3, 0.2, 0.01).note
    assert judged(1, 0.2, 0.01).note == ""
    assert "Only 3 groups" in judged(1, 0.2, 0.01, images=96).note
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
    expected = [(n, pair) for n in (1, 2, 3) for pair in (("a", "c"), ("a", "d"), ("b", "c"))]
    asked = [(claim.number, claim.models) for claim in found]
    assert sorted(asked) == sorted([*expected, *((n, ("b", "d")) for n in (1, 2, 3))])


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
        (4, ("v",), effect, verdict),
        (5, ("v",), effect, verdict),
    ]
    np.testing.assert_allclose(found[0].interval, (effect - 0.0196, effect + 0.0196))


def reach(model, family, radii, side):
    depth = ("tap", np.linspace(0, 1, len(radii)))
    values = {"radius": ("tap", radii), "field": (("tap", "y", "x"), np.zeros((len(radii), *side)))}
    return alone("receptive_field", model, family, values, {"depth": depth})


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
    assert (place.number, place.models, place.verdict) == (7, ("v", "r"), "holds")
    assert place.effect == pytest.approx(0.7) and place.note == ""
    half = 1.96 * math.sqrt(2) * 0.01
    np.testing.assert_allclose(place.interval, (0.7 - half, 0.7 + half))
    # the lowest third of four layers are two, of depth 0 and 1/3
    assert low.number == 9 and low.effect == pytest.approx(9 / 32 - 2 / 64)
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
            "localization", model, family, {"own_rate": ("layer", [0.5])}, grid
        )
        for model, family in (("v", "vit"), ("g", "vit"), ("r", "resnet"))
    }
    made["localization.g"].attrs["class_token"] = 0
    assert [claim.models for claim in claims.all_claims(made)] == [("v", "r")]


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
