"""ViTs under the names of PyTorch libraries: random weights, and the formula that those compute."""

import json
import math
import re

import numpy as np

SIZES = {"width": 12, "depth": 2, "mlp_dim": 20, "heads": 3}


def state(grid, patch=4, classes=5, positions=None, seed=0, **parts):
    """Returns random arrays under timm's names, in its axis orders.

    Args:
      grid: (rows, columns) of patches.
      patch: side in pixels.
      classes: of the head; 0 for none.
      positions: how many tokens have one; None for class token and distillation token and patches.
      seed: of the values, all away from zero.
      **parts: which of "cls", "dist", "registers" (a number), "scale", "fc_norm" and "gated" (gate
        and value in one layer, the gate first) there are.
    """
    rng = np.random.default_rng(seed)
    width, hidden = SIZES["width"], SIZES["mlp_dim"]
    tokens = parts.get("cls", True) + parts.get("dist", False)
    made = {}

    def layer(name, out, *fan):
        made[f"{name}.weight"] = rng.normal(size=(out, *fan)) / math.sqrt(math.prod(fan))
        made[f"{name}.bias"] = 0.3 * rng.normal(size=out)

    def norm(name):
        made[f"{name}.weight"] = 1 + 0.3 * rng.normal(size=width)
        made[f"{name}.bias"] = 0.3 * rng.normal(size=width)

    count = tokens + grid[0] * grid[1] if positions is None else positions
    made["pos_embed"] = 0.5 * rng.normal(size=(1, count, width))
    for part, name, number in (
        (parts.get("cls", True), "cls_token", 1),
        (parts.get("dist"), "dist_token", 1),
        (parts.get("registers"), "reg_token", parts.get("registers")),
    ):
        if part:
            made[name] = rng.normal(size=(1, number, width))
    layer("patch_embed.proj", width, 3, patch, patch)
    for i in range(SIZES["depth"]):
        norm(f"blocks.{i}.norm1")
        layer(f"blocks.{i}.attn.qkv", 3 * width, width)
        layer(f"blocks.{i}.attn.proj", width, width)
        norm(f"blocks.{i}.norm2")
        layer(f"blocks.{i}.mlp.fc1", 2 * hidden if parts.get("gated") else hidden, width)
        layer(f"blocks.{i}.mlp.fc2", width, hidden)
        if parts.get("scale"):
            made[f"blocks.{i}.ls1.gamma"] = 0.5 + 0.2 * rng.normal(size=width)
            made[f"blocks.{i}.ls2.gamma"] = 0.5 + 0.2 * rng.normal(size=width)
    norm("fc_norm" if parts.get("fc_norm") else "norm")
    if classes:
        layer("head", classes, width)
        if parts.get("dist"):
            layer("head_dist", classes, width)
    return {key: np.float32(value) for key, value in made.items()}


def forward(made, images):
    """Returns (logits, list of block outputs) in float64: timm's forward pass, channels first."""
    p = {key: np.float64(value) for key, value in made.items()}
    heads = SIZES["heads"]

    def linear(x, name):
        return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]

    def norm(x, name):
        mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        return (x - mean) / np.sqrt(var + 1e-6) * p[f"{name}.weight"] + p[f"{name}.bias"]

    x = np.float64(images).transpose(0, 3, 1, 2)
    n, _, height, width = x.shape
    kernel = p["patch_embed.proj.weight"]
    side = kernel.shape[-1]
    x = x.reshape(n, 3, height // side, side, width // side, side)
    x = np.einsum("narisj,daij->nrsd", x, kernel)
    x = x.reshape(n, -1, kernel.shape[0]) + p["patch_embed.proj.bias"]
    patches = x.shape[1]
    names = [k for k in ("cls_token", "dist_token") if k in p]
    first = [np.repeat(p[k], n, 0) for k in names]
    if p["pos_embed"].shape[1] == patches:
        x = np.concatenate([*first, x + p["pos_embed"]], 1)
    else:
        x = np.concatenate([*first, x], 1) + p["pos_embed"]
    if "reg_token" in p:
        k = len(names)
        x = np.concatenate([x[:, :k], np.repeat(p["reg_token"], n, 0), x[:, k:]], 1)
    blocks = []
    for i in range(SIZES["depth"]):
        b = f"blocks.{i}"
        qkv = linear(norm(x, f"{b}.norm1"), f"{b}.attn.qkv")
        q, k, v = qkv.reshape(n, x.shape[1], 3, heads, -1).transpose(2, 0, 3, 1, 4)
        scores = np.exp(q @ k.swapaxes(2, 3) / math.sqrt(q.shape[-1]))
        y = (scores / scores.sum(-1, keepdims=True)) @ v
        y = linear(y.swapaxes(1, 2).reshape(x.shape), f"{b}.attn.proj")
        x = x + y * p.get(f"{b}.ls1.gamma", 1)
        y = linear(norm(x, f"{b}.norm2"), f"{b}.mlp.fc1")
        if gated(p):
            gate, value = np.split(y, 2, axis=-1)
            y = gate / (1 + np.exp(-gate)) * value
        else:
            y = y * (1 + np.vectorize(math.erf)(y / math.sqrt(2))) / 2
        x = x + linear(y, f"{b}.mlp.fc2") * p.get(f"{b}.ls2.gamma", 1)
        blocks.append(x)
    if "fc_norm.weight" in p:
        return linear(norm(x[:, -patches:].mean(1), "fc_norm"), "head"), blocks
    x = norm(x, "norm")
    if "head.weight" not in p:
        return x[:, 0], blocks
    if "cls_token" not in p:
        return linear(x[:, -patches:].mean(1), "head"), blocks
    logits = linear(x[:, 0], "head")
    if "head_dist.weight" in p:
        logits = (logits + linear(x[:, 1], "head_dist")) / 2
    return logits, blocks


def gated(made):
    """Whether the MLPs of a state are."""
    first, second = (made[f"blocks.0.mlp.fc{i}.weight"] for i in (1, 2))
    return first.shape[0] == 2 * second.shape[1]


def hugging_face(made, prefix):
    """Returns the same arrays under the names of transformers."""
    renamed = {}
    rules = [
        (r"cls_token", "embeddings.cls_token"),
        (r"dist_token", "embeddings.distillation_token"),
        (r"reg_token", "embeddings.register_tokens"),
        (r"pos_embed", "embeddings.position_embeddings"),
        (r"patch_embed\.proj\.(.+)", r"embeddings.patch_embeddings.projection.\1"),
        (r"norm\.(.+)", r"layernorm.\1"),
    ]
    inside = [
        ("attn.proj", "attention.output.dense"),
        ("ls1.gamma", "layer_scale1.lambda1"),
        ("ls2.gamma", "layer_scale2.lambda1"),
    ]
    if not prefix.startswith("dinov2"):
        inside += [
            ("norm1", "layernorm_before"),
            ("norm2", "layernorm_after"),
            ("mlp.fc1", "intermediate.dense"),
            ("mlp.fc2", "output.dense"),
        ]
    if gated(made):
        inside += [("mlp.fc1", "mlp.weights_in"), ("mlp.fc2", "mlp.weights_out")]
    for key, value in made.items():
        if part := re.fullmatch(r"blocks\.(\d+)\.(.+)", key):
            block, name = f"{prefix}encoder.layer.{part[1]}.", part[2]
            if name.startswith("attn.qkv."):
                for which, third in zip(("query", "key", "value"), np.split(value, 3), strict=True):
                    weight = name.removeprefix("attn.qkv.")
                    renamed[f"{block}attention.attention.{which}.{weight}"] = third
                continue
            for theirs, here in inside:
                name = name.replace(theirs, here)
            renamed[block + name] = value
        elif key.startswith("head"):
            head = {"head": "cls_classifier", "head_dist": "distillation_classifier"}
            plain = {"head": "classifier"}
            layer, weight = key.split(".")
            renamed[f"{(head if 'dist_token' in made else plain)[layer]}.{weight}"] = value
        else:
            for pattern, name in rules:
                if re.fullmatch(pattern, key):
                    renamed[prefix + re.sub(pattern, name, key)] = value
                    break
    assert len(renamed) == len(made) + 4 * SIZES["depth"]
    return renamed


def hugging_face_in_memory(made, prefix):
    """Returns the same arrays under the names that a network of transformers 5 has itself."""
    rules = [
        (r"encoder\.layer\.", "layers."),
        (r"attention\.attention\.(query|key|value)", lambda part: f"attention.{part[1][0]}_proj"),
        (r"attention\.output\.dense", "attention.o_proj"),
        (r"intermediate\.dense", "mlp.fc1"),
        (r"(\d)\.output\.dense", r"\1.mlp.fc2"),
        (r"weights_out", "down_proj"),
    ]
    if prefix.startswith("dinov2"):
        rules.pop(0)
    renamed = {}
    for key, value in hugging_face(made, prefix).items():
        for pattern, name in rules:
            key = re.sub(pattern, name, key)
        if "weights_in" in key:
            for part, half in zip(("gate_proj", "up_proj"), np.split(value, 2), strict=True):
                renamed[key.replace("weights_in", part)] = half
        else:
            renamed[key] = value
    return renamed


def dinov2(made):
    """Returns the same arrays under the names of DINOv2's own files."""
    names = {"mlp.fc1": "mlp.w12", "mlp.fc2": "mlp.w3"} if gated(made) else {}
    names["reg_token"] = "register_tokens"
    renamed = {"mask_token": np.ones((1, SIZES["width"]))}
    for key, value in made.items():
        for theirs, here in names.items():
            key = key.replace(theirs, here)
        renamed[key] = value
    return renamed


def torchvision(made):
    """Returns the same arrays under the names of torchvision."""
    rules = [
        (r"cls_token", "class_token"),
        (r"pos_embed", "encoder.pos_embedding"),
        (r"patch_embed\.proj", "conv_proj"),
        (r"blocks\.(\d+)", r"encoder.layers.encoder_layer_\1"),
        (r"attn\.qkv\.", "self_attention.in_proj_"),
        (r"attn\.proj", "self_attention.out_proj"),
        (r"\.norm1\.", ".ln_1."),
        (r"\.norm2\.", ".ln_2."),
        (r"mlp\.fc1", "mlp.0"),
        (r"mlp\.fc2", "mlp.3"),
        (r"^norm\.", "encoder.ln."),
        (r"^head\.", "heads.head."),
    ]
    renamed = {}
    for key, value in made.items():
        for pattern, name in rules:
            key = re.sub(pattern, name, key)
        renamed[key] = value
    return renamed


def save(path, arrays):
    """Writes a safetensors file from the description of the format."""
    header, start = {}, 0
    arrays = {key: np.ascontiguousarray(value, np.float32) for key, value in arrays.items()}
    for key, value in arrays.items():
        stop = start + value.nbytes
        header[key] = {"dtype": "F32", "shape": value.shape, "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(header).encode()
    data = b"".join(value.tobytes() for value in arrays.values())
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path
