"""Says whether the program of a config fits on a TPU that is not there, and what it would do.

    python scripts/predict.py --config=configs/analyze/fig01.py --topology=v5e:2x2
    python scripts/predict.py --config=configs/train/vit.py:B/16,i1k --topology=v5e:2x4

XLA compiles the program for the chip on this machine, which needs the extra tpu (Linux on x86) and
no TPU. A measurement runs on each chip by itself, so its program is compiled for one; a step of
training is compiled for all chips of the topology. Networks are read as the config says, and have
random weights where it says nothing; images are not read.

The script prints predictions, not measurements:

- GB: of arguments (weights, optimizer, images) and temporaries on one chip, beside its memory. XLA
  refuses a program that does not fit, and the message is printed.
- TFLOP and bytes: of the program as XLA counts them; the body of a loop counts once.
- least ms: the longer of FLOPs at the chip's bfloat16 peak and bytes at its bandwidth. No program
  is faster; one of `precision = "highest"`, of which a product takes six passes, is far slower.
"""

import os
import time

import jax
import numpy as np
from absl import flags
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from vitcnn import command_line, parallel
from vitcnn.config import check_measurement, check_training
from vitcnn.engine import jobs, program, schedule, stream
from vitcnn.lookup import check_name
from vitcnn.model import load
from vitcnn.recipe import optimizers
from vitcnn.training import checkpoints, flops
from vitcnn.training import state as states
from vitcnn.training import step as steps

# Generation -> (GB of memory, GB/s of its bandwidth), of one chip, from Google's data sheets.
CHIPS = {"v4": (32, 1228), "v5e": (16, 819), "v5p": (95, 2765), "v6e": (32, 1640)}
# Of the library of the TPU: it asks no server of Google Cloud, and leaves no lock behind.
ENVIRONMENT = {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
TOPOLOGY = flags.DEFINE_string("topology", "v5e:2x2", "Generation and shape of the TPU slice.")


class Unread:
    """Stands for the images of a config: a million, with labels, none of which is read."""

    labelled = True
    classes = None

    def __len__(self):
        return 1_000_000


def main(config, _):
    generation = TOPOLOGY.value.partition(":")[0]
    check_name("generation of --topology:", generation, CHIPS)
    jax.config.update("jax_platforms", "cpu")
    os.environ.update(ENVIRONMENT)
    devices = chips(TOPOLOGY.value)
    memory, bandwidth = CHIPS[generation]
    print(f"predicted for {devices[0].device_kind}, {memory} GB a chip; nothing was run")
    lowerings = of_measurement if "analyses" in config else of_training
    for what, lowered in lowerings(config, devices):
        started = time.time()
        try:
            compiled = lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            print(f"{what}: does not compile: {str(error).splitlines()[0]}")
            continue
        held, work = compiled.memory_analysis(), compiled.cost_analysis()
        gb = {
            "arguments": held.argument_size_in_bytes,
            "temporaries": held.temp_size_in_bytes,
            "results": held.output_size_in_bytes - held.alias_size_in_bytes,
        }
        listed = ", ".join(f"{name} {size / 1e9:.2f}" for name, size in gb.items())
        seconds = work["flops"] / flops.peak(devices[0].device_kind, 1)
        least = max(seconds, work["bytes accessed"] / bandwidth / 1e9)
        print(f"{what}: compiled in {time.time() - started:.0f} s here")
        print(f"  {sum(gb.values()) / 1e9:.2f} of {memory} GB: {listed}")
        print(
            f"  {work['flops'] / 1e12:.3f} TFLOP, {work['bytes accessed'] / 1e9:.1f} GB read and "
            f"written, least {1e3 * least:.1f} ms",
            flush=True,
        )


def chips(topology):
    """Returns the devices of a topology that is not there."""
    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    except (jax.errors.JaxRuntimeError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"--topology = {topology!r}: {str(error).splitlines()[0]}. Expected a generation and a "
            'shape, such as "v5e:2x4", "v4:2x2x1" or "v6e:1x1", and the extra tpu: '
            'pip install "vitcnn[tpu]"'
        ) from error


def of_measurement(config, devices):
    """Yields (what, lowered program) of each shape of group in the main pass of a measurement."""
    for fields in config.models.values():
        fields.weights = fields.weights or "random"
    config.stages = {}
    continuing = [name for name, fields in config.analyses.items() if fields.get("fit")]
    for name in continuing:
        print(f"{name} continues from a stage and is left out")
        del config.analyses[name]
    images = Unread()
    config = check_measurement(config, images)
    models = jobs.load_models(config.models)
    planned = jobs.plan_jobs(models, images, config.analyses, config.group)
    slices = {s.shape: s for s in schedule.plan_schedule(planned, config.group)}
    constants = {"variables": {n: model.variables for n, model in models.items()}, "earlier": {}}
    on_chip = SingleDeviceSharding(devices[0])
    for slice_ in slices.values():
        group = program.group_program(models, planned, dict(slice_.images_per_job))
        run = parallel.GroupProgram(group, config.precision).function
        batch = stream.batch_shapes(models, planned, slice_.images)
        placed = jax.jit(run, in_shardings=on_chip, out_shardings=on_chip)
        yield f"a group of {slice_.images} images", placed.trace(constants, batch).lower()


def of_training(config, devices):
    """Yields (what, lowered program) of a step of training."""
    config = check_training(config)
    fields = {name: value for name, value in config.model.items() if name != "weights"}
    model = load(**fields, weights="random")
    mesh = parallel.data_mesh(devices)
    constant = lambda step: 1.0  # noqa: E731
    optimizer = optimizers.make(config, constant)
    average = bool(config.average)
    make = lambda: states.first(model.variables, optimizer, average)  # noqa: E731
    first = checkpoints.shapes(make, mesh, config.shard_parameters)
    split, images = parallel.split(mesh), (config.batch, *model.image_size, 3)
    batch = {
        "images": jax.ShapeDtypeStruct(images, np.uint8, sharding=split),
        "label": jax.ShapeDtypeStruct((config.batch,), np.int32, sharding=split),
    }
    traced = steps.trace(model, optimizer, constant, config, False, first, batch, mesh)
    yield f"a step of {config.batch} images on {len(devices)} chips", traced.lower()


if __name__ == "__main__":
    command_line.run(main, workdir=False)
