"""Times receptive fields with our gradient of convolutions against JAX's own.

    python scripts/bench_fields.py
    python scripts/bench_fields.py --network=resnet:50 --channels=8

The analysis differentiates one channel after the other, in a loop. Both programs are the analysis
itself, on random images; they run in turns, so that other load on the machine slows both alike. The
script prints processor seconds, and the medians of ratios within a round.
"""

import time
from unittest import mock

import jax
import numpy as np
from absl import app, flags, logging
from bench_tools import randomised, spread

from vitcnn.data.sources import scenes
from vitcnn.engine import jobs
from vitcnn.engine.program import group_program
from vitcnn.layers import common

# Network -> (tap, images).
NETWORKS = {
    "resnet:20": ("stage3/unit03/out", 16),
    "resnet:50": ("stage2/unit04/out", 4),
    "bit:R50x1": ("stage2/unit04/out", 4),
    "vit:cifar/4": ("block03/out", 16),
}
NETWORK = flags.DEFINE_multi_enum(
    "network", ["resnet:20", "resnet:50"], list(NETWORKS), "Which networks."
)
CHANNELS = flags.DEFINE_integer("channels", 4, "Channels of the tap.", lower_bound=1)
ROUNDS = flags.DEFINE_integer("rounds", 5, "Timed runs of each program.", lower_bound=1)


def main(_):
    logging.set_verbosity(logging.ERROR)
    print(f"{'network':12} {'ours s':>7} {'JAX s':>7}   JAX / ours; greatest difference")
    for network in dict.fromkeys(NETWORK.value):
        tap, images = NETWORKS[network]
        family, _, variant = network.partition(":")
        model = randomised(family, variant, {})
        source = scenes.load(size=images, image_size=model.image_size[0])
        config = {"receptive_field": {"images": images, "taps": (tap,), "channels": CHANNELS.value}}
        planned = jobs.plan_jobs({"model": model}, source, config, images)
        draw = np.random.default_rng(0)
        pixels = draw.integers(0, 256, (images, *model.image_size, 3), np.uint8)
        label = np.zeros(images, np.int32)
        batch = {"images": {"model": pixels}, "label": label, "index": label}
        constants = {"variables": {"model": model.variables}, "earlier": {}}

        counts = {planned[0].name: images}

        def compiled(model=model, planned=planned, counts=counts, batch=batch, constants=constants):
            function = group_program({"model": model}, planned, counts)
            return jax.jit(function).lower(constants, batch).compile()

        ours = compiled()
        with mock.patch.object(common, "_convolution", common._convolve):
            plain = compiled()
        programs = {"ours": ours, "plain": plain}
        sums = {name: run(constants, batch) for name, run in programs.items()}
        leaves = zip(*(jax.tree.leaves(s) for s in sums.values()), strict=True)
        difference = max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in leaves)
        seconds = {name: [] for name in programs}
        for _ in range(ROUNDS.value):
            for name, run in programs.items():
                started = time.process_time()
                jax.block_until_ready(run(constants, batch))
                seconds[name].append(time.process_time() - started)
        taken = {name: np.median(values) for name, values in seconds.items()}
        ratios = np.divide(seconds["plain"], seconds["ours"])
        print(
            f"{network:12} {taken['ours']:7.3f} {taken['plain']:7.3f}   {spread(ratios)}; "
            f"{difference:.1e}",
            flush=True,
        )


if __name__ == "__main__":
    app.run(main)
