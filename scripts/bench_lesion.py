"""Times lesions against the forward passes that they need; the goal is at most 1.3 times.

    python scripts/bench_lesion.py
    python scripts/bench_lesion.py --network=vit:B/32 --images=32

The default lesions of a network, L of them, need L + 1 forward passes of every image, that of the
intact network included. Both programs run in turns on the same random images, so that other load on
the machine slows both alike: one group of images through the analysis, and one plain forward pass.
The script prints the number of passes, how often the analysis was compiled, and the median and
spread over rounds of processor seconds of the lesions / ((L + 1) x those of a forward pass).
"""

import time

import jax
import numpy as np
from absl import app, flags, logging
from bench_tools import randomised, spread

from vitcnn.analyses import lesion
from vitcnn.data.sources import scenes
from vitcnn.engine import jobs
from vitcnn.engine.program import group_program

NETWORKS = ("vit:cifar/4", "vit:S/16", "vit:B/32", "resnet:20", "resnet:50")
NETWORK = flags.DEFINE_multi_enum("network", ["vit:cifar/4", "resnet:20"], NETWORKS, "Which.")
IMAGES = flags.DEFINE_integer("images", 100, "Images of a group.", lower_bound=4)
ROUNDS = flags.DEFINE_integer("rounds", 5, "Timed runs of each program.", lower_bound=1)


def main(_):
    logging.set_verbosity(logging.ERROR)
    print(f"{'network':12} {'passes':>6} {'compiled':>8} {'lesions s':>9} {'pass s':>7}   ratio")
    for network in dict.fromkeys(NETWORK.value):
        family, _, variant = network.partition(":")
        model, images = randomised(family, variant, {}), IMAGES.value
        config = {"lesion": {"images": images}}
        classes = model.taps["logits"].shape[0]
        source = scenes.load(size=images, classes=min(classes, 8), image_size=model.image_size[0])
        (job,) = jobs.plan_jobs({"model": model}, _Pixels(source, classes), config, images)
        pixels = np.stack([source[i]["image"] for i in range(images)])
        label = np.zeros(images, np.int32)
        batch = {"images": {"model": pixels}, "label": label, "index": label}
        constants = {"variables": {"model": model.variables}, "earlier": {}}
        compiled = []

        def analysis(constants, batch, model=model, job=job, compiled=compiled):
            compiled.append(1)
            return group_program({"model": model}, [job], {job.name: len(batch["label"])})(
                constants, batch
            )

        def forward(constants, batch, model=model):
            normalised = model.preprocess.normalise(batch["images"]["model"])
            return model.forward(constants["variables"]["model"], normalised, ())[0]

        passes = lesion.forwards(job.config) + 1
        programs = {"lesions": jax.jit(analysis), "pass": jax.jit(forward)}
        seconds = {name: [] for name in programs}
        with jax.default_matmul_precision("highest"):
            for turn in range(ROUNDS.value + 1):  # the first warms up
                for name, program in programs.items():
                    started = time.process_time()
                    jax.block_until_ready(program(constants, batch))
                    if turn:
                        seconds[name].append(time.process_time() - started)
        pairs = zip(seconds["lesions"], seconds["pass"], strict=True)
        ratio = spread([a / (passes * b) for a, b in pairs])
        medians = [np.median(seconds[name]) for name in programs]
        print(
            f"{network:12} {passes:6} {len(compiled):8} {medians[0]:9.2f} {medians[1]:7.3f}   "
            f"{ratio}"
        )


class _Pixels:
    """Scenes with as many classes as the head of a network."""

    labelled = True

    def __init__(self, source, classes):
        self._source, self.classes, self.provenance = source, classes, source.provenance

    def __len__(self):
        return len(self._source)

    def __getitem__(self, i):
        return self._source[i]


if __name__ == "__main__":
    app.run(main)
