"""Times forward passes against those of transformers or timm, and measures their memory.

    python scripts/bench_models.py                                  # one or two of every family
    python scripts/bench_models.py --network=vit:B/16 --batch=32    # one network
    python scripts/bench_models.py --load=L/16                      # time and memory of loading
    taskset -c 0 python scripts/bench_models.py --clock=cpu         # on a machine that others use

Both libraries run the same architecture at its native size, in float32, with random weights and one
batch in memory. Each has a process of its own. The two run in turns, so that other load on the
machine slows both alike. Ratios are taken within a round, and their medians are printed. Memory is
the peak of a process while the compiled program runs, beyond weights and images. A library that is
not installed is left out.

On a machine that others use, times of clocks say little, above all of torch, whose threads wait for
each other. --clock=cpu counts the seconds of processors instead; on one processor these are work.

With --load, a ViT with random weights is written in every format that can hold it, and each file
is read by `vitcnn.load` in a process of its own. The table has the time, and the peak memory beyond
the weights themselves, also as a multiple of the size of the file.
"""

import importlib.util
import os
import pathlib
import tempfile
import time

import jax
import numpy as np
from absl import app, flags
from bench_tools import Peak, Worker, number, randomised, say, spread

import vitcnn
from vitcnn.data import pool

NETWORKS = {
    # Our network -> (library, name, fields) of its twin: a transformers config or a timm model.
    "vit:B/32": ("transformers", "ViT", {"patch_size": 32}),
    "vit:B/16": ("transformers", "ViT", {}),
    "vit:DINOv2-S/14": (
        "transformers",
        "Dinov2",
        {"hidden_size": 384, "num_attention_heads": 6, "image_size": 518},
    ),
    "vit:CLIP-B/32-quickgelu": ("timm", "vit_base_patch32_clip_quickgelu_224", {}),
    "vit:SigLIP-B/16": ("timm", "vit_base_patch16_siglip_224", {}),
    "vit:relpos-S/16": ("timm", "vit_relpos_small_patch16_224", {}),
    "vit:R26+S/32": ("timm", "vit_small_r26_s32_224", {}),
    "resnet:18": (
        "transformers",
        "ResNet",
        {"layer_type": "basic", "depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512]},
    ),
    "resnet:50": ("transformers", "ResNet", {}),
    **{
        f"resnet:{name}": ("timm", name, {})
        for name in ("resnext50_32x4d", "seresnet50", "resnetrs50", "resnetblur50", "resnetv2_50")
    },
    "bit:R50x1": ("transformers", "Bit", {}),
    "mixer:B/16": ("timm", "mixer_b16_224", {}),
}
NETWORK = flags.DEFINE_multi_enum("network", list(NETWORKS), list(NETWORKS), "Which networks.")
HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
BATCH = flags.DEFINE_integer("batch", 8, "Number of images in a batch.", lower_bound=1)
ROUNDS = flags.DEFINE_integer("rounds", 5, "Timed batches of each library.", lower_bound=1)
CLOCK = flags.DEFINE_enum("clock", "wall", ["wall", "cpu"], "Which seconds count.")
LOAD = flags.DEFINE_string("load", "", "Variant of a ViT: time loading it, such as L/16.")


def main(_):
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # torch needs some of a GPU, too
    os.environ["MALLOC_TRIM_THRESHOLD_"] = "65536"  # freed memory is returned, so it is not counted
    if LOAD.value:
        report_loading(LOAD.value)
    else:
        report_forward()


def report_forward():
    """Prints images per second and memory of each network and its twin."""
    print(
        f"batches of {BATCH.value}, {ROUNDS.value} rounds, {pool.cores_of_machine()} of "
        f"{os.cpu_count()} processors, seconds of the {CLOCK.value} clock"
    )
    print(f"{'network':16} {'images/s':>9} {'peak MB':>8}   twin: images/s  peak MB   ours / twin")
    for network in dict.fromkeys(NETWORK.value):
        library = NETWORKS[network][0]
        names = ["vitcnn"]
        if importlib.util.find_spec("torch") and importlib.util.find_spec(library):
            names.append(library)
        say(f"{network}: {' and '.join(names)}")
        arguments = network, BATCH.value, CLOCK.value
        workers = [Worker(serve_forward, name, *arguments) for name in names]
        seconds = np.array([[worker.ask() for worker in workers] for _ in range(ROUNDS.value)])
        peaks = [worker.stop() for worker in workers]
        rates = BATCH.value / np.median(seconds, 0)
        line = f"{network:16} {rates[0]:9.2f} {number(peaks[0]['running']):>8}"
        if len(names) == 2:
            line += f"   {library:12} {rates[1]:8.2f} {number(peaks[1]['running']):>8}   "
            line += spread(seconds[:, 1] / seconds[:, 0])
        else:
            line += f"   {library} is not installed"
        print(line, flush=True)


def serve_forward(pipe, library, network, batch, clock):
    """Sends the seconds of one forward pass for each request, then the peak memory."""
    run = (ours if library == "vitcnn" else twin)(network, batch)
    run()  # compiles
    peak = Peak() if library == "vitcnn" or jax.default_backend() == "cpu" else CudaPeak()
    peak.restart()
    run()
    pipe.send("ready")
    now = {"wall": time.perf_counter, "cpu": time.process_time}[clock]
    while pipe.recv() == "go":
        time.sleep(0.2)  # the threads of the other library spin for a while when they are done
        started = now()
        run()
        pipe.send(now() - started)
    pipe.send(peak.stop())


class CudaPeak:
    """Peak memory of torch on a GPU since `restart`, MB beyond what was in use."""

    def restart(self):
        import torch

        self.cuda = torch.cuda
        self.cuda.reset_peak_memory_stats()
        self.before = self.cuda.memory_allocated()

    def stop(self):
        return {"running": (self.cuda.max_memory_allocated() - self.before) / 1e6}


def ours(network, batch):
    """Returns a run of the forward pass of our network."""
    family, _, variant = network.partition(":")
    model = randomised(family, variant, {})
    draw = np.random.default_rng(0)
    images = jax.device_put(draw.normal(size=(batch, *model.image_size, 3)).astype(np.float32))
    jax.block_until_ready(model.variables)
    return lambda: jax.block_until_ready(model.run(images)[0])


def twin(network, batch):
    """Returns a run of the forward pass of the same network in torch."""
    import torch

    library, name, fields = NETWORKS[network]
    if library == "timm":
        import timm

        net = timm.create_model(name)
        side = net.pretrained_cfg["input_size"][-1]
    else:
        import transformers

        config = getattr(transformers, f"{name}Config")(**fields)
        kind = "Model" if name == "Dinov2" else "ForImageClassification"
        if kind != "Model":
            config.num_labels = 1000
        net = getattr(transformers, name + kind)(config)
        side = getattr(config, "image_size", 224)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    net = net.eval().to(device)
    images = torch.randn(batch, 3, side, side, device=device)

    def run():
        with torch.inference_mode():
            net(images)
        if device == "cuda":
            torch.cuda.synchronize()

    return run


def report_loading(variant):
    """Prints time and memory of loading one ViT from a file of each format."""
    model = randomised("vit", variant, {})
    parameters = 4 * model.parameter_count / 1e6
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        vitcnn.checkpoints.export(folder / "google.npz", model.variables)
        write_torch(model.module, folder)
        del model
        print(f"vit {variant}: {parameters:.0f} MB of parameters")
        print(f"{'file':26} {'MB':>6} {'seconds':>8} {'MB beyond parameters':>21} {'/ file':>7}")
        for path in sorted(folder.iterdir()):
            size = path.stat().st_size / 1e6
            worker = Worker(serve_loading, variant, path)
            seconds = worker.ask()
            peak = worker.stop()["running"]  # None where the system does not report it
            beyond = float("nan") if peak is None else peak - parameters
            print(f"{path.name:26} {size:6.0f} {seconds:8.2f} {beyond:21.0f} {beyond / size:7.2f}")


def write_torch(module, folder):
    """Writes networks of the same shape and random weights, with each installed library."""
    if not all(map(importlib.util.find_spec, ("torch", "safetensors"))):
        say("torch and safetensors are not installed: only the NumPy archive is read")
        return
    import safetensors.torch
    import torch

    side, patch = module.image_size, module.patch
    states = {}
    if importlib.util.find_spec("transformers"):
        import transformers

        config = transformers.ViTConfig(
            hidden_size=module.width,
            num_hidden_layers=module.depth,
            num_attention_heads=module.heads,
            intermediate_size=module.mlp_dim,
            image_size=side,
            patch_size=patch,
            num_labels=module.num_classes,
        )
        states["transformers"] = transformers.ViTForImageClassification(config).state_dict()
    if importlib.util.find_spec("timm"):
        import timm

        states["timm"] = timm.models.VisionTransformer(
            img_size=side,
            patch_size=patch,
            embed_dim=module.width,
            depth=module.depth,
            num_heads=module.heads,
            mlp_ratio=module.mlp_dim / module.width,
            num_classes=module.num_classes,
        ).state_dict()
    for library, state in states.items():
        safetensors.torch.save_file(state, folder / f"{library}.safetensors")
        torch.save(state, folder / f"{library}.pth")


def serve_loading(pipe, variant, path):
    """Sends the seconds of loading the weights for each request, then the peak memory."""
    jax.block_until_ready(jax.numpy.ones(1))
    peak = Peak(host=True)
    peak.restart()
    pipe.send("ready")
    while pipe.recv() == "go":
        started = time.perf_counter()
        model = vitcnn.load("vit", variant, path, preprocess=HALF)
        jax.block_until_ready(model.variables)
        pipe.send(time.perf_counter() - started)
    pipe.send(peak.stop())


if __name__ == "__main__":
    app.run(main)
