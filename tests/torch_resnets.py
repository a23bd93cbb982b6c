"""ResNets under the names of PyTorch libraries: random weights."""

import numpy as np


def state(bottleneck, stages=(1, 2, 1, 1), width=8):
    """Returns random arrays of a ResNet under torchvision's names, and which ours they are."""
    rng = np.random.default_rng(0)
    made, ours = {}, {}

    def conv(theirs, name, out, fan, side):
        made[f"{theirs}.weight"] = value = rng.normal(size=(out, fan, side, side))
        ours[f"params/{name}/kernel"] = np.moveaxis(value, (0, 1), (3, 2))

    def norm(theirs, name, out):
        for weight, mine in (
            ("weight", "params/{}/scale"),
            ("bias", "params/{}/bias"),
            ("running_mean", "batch_stats/{}/mean"),
            ("running_var", "batch_stats/{}/var"),
        ):
            made[f"{theirs}.{weight}"] = ours[mine.format(name)] = rng.normal(size=out)
        made[f"{theirs}.num_batches_tracked"] = np.array(3)

    conv("conv1", "conv_root", width, 3, 7)
    norm("bn1", "bn_root", width)
    before = width
    for s, units in enumerate(stages, 1):
        inner = width * 2 ** (s - 1)
        out = inner * (4 if bottleneck else 1)
        for u in range(units):
            theirs, name = f"layer{s}.{u}", f"block{s}/unit{u + 1}"
            sizes = (
                [(inner, before, 1), (inner, inner, 3), (out, inner, 1)]
                if bottleneck
                else [(inner, before, 3), (out, inner, 3)]
            )
            for i, size in enumerate(sizes, 1):
                conv(f"{theirs}.conv{i}", f"{name}/conv{i}", *size)
                norm(f"{theirs}.bn{i}", f"{name}/bn{i}", size[0])
            if u == 0 and (s > 1 or bottleneck):
                conv(f"{theirs}.downsample.0", f"{name}/conv_proj", out, before, 1)
                norm(f"{theirs}.downsample.1", f"{name}/bn_proj", out)
            before = out
    made["fc.weight"], made["fc.bias"] = rng.normal(size=(5, before)), rng.normal(size=5)
    ours["params/head/kernel"], ours["params/head/bias"] = made["fc.weight"].T, made["fc.bias"]
    return made, ours


def hugging_face(made):
    """Returns the arrays under the names of transformers."""
    renamed = {}
    for key, value in made.items():
        layer, _, weight = key.rpartition(".")
        for old, new in (("conv", "convolution"), ("bn", "normalization")):
            if layer == f"{old}1":
                layer = f"resnet.embedder.embedder.{new}"
        parts = layer.split(".")
        if parts[0].startswith("layer"):
            unit = f"resnet.encoder.stages.{int(parts[0][5:]) - 1}.layers.{parts[1]}"
            if parts[2] == "downsample":
                layer = f"{unit}.shortcut.{('convolution', 'normalization')[int(parts[3])]}"
            else:
                kind = "convolution" if parts[2].startswith("conv") else "normalization"
                layer = f"{unit}.layer.{int(parts[2][-1]) - 1}.{kind}"
        renamed[f"{layer.replace('fc', 'classifier.1')}.{weight}"] = value
    return renamed
