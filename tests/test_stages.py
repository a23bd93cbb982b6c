"""Stages: passes over other images that come first, each resumed by itself, and their errors."""

import json

import pytest
from networks import randomised

import vitcnn
from vitcnn import engine, plan, results

SCENES = {"source": "scenes", "classes": 4}


@pytest.fixture(scope="module")
def models():
    return {"v": randomised(vitcnn.load("vit", "mini/4", depth=1, width=24, mlp_dim=24))}


def config(**changes):
    scored = {"probe": plan.job(analysis="probe", penalties=(1.0, 100.0))}
    fitted = {"probe": plan.job(analysis="probe_fit", features=("class",))}
    return {
        "stages": {
            "fit": {"data": {**SCENES, "size": 40}, "analyses": fitted},
            "held_out": {"data": {**SCENES, "size": 60, "start": 40}, "analyses": scored},
        },
        "data": {**SCENES, "size": 20, "split": "test"},
        "analyses": scored,
        "group": 20,
        **changes,
    }


def test_each_stage_is_a_run_of_its_own_that_is_not_repeated(models, tmp_path, monkeypatch):
    seen = []

    def stopped(models, source, jobs, **fields):
        seen.append(len(source))
        if len(seen) == 3:
            raise KeyboardInterrupt
        return measure(models, source, jobs, **fields)

    measure = engine.measure
    monkeypatch.setattr(engine, "measure", stopped)
    with pytest.raises(KeyboardInterrupt):
        vitcnn.analyze(config(), tmp_path, models=models, progress=False)
    assert seen == [40, 20, 20]  # fit, held_out, and the test images
    assert (tmp_path / "fit" / "probe.v.nc").is_file()
    assert (tmp_path / "held_out" / "probe.v.nc").is_file()
    assert not (tmp_path / "probe.v.nc").is_file()
    found = vitcnn.analyze(config(), tmp_path, models=models, progress=False)["probe.v"]
    assert seen == [40, 20, 20, 20]  # the stages were read back
    origin = results.provenance(found)
    assert origin["data"]["split"] == "test"
    assert origin["stages"]["fit"]["data"]["size"] == 40
    assert origin["stages"]["held_out"]["data"]["part"] == {"start": 40, "stop": 60}
    vitcnn.analyze(config(), tmp_path, models=models, progress=False)
    assert len(seen) == 4
    fit = json.loads((tmp_path / "fit" / "run.json").read_text())
    assert fit["config"]["analyses"]["probe"]["analysis"] == "probe_fit"


def test_a_workdir_of_other_stages_is_refused(models, tmp_path):
    vitcnn.analyze(config(), tmp_path, models=models, progress=False)
    other = config()
    other["stages"]["fit"]["data"]["size"] = 36
    with pytest.raises(ValueError, match=r"config.stages.fit.data.size: 40 there, 36 here"):
        vitcnn.analyze(other, tmp_path, models=models, progress=False)


def without(stage):
    made = config()
    del made["stages"][stage]
    return made


def changed(stage, **fields):
    made = config()
    made["stages"][stage] = {**made["stages"][stage], **fields}
    return made


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (without("fit"), r"config.analyses.probe.fit = 'fit': .* set config.stages.fit.analyses"),
        (changed("fit", dta={}), r"unknown field of config.stages.fit 'dta': did you mean 'data'"),
        (
            changed("fit", data={"source": "npz", "path": ""}),
            r"config.stages.fit.data.path is empty; give it with --config.stages.fit.data.path=",
        ),
        (
            changed("fit", data={**SCENES, "size": 40, "shots": 50}),
            r"data.shots = 50: 4 of 4 classes have fewer images",
        ),
        (
            changed("fit", data={**SCENES, "classes": 3, "size": 40}),
            "the images here have 4 classes, those of the fit 3",
        ),
    ],
)
def test_bad_stages_are_named(models, tmp_path, asked, message):
    with pytest.raises(ValueError, match=message):
        vitcnn.analyze(asked, tmp_path, models=models, progress=False)


def test_a_mistake_behind_the_stages_comes_out_before_them(models, tmp_path):
    analyses = {**config()["analyses"], "cka": plan.job(kernel="rfb")}
    with pytest.raises(ValueError, match=r"cka: unknown kernel 'rfb': did you mean 'rbf'"):
        vitcnn.analyze(config(analyses=analyses), tmp_path, models=models, progress=False)
    assert not (tmp_path / "fit" / "run.json").exists()
