"""Times training against a plain JAX loop, and against timm's networks trained in torch.

    python scripts/bench_train.py                                  # two at 32 px, two at 224 px
    python scripts/bench_train.py --network=vit:S/16 --batch=32

- vitcnn: `vitcnn.train`, whole: reading images, logging and checks of every step. Its own log
  gives the images per second, without compilation, and the share of time spent on waiting.
- device: the same with all images on the device (`config.on_device`).
- plain: the same network, loss and optimizer (AdamW) in ten lines of JAX.
- torch: timm's network of the same architecture and torch's AdamW, if timm is installed and has it.

All take random batches of the same images in memory: the source `npz` in vitcnn, rows of an array
in the other loops.

Each has a process of its own, and all run in turns, so that other load on the machine slows all
alike. Ratios are taken within a round, and their medians are printed. Memory is the peak of a
process beyond what it holds before its first step.
"""

import functools
import importlib.util
import os
import pathlib
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags
from bench_tools import Peak, Worker, number, say, spread

import vitcnn
from vitcnn import compilation, results
from vitcnn.config import network, optimizer, schedule, source, training

# Network -> (batch, its twin in timm, or "").
NETWORKS = {
    "vit:mini/4": (128, ""),
    "resnet:mini": (128, ""),
    "resnet:20": (128, ""),
    "vit:S/16": (16, "vit_small_patch16_224"),
    "resnet:50": (16, "resnet50"),
}
DEFAULTS = ["vit:mini/4", "resnet:mini", "vit:S/16", "resnet:50"]
NETWORK = flags.DEFINE_multi_enum("network", DEFAULTS, list(NETWORKS), "Which networks.")
BATCH = flags.DEFINE_integer("batch", 0, "Images in a batch; 0 for the network's.", lower_bound=0)
STEPS = flags.DEFINE_integer("steps", 10, "Steps of a round.", lower_bound=4)
ROUNDS = flags.DEFINE_integer("rounds", 5, "Rounds.", lower_bound=1)
COMPUTE = flags.DEFINE_enum("compute", "float32", ["float32", "bfloat16"], "Type of activations.")
CLASSES = 8


def main(_):
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # several processes share a GPU
    with tempfile.TemporaryDirectory() as cache:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = cache  # every round compiles the same step
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        print(f"{ROUNDS.value} rounds of {STEPS.value} steps, {os.cpu_count()} processors")
        print(
            f"{'network':12} {'batch':>5} {'images/s':>9} {'waiting':>8} {'peak MB':>8}   against"
        )
        for name in dict.fromkeys(NETWORK.value):
            report(name, BATCH.value or NETWORKS[name][0])


def report(name, batch):
    """Prints the rates of one network, trained by each of the parties."""
    parties = ["vitcnn", "device", "plain"]
    if NETWORKS[name][1] and importlib.util.find_spec("timm"):
        parties.append("torch")
    say(f"{name}: {', '.join(parties)}")
    arguments = (name, batch, STEPS.value, COMPUTE.value)
    workers = [Worker(serve, party, *arguments) for party in parties]
    rounds = [[worker.ask() for worker in workers] for _ in range(ROUNDS.value)]
    peaks = [number(worker.stop()["running"]) for worker in workers]
    rates = np.array([[rate for rate, _ in row] for row in rounds])
    waiting = np.median([row[0][1] for row in rounds])
    print(f"{name:12} {batch:5d} {np.median(rates[:, 0]):9.2f} {waiting:8.1%} {peaks[0]:>8}")
    for i, party in enumerate(parties[1:], 1):
        print(
            f"{'':12} {'':5} {np.median(rates[:, i]):9.2f} {'':8} {peaks[i]:>8}   "
            f"vitcnn / {party} {spread(rates[:, 0] / rates[:, i])}",
            flush=True,
        )


def serve(pipe, party, name, batch, steps, compute):
    """Sends (images per second, share of waiting) of some steps for each request, then the peak."""
    peak = Peak()
    on_device = functools.partial(ours, on_device="always")
    runs = {"vitcnn": ours, "device": on_device, "plain": plain, "torch": torch_loop}
    run = runs[party](name, batch, steps, compute)
    peak.restart()
    run()  # compiles
    pipe.send("ready")
    while pipe.recv() == "go":
        time.sleep(0.2)  # the threads of the other library spin for a while when they are done
        pipe.send(run())
    pipe.send(peak.stop())


def ours(name, batch, steps, compute, on_device="never"):
    """Returns a run of the training loop."""
    family, _, variant = name.partition(":")
    config = training()
    config.model = network(family, variant, num_classes=CLASSES)
    side = vitcnn.load(family, variant, num_classes=CLASSES).image_size[0]
    folder = tempfile.TemporaryDirectory()
    path = pathlib.Path(folder.name) / "images.npz"
    images, label = data(side)
    np.savez(path, image=images, label=label)
    config.data = source("npz", path=str(path))
    config.optimizer, config.schedule = optimizer("adam"), schedule("constant")
    # The last line of the log is about the second half: the first half touches new memory.
    config.batch, config.steps, config.compute = batch, 2 * steps, compute
    config.weight_decay, config.clip, config.log_every = 0.05, 0.0, steps
    config.on_device = on_device

    def run(folder=folder):  # which lasts as long as this function
        with tempfile.TemporaryDirectory() as workdir:
            vitcnn.train(config, workdir, progress=False)
            last = results.workdir.read_log(pathlib.Path(workdir) / "train.jsonl")[-1]
        return last["images_per_second"], last["waiting"]

    return run


def data(side):
    """Returns uint8 images [n, side, side, 3] and their labels [n], all random."""
    rng = np.random.default_rng(0)
    n = 20_000 if side < 64 else 500
    return rng.integers(0, 256, (n, side, side, 3), np.uint8), rng.integers(0, CLASSES, n)


def random_batches(side, batch):
    """Yields images and labels of random batches."""
    images, label = data(side)
    rng = np.random.default_rng(0)
    while True:
        rows = rng.integers(0, len(images), batch)
        yield images[rows], label[rows]


def plain(name, batch, steps, compute):
    """Returns a run of a loop that does nothing but steps."""
    family, _, variant = name.partition(":")
    model = vitcnn.load(family, variant, num_classes=CLASSES)
    module = model.module.clone(dtype=jnp.dtype(compute))
    stats = dict(model.variables)
    params = stats.pop("params")
    chain = optax.adamw(1e-3, weight_decay=0.05)
    batches = random_batches(model.image_size[0], batch)

    def step(params, stats, state, images, label):
        def loss(params):
            x = model.preprocess.normalise(images)
            logits, new = module.apply(
                {"params": params, **stats}, x, train=True, mutable=list(stats)
            )
            logits = logits.astype(jnp.float32)
            return optax.softmax_cross_entropy_with_integer_labels(logits, label).mean(), new

        (value, new), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        updates, state = chain.update(gradient, state, params)
        return optax.apply_updates(params, updates), {**stats, **new}, state, value

    state = chain.init(params)
    traced = jax.jit(step).trace(params, stats, state, *next(batches))
    options = compilation.options(traced.jaxpr)
    take = traced.lower().compile(compiler_options=options)

    def run():
        values = params, stats, state
        jax.block_until_ready(take(*values, *next(batches)))
        started = time.perf_counter()
        for _ in range(steps):
            *values, value = take(*values, *next(batches))
        jax.block_until_ready(value)
        return steps * batch / (time.perf_counter() - started), 0.0

    return run


def torch_loop(name, batch, steps, compute):
    """Returns a run of a training loop in torch."""
    import timm
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    net = timm.create_model(NETWORKS[name][1], num_classes=CLASSES).train().to(device)
    chain = torch.optim.AdamW(net.parameters(), 1e-3, weight_decay=0.05)
    batches = random_batches(224, batch)
    precision = torch.autocast(device, torch.bfloat16, enabled=compute == "bfloat16")

    def run():
        started = time.perf_counter()
        for _ in range(steps):
            images, label = (torch.from_numpy(x).to(device) for x in next(batches))
            with precision:
                logits = net(images.permute(0, 3, 1, 2).float() / 127.5 - 1)
            torch.nn.functional.cross_entropy(logits.float(), label).backward()
            chain.step()
            chain.zero_grad()
        if device == "cuda":
            torch.cuda.synchronize()
        return steps * batch / (time.perf_counter() - started), 0.0

    return run


if __name__ == "__main__":
    app.run(main)
