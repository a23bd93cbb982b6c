"""Evaluations during training: what `vitcnn.analyze` measures, at the right steps, and once."""

import json

import pytest
from tiny_training import assert_same, tiny, validation, weights

import vitcnn
from vitcnn import config as configs
from vitcnn import data as data_room
from vitcnn import results, training
from vitcnn.training import evaluate

SCENES = {"size": 32, "split": "test"}


def lines(workdir):
    text = (workdir / "evaluations.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def probes():
    """A few-shot probe with the settings of big_vision, fitted in a stage."""
    shots = configs.source("scenes", size=64, shots=2, draws=3)
    fit = {"probe": configs.analysis("probe_fit", taps=("pooled",))}
    probe = configs.analysis("probe", taps=("pooled",), penalties=(1024.0,), intercept=100.0)
    return {
        "data": configs.source("scenes", **SCENES),
        "stages": {"fit": configs.stage(data=shots, analyses=fit)},
        "analyses": {"probe": probe},
    }


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """Interrupted after step 4, where an evaluation was due, and resumed."""
    workdir = tmp_path_factory.mktemp("watched")
    data = configs.source("scenes", **SCENES)
    blocks = {"taps": ("block*/out",)}
    first = {"cka": configs.analysis("cka", models=("model", "initial"), **blocks)}
    last = {"cka": configs.analysis("cka", models=("model", "final"), **blocks)}
    evaluations = {
        **validation(32, every=2),
        "few_shot": configs.evaluation(**probes()),
        "initial": configs.evaluation(data=data, analyses=first, every=(4,)),
        "final": configs.evaluation(data=data, analyses=last, every=(0, "4 steps"), group=16),
    }
    config = tiny(evaluations=evaluations, checkpoint_every=4, threads=1, prefetch=2)
    real, groups, reads = evaluate.Evaluations._run, data_room.groups, []

    def interrupted(self, each, variables, step):
        if (step, each.name) == (4, "initial"):
            raise KeyboardInterrupt
        return real(self, each, variables, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data_room, "groups", lambda *a, **k: reads.append(k) or groups(*a, **k))
        with patch.context() as interrupt, pytest.raises(KeyboardInterrupt):
            interrupt.setattr(evaluate.Evaluations, "_run", interrupted)
            training.train(config, workdir, progress=False)
        return training.train(config, workdir, progress=False), workdir, reads


def test_each_evaluation_runs_once_at_its_steps(watched):
    _, workdir, _ = watched
    ran = {}
    for line in lines(workdir):
        ran.setdefault(line["evaluation"], []).append(line["step"])
    assert ran == {"val": [0, 2, 4, 6], "few_shot": [6], "initial": [0, 4, 6], "final": [0, 4, 6]}


def test_images_are_read_once_and_as_the_config_says(watched):
    """Before the interruption by two evaluations, after it by four, one of which has a stage."""
    _, workdir, reads = watched
    assert len(reads) == 2 + 5
    assert all((how["threads"], how["prefetch"]) == (1, 2) for how in reads)
    assert all(0 <= line["waiting"] <= 1 for line in lines(workdir))
    assert 0 <= json.loads((workdir / "run.json").read_text())["waiting"] <= 1


def test_numbers_are_those_of_the_weights(watched, tmp_path):
    model, workdir, _ = watched
    config = configs.measurement()
    config.data, config.group = configs.source("scenes", **SCENES), 32
    few_shot = probes()
    config.stages, config.analyses = few_shot["stages"], few_shot["analyses"]
    config.analyses.accuracy = configs.analysis("accuracy")
    expected = vitcnn.analyze(config, tmp_path, models={"model": model}, progress=False)
    val, few = results.load_steps(workdir / "evaluations/val"), workdir / "evaluations/few_shot"
    accuracy, probe = val["accuracy.model"], results.load_steps(few)["probe.model"]
    assert accuracy.step.values.tolist() == [0, 2, 4, 6] and probe.step.values.tolist() == [6]
    last = accuracy.sel(step=6)
    assert float(last.nll) == pytest.approx(float(expected["accuracy.model"].nll), rel=1e-6)
    assert float(last.top1) == float(expected["accuracy.model"].top1)
    assert probe.accuracy_draw.sizes["draw"] == 3
    assert_same(
        {"draws": probe.accuracy_draw.sel(step=6).values},
        {"draws": expected["probe.model"].accuracy_draw.values},
        rtol=0,
    )
    record = json.loads((workdir / "run.json").read_text())
    assert record["accuracy"]["top1"] == float(last.top1)
    origin = results.provenance(accuracy)
    assert origin["models"]["model"]["weights"] == {"format": "training", "step": 6, "as": "model"}


def test_cka_with_the_initial_and_the_final_network(watched):
    _, workdir, _ = watched
    initial, final = (
        results.load_steps(workdir / f"evaluations/{name}")["cka"] for name in ("initial", "final")
    )
    pair = {"layer_x": "model/block00/out"}
    start = initial.cka.sel(**pair, layer_y="initial/block00/out").values
    end = final.cka.sel(**pair, layer_y="final/block00/out").values
    assert start[0] == pytest.approx(1, abs=1e-6) and start[2] < start[1] < 1
    assert end[2] == pytest.approx(1, abs=1e-6) and end[0] < end[1] < 1


def test_snapshots_know_their_network(watched):
    model, workdir, _ = watched
    last = vitcnn.load("vit", "mini/4", workdir / "snapshots/6.npz")
    assert_same(weights(model), weights(last), rtol=0)
    with pytest.raises(ValueError, match="holds vit mini/4, not vit B/16"):
        vitcnn.load("vit", "B/16", workdir / "snapshots/0.npz")


def test_moments():
    def resolve(duration, where):
        return 3 * int(str(duration).removesuffix("x")) if "x" in str(duration) else int(duration)

    find = lambda every: sorted(evaluate.moments(every, resolve, 10, "where"))  # noqa: E731
    assert find(4) == [0, 4, 8, 10] and find(0) == [] and find(()) == []
    assert find("1x") == [0, 3, 6, 9, 10] and find("1x,7") == find((7, "1x")) == [3, 7]
