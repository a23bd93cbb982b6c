"""The share of time in which the devices waited for images."""

import types

import numpy as np
import pytest

from vitcnn.engine import stream
from vitcnn.engine.clock import Clock
from vitcnn.engine.schedule import Slice


@pytest.fixture
def now(monkeypatch):
    now = types.SimpleNamespace(seconds=100.0)
    monkeypatch.setattr("time.monotonic", lambda: now.seconds)
    return now


class Device:
    """Takes three seconds for a round."""

    def __init__(self, now):
        self.now, self.done_at = now, 0.0

    def __call__(self, constants, inputs):
        self.done_at = max(self.done_at, self.now.seconds) + 3
        return _Round(self, self.done_at, inputs)


class _Round:
    def __init__(self, device, done_at, inputs):
        self.device, self.done_at, self.inputs = device, done_at, inputs

    def is_ready(self):
        return self.device.now.seconds >= self.done_at

    def __call__(self):
        self.device.now.seconds = max(self.device.now.seconds, self.done_at)
        return self.inputs


@pytest.mark.parametrize(("loading", "share"), [(1, 0), (5, 20 / 23)])
def test_waiting_is_counted_while_the_device_has_nothing_to_do(now, loading, share):
    """Of five rounds, four are loaded while the one before is computed, which takes 3 seconds.

    At 5 seconds for a round the device is idle at the end of each of the four, which count whole:
    20 of 20 + 3 seconds.
    """

    def batches():
        for k in range(5):
            now.seconds += loading
            yield k

    slices = [Slice(0, k, k, k + 1, (("job", 1),)) for k in range(5)]
    programs, clock = {slices[0].shape: Device(now)}, Clock()
    sums = list(stream._run_groups(programs, {"x": np.zeros(1)}, slices, batches(), clock))
    assert sums == list(zip(slices, range(5), strict=True))
    assert clock.share == pytest.approx(share)


def test_a_clock_can_stop(now):
    clock = Clock(seconds=5)
    now.seconds += 2
    with clock.stopped():
        now.seconds += 50
    assert clock.seconds == 7
    clock.restart()
    assert clock.seconds == 0 and clock.share == 0
