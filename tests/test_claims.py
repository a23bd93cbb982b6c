"""Verdicts on Results whose effects are set by hand."""

import json
import math

import numpy as np
import pytest
from fabricated import cka, pair, provenance, vit_layers

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


def test_no_pair_or_no_cka_no_claim():
    assert claims.all_claims([cka({"a": ("vit", "tiny", vit_layers(1))})]) == []
    known = provenance("accuracy", {"a": ("vit", "x"), "b": ("resnet", "y")})
    assert claims.all_claims([pair().assign_attrs(provenance=json.dumps(known))]) == []
