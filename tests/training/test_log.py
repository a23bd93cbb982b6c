"""The log of a run: means over its lines, rates, and TensorBoard where it is installed."""

import json
import sys
import types

import jax.numpy as jnp
import pytest

from vitcnn.training import flops
from vitcnn.training import log as logs


def step(loss, rate=0.5, finite=True):
    values = {"loss": loss, "accuracy": 0.25, "learning_rate": rate}
    return {**{n: jnp.float32(v) for n, v in values.items()}, "finite": jnp.array(finite)}


@pytest.fixture
def clock(monkeypatch):
    now = types.SimpleNamespace(seconds=100.0)
    monkeypatch.setattr("time.monotonic", lambda: now.seconds)
    return now


def opened(tmp_path, first=0):
    return logs.Log(tmp_path, first, 6, 2, 8, flops=1e12, peak=4e12, title="")


def test_a_line_is_the_mean_since_the_last(tmp_path, clock):
    log = opened(tmp_path)
    for number, loss in enumerate((4.0, 2.0, 1.0), 1):
        log.add(number, step(loss, rate=0.1 * number))
        clock.seconds += 1
        with log.clock.waiting(lambda: True):
            clock.seconds += 1
        with log.clock.waiting(lambda: False):
            clock.seconds += 1
        with log.clock.stopped():
            clock.seconds += 50
    log.close()
    (line,) = [json.loads(text) for text in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert line["step"] == 2 and line["loss"] == 3 and line["learning_rate"] == pytest.approx(0.2)
    # Two steps of eight images in six seconds, of which two were spent waiting.
    assert line["seconds"] == 6 and line["images_per_second"] == pytest.approx(16 / 6)
    assert line["waiting"] == pytest.approx(1 / 3)
    assert line["tflops_per_second"] == pytest.approx(2 / 6)
    assert line["utilisation"] == pytest.approx(2 / 6 / 4)
    again = opened(tmp_path, first=2)
    assert again.clock.seconds == 6, "time goes on where the log ends"


def test_a_step_that_is_not_finite_is_named_by_its_numbers(tmp_path):
    log = opened(tmp_path)
    log.add(1, step(float("inf"), finite=False))
    with pytest.raises(FloatingPointError, match=r"step 1 is not finite \(loss inf\)"):
        log.settle()


def test_tensorboard_gets_the_lines(tmp_path, monkeypatch):
    written = []

    class SummaryWriter:
        def __init__(self, folder, purge_step):
            written.append((folder, purge_step))

        def add_scalar(self, name, value, step):
            written.append((name, value, step))

        def flush(self):
            pass

        close = flush

    module = types.SimpleNamespace(SummaryWriter=SummaryWriter)
    monkeypatch.setitem(sys.modules, "tensorboardX", module)
    log = opened(tmp_path, first=1)
    log.add(2, step(1.5))
    log.settle()
    log.write_events(2, {"val/accuracy/top1": 0.5})
    log.close()
    assert written[0] == (str(tmp_path), 2)
    assert ("loss", 1.5, 2) in written and written[-1] == ("val/accuracy/top1", 0.5, 2)


def test_utilisation_is_known_where_the_peak_is():
    assert flops.peak("NVIDIA H100 80GB HBM3", 2) == 2 * 989e12
    assert flops.peak("cpu", 1) != flops.peak("cpu", 1), "NaN"
