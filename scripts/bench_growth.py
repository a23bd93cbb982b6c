"""Shows how time and memory of CKA grow with images, layers, group size and devices.

    python scripts/bench_growth.py
    python scripts/bench_growth.py --axis=images --axis=devices

The network is a chain of dense layers of width 64 on images of 8 x 8 pixels, so that the time is
that of CKA. Each row has a process of its own, in which `stream.measure` runs as usual. It is timed
from its second round of groups on, without compilation. The script prints, for each axis,

- ms / image, and what it is relative to the first row. With images it should be flat. With layers
  it grows from linear (Gram matrices) to quadratic (pairs of layers). With the size of a group it
  is linear: a Gram matrix has n^2 numbers for n images. With devices it falls as far as there are
  processors: virtual devices of one CPU share them.
- MB: peak memory beyond weights and images. With images it should be flat, with layers linear, and
  with the size of a group quadratic.
"""

import json
import os
import subprocess
import sys
import time

import flax.linen as nn
import jax
import numpy as np
from absl import app, flags
from bench_tools import Peak, number, say

import vitcnn
from vitcnn import data
from vitcnn.engine import jobs, stream

AXES = {
    "images": (1_000, 10_000, 100_000),
    "layers": (50, 100, 200, 400),
    "group": (16, 64, 256, 1_024),
    "devices": (1, 2, 4, 8),
}
START = {"images": 10_000, "layers": 100, "group": 128, "devices": 1}
AXIS = flags.DEFINE_multi_enum("axis", list(AXES), list(AXES), "What grows.")
CELL = flags.DEFINE_string("cell", "", "Internal: the row that this process measures, JSON.")


class Chain(nn.Module):
    """Dense layers of width 64, each of which is a tap."""

    layers: int

    @nn.compact
    def __call__(self, x):
        x = x.reshape(len(x), -1)
        for i in range(self.layers):
            x = nn.tanh(nn.Dense(64, name=f"dense{i:03d}")(x))
            x = vitcnn.tap(self, f"layer{i:03d}", x, role="residual")
        return x


class Noise:
    """Images of noise, drawn one at a time so that they take no memory."""

    labelled, classes, provenance = False, None, {"source": "noise"}

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return self.images

    def __getitem__(self, i):
        return {
            "image": np.random.default_rng(i).integers(0, 256, (8, 8, 3), np.uint8),
            "label": -1,
        }


def main(_):
    if CELL.value:
        print(json.dumps(measured(**json.loads(CELL.value))))
        return
    print(f"{os.cpu_count()} processors; {START} unless the row says otherwise")
    print(f"{'':8} {'':>8} {'ms / image':>11} {'relative':>9} {'MB':>6}")
    for axis in dict.fromkeys(AXIS.value):
        first = None
        for value in AXES[axis]:
            cell = START | {axis: value}
            say(f"{axis} = {value}")
            flag = f"--xla_force_host_platform_device_count={cell['devices']}"
            environment = os.environ | {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flag}"}
            command = [sys.executable, __file__, f"--cell={json.dumps(cell)}"]
            child = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
            row = json.loads(child.stdout.splitlines()[-1])
            first = first or row["ms"]
            print(
                f"{axis:8} {value:8d} {row['ms']:11.3f} {row['ms'] / first:9.2f} "
                f"{number(row['mb']):>6}",
                flush=True,
            )


def measured(images, layers, group, devices):
    """Returns {"ms": milliseconds per image, "mb": peak memory} of one row."""
    if jax.local_device_count() < devices:
        raise RuntimeError(f"{jax.local_device_count()} devices, expected {devices}")
    module = Chain(layers)
    variables = module.init(jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32))
    model = vitcnn.Model(module, variables, data.Preprocess((8, 8)))
    source = Noise(images)
    (job,) = jobs.plan_jobs(
        {"chain": model}, source, {"cka": {"images": images, "taps": ("layer*",)}}, group
    )
    rounds, run_groups = [], stream._run_groups

    def watched(*arguments):
        for step in run_groups(*arguments):
            rounds.append(time.perf_counter())
            yield step

    stream._run_groups = watched
    peak = Peak()
    peak.restart()
    stream.measure(
        {"chain": model}, source, [job], stream.RunSettings(group=group), show_progress=False
    )
    # Groups of one round end together; the first round contains the compilation.
    later = images - devices * group
    return {"ms": 1e3 * (rounds[-1] - rounds[devices - 1]) / later, "mb": peak.stop()["running"]}


if __name__ == "__main__":
    app.run(main)
