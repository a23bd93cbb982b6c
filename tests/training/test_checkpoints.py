"""Checkpoints are never wrong: after kills, signals, and numbers that are not finite."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import running
from tiny_training import assert_same, constant, tiny, validation, weights

import vitcnn
from vitcnn import data, training
from vitcnn.results import workdir as run_folder
from vitcnn.training import loop, stop

TESTS = pathlib.Path(__file__).parents[1]
# Everything that is random in a step is on.
RANDOM = {
    "augment": ("flip", "pad_crop(2)"),
    "mixing": {"mixup": 0.2},
    "model": {
        **{"family": "vit", "variant": "mini/4", "num_classes": 8, "depth": 1, "width": 48},
        **{"mlp_dim": 64, "dropout": 0.1, "stochastic_depth": 0.1},
    },
    "average": 0.9,
    "steps": 40,
    "checkpoint_every": 2,
}
SCRIPT = """
import json, sys
sys.path.insert(0, {tests!r})
from tiny_training import tiny
from vitcnn import training
try:
    training.train(tiny(**{changes!r}), {workdir!r}, progress=False)
except training.Stopped as stopped:
    print(stopped)
    sys.exit(training.EXIT_CODE)
"""


def numbers(workdir):
    """Returns the lines of the log without what depends on time."""
    lines = [json.loads(line) for line in (workdir / "train.jsonl").read_text().splitlines()]
    return [(line["step"], line["learning_rate"], line["parameter_norm"]) for line in lines]


def process(workdir):
    code = SCRIPT.format(tests=str(TESTS), changes=RANDOM, workdir=str(workdir))
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=TESTS.parent,
        env=running.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(condition, child):
    started = time.monotonic()
    while not condition() and child.poll() is None:
        assert time.monotonic() - started < 300
        time.sleep(0.001)


def saved(workdir):
    folder = workdir / "checkpoints"
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return [int(name) for name in names if name.isdigit()], [n for n in names if "tmp" in n]


def test_killed_while_it_saves_and_stopped_by_a_signal_it_ends_with_the_same_bits(tmp_path):
    killed = process(tmp_path / "a")
    # While the third checkpoint or a later one is written.

    def saving():
        steps, partial = saved(tmp_path / "a")
        return max(steps, default=0) >= 4 and partial

    wait_for(saving, killed)
    killed.send_signal(signal.SIGKILL)
    output, _ = killed.communicate()
    assert killed.returncode == -signal.SIGKILL, output
    before = max(saved(tmp_path / "a")[0])
    stopped = process(tmp_path / "a")
    wait_for(lambda: max(saved(tmp_path / "a")[0], default=0) > before, stopped)
    stopped.send_signal(signal.SIGTERM)
    output, _ = stopped.communicate(timeout=300)
    assert stopped.returncode == training.EXIT_CODE == 75, output
    assert "SIGTERM: stopped after step" in output and "the same command goes on" in output
    assert not saved(tmp_path / "a")[1] and len(saved(tmp_path / "a")[0]) == 2
    resumed = training.train(tiny(**RANDOM), tmp_path / "a", progress=False)
    whole = training.train(tiny(**RANDOM), tmp_path / "b", progress=False)
    assert_same(weights(whole), weights(resumed), rtol=0)
    assert numbers(tmp_path / "a") == numbers(tmp_path / "b")


def test_numbers_that_are_not_finite_never_replace_a_good_state(tmp_path, monkeypatch):
    """The gradient of step 4 is not finite; a checkpoint is due there, and no line of the log."""
    real = loop.steps.make

    def broken(*args):
        take = real(*args)

        def step(state, batch):
            bad = state.step == 3
            params = jax.tree.map(lambda x: jnp.where(bad, jnp.nan, x), state.params)
            return take(state.replace(params=params), batch)

        return step

    monkeypatch.setattr(loop.steps, "make", broken)
    config = tiny(checkpoint_every=2, log_every=5)
    with pytest.raises(FloatingPointError, match=r"step 4 is not finite \(.*loss nan.*Lower learn"):
        training.train(config, tmp_path, progress=False)
    assert saved(tmp_path)[0] == [2]
    last = vitcnn.load("vit", "mini/4", tmp_path / "checkpoints")
    assert all(np.isfinite(value).all() for value in weights(last).values())


@pytest.fixture(scope="module")
def six(tmp_path_factory):
    """A run of six steps with an average, at a constant rate."""
    workdir = tmp_path_factory.mktemp("six")
    config = tiny(schedule=constant(), average=0.9, checkpoint_every=1, keep_every=3)
    return training.train(config, workdir, progress=False), workdir


def test_a_run_is_trained_longer_in_another_workdir(six, tmp_path):
    _, workdir = six
    assert sorted(saved(workdir)[0]) == [3, 5, 6]
    fields = {"schedule": constant(), "average": 0.9}
    state = str(workdir / "checkpoints/3")
    again = training.train(tiny(**fields, resume_from=state), tmp_path / "again", progress=False)
    assert_same(weights(six[0]), weights(again), rtol=0)
    longer = tiny(**fields, resume_from=str(workdir), steps=8)
    training.train(longer, tmp_path / "longer", progress=False)
    assert [step for step, *_ in numbers(tmp_path / "longer")] == [8]
    record = json.loads((tmp_path / "longer/run.json").read_text())
    assert record["steps"] == record["finished"] == 8
    with pytest.raises(ValueError, match=r"holds another run(.|\n)*config.steps: 6 there, 8 here"):
        training.train(tiny(**fields, steps=8), workdir, progress=False)


MISMATCHES = {
    "network": (
        {"model": {"family": "vit", "variant": "Ti/16", "num_classes": 8}},
        "holds vit mini/4, not vit Ti/16",
    ),
    "width": (
        {"model": {**tiny().model.to_dict(), "mlp_dim": 32}},
        r"mlp_dim|Dense_0/kernel",
    ),
    "optimizer": ({"optimizer": {"optimizer": "sgd"}}, "of the optimizer 'adam', .* is 'sgd'"),
    "average": (
        {"average": 0.0},
        r"has other arrays .*: config.average differs\n  average/.*\] there, absent here",
    ),
    "steps": ({"steps": 5}, "state after step 6, .* 5 steps in all: nothing is left"),
}


@pytest.mark.parametrize("case", MISMATCHES)
def test_a_state_that_does_not_fit_is_named(six, tmp_path, case):
    changes, message = MISMATCHES[case]
    fields = {"schedule": constant(), "average": 0.9, "resume_from": str(six[1]), **changes}
    with pytest.raises(ValueError, match=message):
        training.train(tiny(**fields), tmp_path, progress=False)


def test_checkpoints_have_the_average_and_the_raw_weights(six):
    model, workdir = six
    average = vitcnn.load("vit", "mini/4", workdir / "checkpoints")
    raw = vitcnn.load("vit", "mini/4", workdir / "checkpoints", average=False)
    assert_same(weights(model), weights(average), rtol=0)
    assert np.abs(weights(raw)["['params']['cls']"] - weights(model)["['params']['cls']"]).max() > 0


def test_weights_to_start_from_are_not_read_again(tmp_path, monkeypatch, six):
    """The file is gone when the run is resumed, and the last evaluation was interrupted."""
    start = tmp_path / "start.npz"
    start.write_bytes((six[1] / "weights.npz").read_bytes())
    (tmp_path / "start.vitcnn.json").write_text((six[1] / "weights.vitcnn.json").read_text())
    config = tiny(init_from=str(start), steps=2, schedule=constant(), evaluations=validation(8))
    real = loop.start.export

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop.start, "export", interrupted)
    with pytest.raises(KeyboardInterrupt):
        training.train(config, tmp_path / "run", progress=False)
    assert "finished" not in json.loads((tmp_path / "run/run.json").read_text())
    start.unlink()
    monkeypatch.setattr(loop.start, "export", real)
    monkeypatch.setattr(data, "batches", lambda *_: pytest.fail("all steps have been taken"))
    training.train(config, tmp_path / "run", progress=False)
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert record["finished"] == 2 and record["accuracy"]["images"] == 8
    assert record["model"]["weights"]["path"] == "start.npz"


def test_a_torn_line_is_cut(tmp_path):
    log = tmp_path / "train.jsonl"
    for step in (1, 2, 3):
        run_folder.log_line(log, step=step)
    log.write_text(log.read_text() + '{"step": 4, "lo')
    run_folder.cut_log(log, "step", 2)
    assert log.read_text() == '{"step": 1}\n{"step": 2}\n'
    log.write_text('{"step": 1\n{"step": 2}\n')
    with pytest.raises(ValueError, match="line 1 is not JSON"):
        run_folder.cut_log(log, "step", 2)


def test_a_second_interrupt_is_not_held_back():
    before = signal.getsignal(signal.SIGINT)
    with stop.Stop() as stopping:
        assert not stopping.due(1)
        os.kill(os.getpid(), signal.SIGINT)
        assert stopping.due(1) and stopping.signal == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
