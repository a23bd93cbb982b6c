"""Times CKA of a ViT with a ResNet, and measures its memory, against the least that CKA needs.

    python scripts/bench_cka.py                      # ViT-B/32 + ResNet-50 at 224 px, then small
    python scripts/bench_cka.py --pair=small --rounds=9

The script prints one table for each pair of networks, which have random weights. Its parts are

- forward: the forward passes of both networks alone, one program that returns their logits;
- grams: the Gram products x x' of every tap alone (the default taps of CKA), inputs in memory;
- whole: `stream.measure`, the real engine, which loads its groups of images as usual;
- peer: pytorch-cka on the same architectures in torch with as many taps, if it is installed. It
  compares the layers of one network with the layers of the other; the engine compares all layers
  with all layers.

The parts run in turns in one process, so that other load on the machine slows all of them alike:
the engine stops between its groups while the other parts run. Ratios are taken within a round, and
their medians are printed. On a busy machine, processor seconds (of all threads) vary less than wall
time. Memory is measured in a separate process for each part, beyond the weights and one group of
images: the peak while the compiled program runs, and the peak including compilation. "XLA" is the
size of the temporary buffers that the compiler reports.
"""

import collections
import importlib.util
import json
import math
import os
import subprocess
import sys
import time
from unittest import mock

import bench_peer
import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging
from bench_tools import Peak, available, number, randomised, say, spread

from vitcnn import parallel
from vitcnn.engine import jobs, stream

PAIR = flags.DEFINE_enum("pair", "all", ["all", "large", "small"], "Which networks.")
GROUP = flags.DEFINE_integer("group", 128, "Number of images in a group.", lower_bound=4)
GROUPS = flags.DEFINE_integer(
    "groups", 2, "Groups of the memory run; a second run has twice as many."
)
ROUNDS = flags.DEFINE_integer("rounds", 3, "Timed groups of every part.", lower_bound=1)
PEER = flags.DEFINE_bool("peer", True, "Whether to run pytorch-cka, where it is installed.")
PEER_GROUP = flags.DEFINE_integer(
    "peer_group", 0, "Images in its groups; 0: as many as fit in memory."
)
PART = flags.DEFINE_string("part", "", "Set by this script for the processes that it starts.")

_SMALL_VIT = {"image_size": 64, "num_classes": 10, "depth": 6}
_SMALL_RESNET = {"image_size": 64, "norm": "batch", "padding": "both"}
PAIRS = {
    "large": {"vit": ("vit", "B/32", {}), "resnet": ("resnet", "50", {})},
    "small": {"vit": ("vit", "Ti/8", _SMALL_VIT), "resnet": ("resnet", "mini", _SMALL_RESNET)},
}


def main(_):
    logging.set_verbosity(logging.WARNING)
    if PART.value:
        print(json.dumps(run_part(PAIR.value, PART.value)))
        return
    for pair in PAIRS if PAIR.value == "all" else [PAIR.value]:
        report(pair)


# The parent: one process for each part, then the table.


def report(pair):
    """Runs every part of a pair in a process of its own and prints the table."""
    missing = [name for name in ("torch", "cka") if importlib.util.find_spec(name) is None]
    compared = PEER.value and not missing
    outcomes = {}
    for part in [*(["peer"] if compared else []), "time", "forward", "grams", "whole", "double"]:
        say(f"{pair}: {part}")
        outcomes[part] = child(pair, part, outcomes.get("peer", {}).get("images", 0))
    times = outcomes["time"]
    print(
        f"\n{pair}: {' + '.join(f'{m} {v}' for m, (_, v, _) in PAIRS[pair].items())}, "
        f"{times['image_size']} px, {times['taps']} taps, groups of {GROUP.value}, "
        f"{ROUNDS.value} rounds, {times['device']}"
    )
    print(
        f"{'part':8} {'s/group':>9} {'CPU s':>9} {'images/s':>9}   peak MB: running   in all   XLA"
    )
    for part, rounds in times["rounds"].items():
        wall, cpu = (float(np.median([r[key] for r in rounds])) for key in ("wall", "cpu"))
        memory = outcomes[part]
        print(
            f"{part:8} {wall:9.3f} {cpu:9.3f} {times['images'][part] / wall:9.1f}"
            f"{number(memory['running']):>19}{number(memory['all']):>9}{number(memory['xla']):>6}"
        )
    for kind, name in (("wall", "time"), ("cpu", "processor time")):
        column = {p: np.array([r[kind] for r in rounds]) for p, rounds in times["rounds"].items()}
        ratio = column["whole"] / (column["forward"] + column["grams"])
        print(f"whole / (forward + grams), {name}: {spread(ratio)}  (goal 1.10)")
        if compared:
            images = times["images"]
            ratio = column["peer"] / images["peer"] / (column["whole"] / images["whole"])
            print(f"peer / whole per image, {name}: {spread(ratio)}")
    grams = times["gram_mb"]
    for key, name in (("running", "running"), ("all", "in all")):
        if outcomes["whole"][key] is None:
            continue
        extra = outcomes["whole"][key] - outcomes["forward"][key] - grams
        double = outcomes["double"][key] - outcomes["whole"][key]
        print(
            f"memory {name}: whole beyond forward and its Gram matrices ({grams:.0f} MB) "
            f"{extra:+.0f} MB (goal 100); with twice the images {double:+.0f} MB"
        )
    if compared and times["images"]["peer"] < GROUP.value:
        print(
            f"peer ran on groups of {times['images']['peer']}: it keeps every tap of a group, and "
            f"{GROUP.value} images would take {times['taps_gb']:.1f} GB"
        )
    if not compared:
        print(
            f"peer: left out, {'not installed: ' + ', '.join(missing) if missing else '--nopeer'}"
        )


def child(pair, part, peer_group):
    """Runs this script for one part and returns what `run_part` measured."""
    environment = {
        **os.environ,
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # torch needs some of a GPU, too
        "MALLOC_TRIM_THRESHOLD_": "65536",  # freed memory is returned at once, so it is not counted
    }
    command = [sys.executable, __file__, f"--pair={pair}", f"--part={part}"]
    command += [f"--peer_group={peer_group}"]
    command += [f"--{f.name}={f.value}" for f in (GROUP, GROUPS, ROUNDS)]
    process = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(process.stdout.splitlines()[-1])


# A child: one part.


def run_part(pair, part):
    """Measures the memory of one part, or the times of all parts in turns; returns plain JSON."""
    setting = Setting(pair)
    if part == "time":
        return times_in_turns(setting)
    if part in ("whole", "double"):
        peak = Peak()
        xla = setting.measure(GROUPS.value * (2 if part == "double" else 1), peak.restart)
        return {**peak.stop(), "xla": xla}
    if part == "peer":
        run, images = setting.peer()
        peak, extra = Peak(), {"images": images, "xla": None}
    else:
        peak = Peak()
        run, xla = getattr(setting, part)()
        extra = {"xla": xla}
    peak.restart()
    for _ in range(2):
        run()
    return {**peak.stop(), **extra}


def times_in_turns(setting):
    """Times the other parts between the groups of one run of the real engine."""
    parts = {"forward": setting.forward()[0], "grams": setting.grams()[0]}
    images = {"forward": GROUP.value, "grams": GROUP.value}
    images["whole"] = GROUP.value * len(jax.local_devices())
    if PEER_GROUP.value:
        parts["peer"], images["peer"] = setting.peer()
    rounds = {part: [] for part in ("forward", "grams", "whole", "peer")}
    clock = []

    def time_others():
        for part, run in parts.items():
            before = time.perf_counter(), time.process_time()
            run()
            note(part, before)
        clock[:] = time.perf_counter(), time.process_time()

    def note(part, before):
        wall, cpu = time.perf_counter() - before[0], time.process_time() - before[1]
        rounds[part].append({"wall": wall, "cpu": cpu})
        say(f"  round {len(rounds[part]) - 1} {part}: {wall:.3f} s")

    groups = (ROUNDS.value + 1) * len(jax.local_devices())
    setting.measure(groups, time_others, lambda: note("whole", clock))
    return {
        "rounds": {
            part: times[1:] for part, times in rounds.items() if times
        },  # the first warms up
        "images": images,
        "image_size": setting.image_size,
        "taps": sum(setting.shapes.values()),
        "taps_gb": 4e-9 * GROUP.value * setting.features,
        "gram_mb": 4e-6 * GROUP.value**2 * sum(setting.shapes.values()),
        "device": f"{parallel.device_kind()}, {os.cpu_count()} processors",
    }


class Setting:
    """Networks, images and jobs of a pair; the parts are made of them."""

    def __init__(self, pair):
        self.models = {name: randomised(*PAIRS[pair][name]) for name in PAIRS[pair]}
        height, width = next(iter(self.models.values())).image_size
        self.image_size = height
        pool = np.random.default_rng(0).integers(0, 256, (GROUP.value, height, width, 3), np.uint8)
        self.pool = pool
        self.variables = {name: model.variables for name, model in self.models.items()}
        self.taps = self.jobs(1)[0].taps
        shapes = [self.models[m].taps[tap].shape for m, names in self.taps.items() for tap in names]
        self.shapes = collections.Counter(tuple(shape) for shape in shapes)
        self.features = sum(math.prod(shape) * n for shape, n in self.shapes.items())
        jax.block_until_ready(self.variables)

    def jobs(self, groups):
        images = groups * GROUP.value
        return jobs.plan_jobs(
            self.models, Pool(self.pool, images), {"cka": {"images": images}}, GROUP.value
        )

    def forward(self):
        """Returns a run of the forward passes alone, and the MB of XLA's temporary buffers."""

        def run(variables, images):
            normalised = {m: self.models[m].preprocess.normalise(images) for m in self.models}
            return [
                model.forward(variables[name], normalised[name], ())[0]
                for name, model in self.models.items()
            ]

        program, xla = compiled_program(run, self.variables, self.pool)

        return lambda: jax.block_until_ready(program(self.variables, self.pool)), xla

    def grams(self):
        """Returns a run of the Gram products alone, and the MB of XLA's temporary buffers.

        Taps of one shape share one input, because all taps of a large pair would fill 17 GB.
        """

        def run(x):
            x = x.reshape(len(x), -1)
            highest = jax.lax.Precision.HIGHEST
            return jax.lax.dot_general(x, x, (((1,), (1,)), ((), ())), precision=highest)

        key = jax.random.key(0)
        inputs = {s: jax.random.normal(key, (GROUP.value, *s), jnp.float32) for s in self.shapes}
        jax.block_until_ready(inputs)
        programs = {shape: compiled_program(run, x) for shape, x in inputs.items()}

        def every_tap():
            jax.block_until_ready(
                [
                    programs[s][0](inputs[s])
                    for s, count in self.shapes.items()
                    for _ in range(count)
                ]
            )

        return every_tap, max((xla for _, xla in programs.values()), key=lambda x: x or 0)

    def measure(self, groups, before, after=lambda: None):
        """Runs the real engine; returns the MB of XLA's temporary buffers.

        Args:
          groups: number of groups.
          before: called before every round of groups (one for each device), after the previous
            round has finished.
          after: called when a round has finished.
        """

        class Clocked(parallel.GroupProgram):
            xla = finish = None

            def __call__(self, constants, batches):
                if Clocked.finish:
                    Clocked.finish()
                elif len(jax.local_devices()) == 1:
                    # Compiled ahead of time, so that the memory of compilation is known separately.
                    self._run = self._run.lower(constants, batches[0]).compile()
                    Clocked.xla = temporary(self._run)
                before()
                wait = super().__call__(constants, batches)
                outputs = []

                def finish():
                    if not outputs:
                        outputs.append(wait())
                        after()
                    return outputs[0]

                Clocked.finish = staticmethod(finish)
                return finish

        source, jobs = Pool(self.pool, groups * GROUP.value), self.jobs(groups)
        with mock.patch.object(parallel, "GroupProgram", Clocked):
            settings = stream.RunSettings(group=GROUP.value)
            stream.measure(self.models, source, jobs, settings, show_progress=False)
        return Clocked.xla

    def peer(self):
        """Returns a run of pytorch-cka on one group of images, and the number of images in it."""
        import cka
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
        vit, resnet = (bench_peer.torch_net(torch, m.module).eval() for m in self.models.values())
        layers = [[n for n, m in net.named_modules() if hasattr(m, "tap")] for net in (vit, resnet)]
        if sum(map(len, layers)) != sum(self.shapes.values()):
            raise ValueError(f"torch has {sum(map(len, layers))} taps, JAX {self.shapes.total()}")
        images = PEER_GROUP.value or GROUP.value
        free = torch.cuda.mem_get_info()[0] if device == "cuda" else available()
        while not PEER_GROUP.value and images > 8 and 6 * self.features * images > free - 2e9:
            images //= 2
        batch = torch.from_numpy(self.pool[:images]).permute(0, 3, 1, 2).float() / 127.5 - 1

        def run():
            matrices = cka.compute_cka(
                vit,
                resnet,
                [[batch]],
                layers=layers[0],
                model2_layers=layers[1],
                device=device,
                progress=False,
            )
            matrices[0].cpu()

        return run, images


class Pool:
    """A source of any length over a few images in memory, so that loading costs almost nothing."""

    labelled, classes, provenance = False, None, {}

    def __init__(self, images, length):
        self.images, self.length = images, length

    def __len__(self):
        return self.length

    def __getitem__(self, i):
        return {"image": self.images[i % len(self.images)], "label": -1}


def compiled_program(function, *arguments):
    """Returns the compiled function at full precision, and the MB of XLA's temporary buffers."""
    with jax.default_matmul_precision("highest"):
        program = jax.jit(function).lower(*arguments).compile()
    return program, temporary(program)


def temporary(program):
    analysis = program.memory_analysis()
    return analysis.temp_size_in_bytes / 1e6 if analysis else None


if __name__ == "__main__":
    app.run(main)
