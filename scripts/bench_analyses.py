"""Times one joint pass of all analyses against one pass for each, and against forward passes alone.

    python scripts/bench_analyses.py                # a CIFAR ViT and ResNet-20, 32 px
    python scripts/bench_analyses.py --pair=large   # ViT-B/32 and ResNet-50, 224 px

The networks have random weights. Each analysis takes its own number of images, up to --images. A
pass has groups of several shapes, because an analysis that has enough images leaves the program:
receptive fields take 32 images, CKA takes 10,240. The program of every shape is compiled first. The
programs then run in turns on one group in memory, so that other load on the machine slows all of
them alike. The time of a pass is the sum, over its shapes, of the time of one group multiplied by
the number of such groups. It does not contain loading images, which separate passes would do once
each. The table shows medians over the rounds, and the range of the ratio of joint to separate.
"""

import collections
import time

import numpy as np
import tqdm
from absl import app, flags, logging
from bench_tools import randomised

from vitcnn import analyses, parallel
from vitcnn.data.sources import scenes
from vitcnn.engine import jobs, schedule
from vitcnn.engine.program import group_program

PAIR = flags.DEFINE_enum("pair", "small", ["small", "large"], "Which networks.")
GROUP = flags.DEFINE_integer("group", 128, "Number of images in a group.", lower_bound=4)
IMAGES = flags.DEFINE_integer(
    "images", 10_240, "Largest number of images of an analysis.", lower_bound=4
)
ROUNDS = flags.DEFINE_integer("rounds", 5, "Timed groups of every shape.", lower_bound=1)
WITHOUT = flags.DEFINE_multi_string("without", [], "Analyses to leave out.")

PAIRS = {
    "small": {"vit": ("vit", "cifar/4", {}), "resnet": ("resnet", "20", {})},
    "large": {"vit": ("vit", "B/32", {}), "resnet": ("resnet", "50", {})},
}
# Probes continue from an earlier pass over training images, so they cannot join this pass.
APART = ("probe",)


def main(_):
    logging.set_verbosity(logging.ERROR)
    models = {name: randomised(*PAIRS[PAIR.value][name]) for name in PAIRS[PAIR.value]}
    side = models["vit"].image_size[0]
    source = scenes.load(size=IMAGES.value, image_size=side, classes=10)
    jobs = every_job(models, source)
    constants = {"variables": {n: m.variables for n, m in models.items()}, "earlier": {}}
    constants = parallel.on_devices(constants)
    image = np.random.default_rng(0).integers(0, 256, (GROUP.value, side, side, 3), np.uint8)
    label = np.arange(GROUP.value, dtype=np.int32) % 10

    def batch(n):
        images = {name: image[:n] for name in models}
        return {"images": images, "label": label[:n], "index": label[:n]}

    def forward(constants, batch):
        views = {n: m.preprocess.normalise(batch["images"][n]) for n, m in models.items()}
        return [m.forward(constants["variables"][n], views[n], ())[0] for n, m in models.items()]

    passes = {"joint": jobs, **{job.name: [job] for job in jobs}}
    programs, counts = {}, {}
    for name, members in tqdm.tqdm(passes.items(), "compiling", unit="pass"):
        slices = schedule.plan_schedule(members, GROUP.value)
        counts[name] = collections.Counter(slice_.shape for slice_ in slices)
        for shape in counts[name]:
            function = group_program(models, members, dict(shape[1]))
            programs[name, shape] = compiled(function, constants, batch(shape[0]))
    programs["forward", None] = compiled(forward, constants, batch(GROUP.value))
    rounds = []
    for _ in tqdm.trange(ROUNDS.value, desc="timing", unit="round"):
        rounds.append({key: timed(program) for key, program in programs.items()})

    def seconds(name, times):
        return sum(n * times[name, shape] for shape, n in counts[name].items())

    groups = -(-IMAGES.value // GROUP.value)
    totals = [{name: seconds(name, times) for name in passes} for times in rounds]
    for total, times in zip(totals, rounds, strict=True):
        total["forward"] = groups * times["forward", None]
        total["separate"] = sum(total[job.name] for job in jobs)
    print(
        f"{PAIR.value} pair, {IMAGES.value} images in groups of {GROUP.value}, "
        f"{parallel.device_kind()}, medians of {ROUNDS.value} rounds"
    )
    print(f"{'pass':28s} {'images':>7s} {'seconds':>9s} {'/ forward':>10s}")
    images = {job.name: job.images for job in jobs}
    for name in ["forward", *images, "separate", "joint"]:
        taken = np.median([total[name] for total in totals])
        ratio = np.median([total[name] / total["forward"] for total in totals])
        print(f"{name:28s} {images.get(name, IMAGES.value):7d} {taken:9.2f} {ratio:10.2f}")
    ratios = [total["joint"] / total["separate"] for total in totals]
    print(f"joint / separate: {np.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")


def every_job(models, source):
    """Plans every analysis, each for the models that it can measure."""
    planned = []
    for name in analyses.names():
        if name.startswith(APART) or name in WITHOUT.value:
            continue
        default = analyses.traits(analyses.find(name)).images
        images = IMAGES.value if default == analyses.ALL else min(default, IMAGES.value)
        chosen = ("vit",) if name == "attention_distance" else tuple(models)
        config = {name: {"images": images, "models": chosen}}
        planned += jobs.plan_jobs(models, source, config, GROUP.value)
    return planned


def compiled(function, constants, batch):
    program = parallel.GroupProgram(function)
    run = lambda: program(constants, [batch] * program.width)()  # noqa: E731
    run()
    return run


def timed(program):
    started = time.perf_counter()
    program()
    return time.perf_counter() - started


if __name__ == "__main__":
    app.run(main)
