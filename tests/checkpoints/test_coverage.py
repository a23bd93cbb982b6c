"""scripts/coverage.py: what it counts as loaded is what timm computes."""

import pytest
import running

pytestmark = pytest.mark.oracle
# A small network of each group that loads, and one that is refused with the part that it lacks.
LOADED = [
    *("test_vit.r160_in1k", "vit_tiny_patch16_224.augreg_in21k", "deit_tiny_patch16_224.fb_in1k"),
    *("deit_tiny_distilled_patch16_224.fb_in1k", "resnet18.a1_in1k", "mixer_b16_224.goog_in21k"),
]
REFUSED = {
    "vit_dpwee_patch16_reg1_gap_256.sbb_in1k": "RMS norms, differences of attention",
    "gmixer_24_224.ra3_in1k": "gated MLPs",
    "eva02_tiny_patch14_224.mim_in22k": "rotary positions",
}


@pytest.fixture(scope="module")
def script():
    pytest.importorskip("timm")
    return running.load(running.ROOT / "scripts/coverage.py")


@pytest.mark.parametrize("name", LOADED)
def test_networks_that_load_are_timms(script, name):
    assert script.by_shapes(name) == ("loads", "")
    outcome, difference = script.by_logits(name)
    assert outcome == "exact" and float(difference) < 1e-4


@pytest.mark.parametrize("name", REFUSED)
def test_networks_that_are_refused_name_the_part(script, name):
    outcome, reason = script.by_shapes(name)
    assert outcome == "refused" and REFUSED[name] in reason


def test_a_run_goes_on_and_makes_a_table(script, tmp_path):
    path = tmp_path / "a.tsv"
    lines = [script.COLUMNS, ("a.x", "resnet", "loads", ""), ("b", "resnet", "refused", "a part")]
    lines.append(("a.x", "resnet", "exact", "1e-6"))
    path.write_text("".join("\t".join(line) + "\n" for line in lines))
    results = script.read(path)
    assert results["a.x"] == ("a.x", "resnet", "exact", "1e-6")
    header, row, total = (line.split() for line in script.table(results.values()))
    assert header == ["group", "names", "loads", "refused", "wrong", "architectures"]
    assert row == ["resnet", "2", "1", "1", "0", "1"] and total[1:] == row[1:]
