"""Stages: passes over other images that come first, each resumed by itself, and their errors."""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys

import pytest
from networks import randomised

import vitcnn
from vitcnn import config as configs
from vitcnn import results
from vitcnn.engine import analyze

TESTS = pathlib.Path(__file__).parents[1]
SCENES = {"source": "scenes", "classes": 4}


def tiny():
    return {"v": randomised(vitcnn.load("vit", "mini/4", depth=1, width=24, mlp_dim=24))}


@pytest.fixture(scope="module")
def models():
    return tiny()


def config(**changes):
    scored = {"probe": configs.analysis("probe", penalties=(1.0, 100.0))}
    fitted = {"probe": configs.analysis("probe_fit", features=("class",))}
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

    def stopped(models, source, *args, **options):
        seen.append(len(source))
        if len(seen) == 3:
            raise KeyboardInterrupt
        return measure(models, source, *args, **options)

    measure = analyze.measure
    monkeypatch.setattr(analyze, "measure", stopped)
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


def named(name):
    made = config()
    made["stages"][name] = made["stages"].pop("fit")
    return made


def without_analyses():
    made = config()
    del made["stages"]["fit"]["analyses"]
    return made


def fitted_with(**fields):
    return changed("fit", analyses={"probe": {"analysis": "probe_fit", **fields}})


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            without("fit"),
            r"config.stages.held_out.analyses.probe.fit = 'fit': .* set config.stages.fit.analyses",
        ),
        (changed("fit", dta={}), r"unknown field of config.stages.fit 'dta': did you mean 'data'"),
        (
            changed("fit", data={"source": "npz", "path": ""}),
            r"config.stages.fit.data.path is not set; give it with --config.stages.fit.data.path=",
        ),
        (
            changed("fit", data={**SCENES, "size": 40, "shots": 50}),
            r"data.shots = 50: 4 of 4 classes have fewer images",
        ),
        (
            changed("fit", data={**SCENES, "classes": 3, "size": 40}),
            "the images here have 4 classes, those of the fit 3",
        ),
        (fitted_with(imagse=3), "unknown field of config.stages.fit.analyses.probe 'imagse'"),
        (fitted_with(images=41), "config.stages.fit.analyses.probe.images = 41, but the data"),
        (
            fitted_with(models=("w",)),
            "unknown model 'w' in config.stages.fit.analyses.probe.models",
        ),
        (fitted_with(taps=("blok",)), "config.stages.fit.analyses.probe.taps: no tap of v"),
        (without_analyses(), "config.stages.fit.analyses is empty"),
        (changed("fit", analyses={}), "config.stages.fit.analyses is empty"),
        (named("a/fit"), "'a/fit' cannot name a model, an analysis or a stage"),
    ],
)
def test_bad_stages_are_named(models, tmp_path, asked, message):
    with pytest.raises(ValueError, match=message):
        vitcnn.analyze(asked, tmp_path, models=models, progress=False)


def test_a_mistake_behind_the_stages_comes_out_before_them(models, tmp_path):
    analyses = {**config()["analyses"], "cka": configs.analysis("cka", kernel="rfb")}
    with pytest.raises(ValueError, match=r"cka: unknown kernel 'rfb': did you mean 'rbf'"):
        vitcnn.analyze(config(analyses=analyses), tmp_path, models=models, progress=False)
    assert not (tmp_path / "fit" / "run.json").exists()


def test_a_last_group_that_does_not_fit_comes_out_before_the_stages(models, tmp_path):
    """Groups of 20 fit, the last one of 17 is too small for 18 neighbours."""
    analyses = {
        **config()["analyses"],
        "similarity": configs.analysis(
            "similarity", taps=("block*/out",), measures=("neighbours",), neighbours=18
        ),
    }
    data = {**SCENES, "size": 37, "split": "test"}
    with pytest.raises(ValueError, match=r"similarity: .* neighbours <= 15"):
        asked = config(analyses=analyses, data=data)
        vitcnn.analyze(asked, tmp_path, models=models, progress=False)
    assert not (tmp_path / "fit" / "run.json").exists()


def test_sums_that_are_too_large_come_out_before_the_stages(models, tmp_path):
    """Those of the second stage; those of the first would fit."""
    asked = config(max_sums_gb=5e-6)
    first = {"data": {**SCENES, "size": 40}, "analyses": {"accuracy": configs.analysis("accuracy")}}
    asked["stages"] = {"a": first, **asked["stages"]}
    with pytest.raises(ValueError, match=r"the sums need .*probe.v .*more than config.max_sums_gb"):
        vitcnn.analyze(asked, tmp_path, models=models, progress=False)
    assert not (tmp_path / "a" / "run.json").exists()


HOST = """
import sys
import test_stages, vitcnn
from vitcnn import parallel
coordinator, process, *workdirs = sys.argv[1:]
parallel.start(coordinator, 2, int(process))
for workdir in workdirs:
    found = vitcnn.analyze(
        test_stages.config(), workdir, models=test_stages.tiny(), progress=False
    )["probe.v"]
    print("found", found.accuracy.values.tobytes().hex(), found.attrs["provenance"])
"""


@pytest.mark.slow
def test_hosts_without_a_shared_disk_go_on_from_the_results_of_the_first(models, tmp_path):
    """Host 0 has finished the stages in one workdir, and all in another; host 1 has no files."""
    expected = vitcnn.analyze(config(), tmp_path / "whole0", models=models, progress=False)
    expected = expected["probe.v"]
    shutil.copytree(tmp_path / "whole0", tmp_path / "parts0")
    (tmp_path / "parts0" / "probe.v.nc").unlink()
    with socket.socket() as s:
        s.bind(("localhost", 0))
        coordinator = f"localhost:{s.getsockname()[1]}"
    hosts = []
    for i in range(2):
        workdirs = [str(tmp_path / f"{kind}{i}") for kind in ("parts", "whole")]
        command = [sys.executable, "-W", "error", "-c", HOST, coordinator, str(i), *workdirs]
        environment = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": "1",
            "PYTHONPATH": os.pathsep.join(map(str, (TESTS / "engine", TESTS, TESTS.parent))),
        }
        hosts.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
    try:
        said = [host.communicate(timeout=120)[0].splitlines() for host in hosts]
    finally:
        for host in hosts:
            host.kill()
    said = [[line for line in lines if line.startswith("found ")] for lines in said]
    assert [host.returncode for host in hosts] == [0, 0]
    for parts, whole in said:
        assert parts.split()[1] == whole.split()[1] == expected.accuracy.values.tobytes().hex()
        assert whole.split(" ", 2)[2] == expected.attrs["provenance"]
