"""Counts which pretrained networks of timm load by their name alone, and which are refused.

    python scripts/coverage.py --out=coverage.tsv                 # shapes alone: minutes
    python scripts/coverage.py --out=coverage.tsv --logits        # and logits, once an architecture
    python scripts/coverage.py --out=coverage.tsv --only='resnet*'

A network of timm is written as `timm.models.save_for_hf` writes it, and `vitcnn.load` gets the
folder and nothing else. Names of one architecture differ in their config.json, so every name is
read; the arrays have shapes and no numbers for that. With --logits, each architecture below --most
million parameters is loaded once more, with random numbers in all of its arrays and in its running
statistics, and its logits are compared with timm's on two images, the smallest network first.

The file has a line for each name: what became of it, and the reason. Names that are there already
are not looked at again, so a run that was stopped goes on; delete the file to start anew. Needs
timm: pip install "vitcnn[oracles]".
"""

import collections
import csv
import fnmatch
import math
import pathlib
import sys
import tempfile
import warnings

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

import vitcnn
from vitcnn import checkpoints, models
from vitcnn.checkpoints import families
from vitcnn.checkpoints.files.contents import Contents
from vitcnn.checkpoints.sidecars.timm import architecture as describe

OUT = flags.DEFINE_string("out", "coverage.tsv", "File of the results; a run goes on from it.")
ONLY = flags.DEFINE_string("only", "*", "Glob of the names that are looked at.")
LOGITS = flags.DEFINE_bool("logits", False, "Also compare logits, once for each architecture.")
MOST = flags.DEFINE_float("most", 400, "Millions of parameters of the largest network to run.")

# Modules of timm whose networks are ViTs, ResNets or Mixers.
GROUPS = (
    *("vision_transformer", "deit", "vision_transformer_hybrid", "vision_transformer_relpos"),
    *("vision_transformer_sam", "eva", "beit", "cait", "naflexvit"),
    *("resnet", "resnetv2", "senet", "mlp_mixer"),
)
# Largest difference of logits, relative to their deviation.
TOLERANCE = 5e-4
COLUMNS = ("name", "group", "outcome", "reason")
LOADED, REFUSED, WRONG, EXACT = "loads", "refused", "wrong", "exact"


def main(_):
    path = pathlib.Path(OUT.value)
    results = read(path)
    with path.open("a", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        if not results:
            writer.writerow(COLUMNS)
        for name, group in names():
            if not fnmatch.fnmatch(name, ONLY.value):
                continue
            if name not in results:
                results[name] = (name, group, *by_shapes(name))
                writer.writerow(results[name])
                file.flush()
        if LOGITS.value:
            compare_all(results, writer, file)
    print("\n".join(table(results.values())))
    sys.exit(any(outcome == WRONG for _, _, outcome, _ in results.values()))


def read(path: pathlib.Path) -> dict[str, tuple[str, ...]]:
    """Returns name -> line of a file of results; later lines win."""
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        lines = list(csv.reader(file, delimiter="\t"))[1:]
    return {line[0]: tuple(line) for line in lines if len(line) == len(COLUMNS)}


def names() -> list[tuple[str, str]]:
    """Returns (name, group) of every pretrained network of timm in `GROUPS`."""
    import timm

    pairs = []
    for name in timm.list_models(pretrained=True):
        module = timm.model_entrypoint(name.partition(".")[0]).__module__.rpartition(".")[2]
        if module in GROUPS:
            pairs.append((name, module))
    return pairs


def by_shapes(name: str) -> tuple[str, str]:
    """Returns (outcome, reason) for the shapes of a network and the config.json of its name."""
    network = create(name, meta=True)
    arrays = {
        key: np.broadcast_to(np.float32(0), tuple(value.shape))
        for key, value in network.state_dict().items()
    }
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.safetensors"
        write_config(network, path.parent)
        try:
            fit(path, Contents(arrays))
        except ValueError as error:
            return REFUSED, reason(error)
    return LOADED, ""


def fit(path: pathlib.Path, contents: Contents) -> None:
    """Does what `vitcnn.load(path)` does, without numbers; a ValueError if it would fail."""
    file = checkpoints.read_file(path, contents=contents, sha256="0" * 64)
    identity = checkpoints.identify(file, {})
    network = identity.network
    module = models.create(network.family, network.variant, **network.fields)
    size = module.image_size
    height, width = (size, size) if isinstance(size, int) else size
    images = jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), images)
    checkpoints.restore(identity.file, network.family, module, shapes)


def compare_all(results: dict, writer, file) -> None:
    """Compares the logits of each architecture that loads, and writes what comes out.

    The smallest come first: a run that is stopped has then compared the most.
    """
    done = {n.partition(".")[0] for n, (_, _, outcome, _) in results.items() if outcome == EXACT}
    parameters = {}
    for name, (_, _, outcome, _) in results.items():
        architecture = name.partition(".")[0]
        if outcome == LOADED and architecture not in done and fnmatch.fnmatch(name, ONLY.value):
            done.add(architecture)
            parameters[name] = sum(p.numel() for p in create(name, meta=True).parameters())
    for name in sorted(parameters, key=parameters.get):
        if parameters[name] > MOST.value * 1e6:
            break
        try:
            compared = by_logits(name)
        except Exception as error:  # of whatever kind: the others are still to be compared
            compared = WRONG, f"{type(error).__name__}: {reason(error)}"
        results[name] = (name, results[name][1], *compared)
        writer.writerow(results[name])
        file.flush()
        print(*results[name], sep="\t", flush=True)


def by_logits(name: str) -> tuple[str, str]:
    """Returns (outcome, largest difference) of the logits of a network with random weights."""
    import torch
    from safetensors.torch import save_file

    network = randomised(create(name))
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        write_config(network, folder)
        save_file(network.state_dict(), folder / "model.safetensors")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = vitcnn.load(folder, **as_timm(name))
    images = np.random.default_rng(0).normal(size=(2, *model.image_size, 3)).astype(np.float32)
    with torch.no_grad():
        expected = network(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    logits, _ = model.run(images)
    jax.clear_caches()  # programs of hundreds of networks
    if logits.shape != expected.shape:
        return WRONG, f"logits {logits.shape}, timm {expected.shape}"
    difference = float(np.abs(logits - expected).max() / expected.std())
    return (EXACT if difference < TOLERANCE else WRONG), f"{difference:.1e}"


def as_timm(name: str) -> dict:
    """Returns the fields with which timm computes a name whose weights were trained with others."""
    family, fields = describe(name.partition(".")[0])
    trained = getattr(families.find(family), "TRAINED", {}).get(name, ())
    return {field: fields[field] for field in trained}


def create(name: str, meta: bool = False):
    """Returns a network of timm with the settings of its weights, but without them.

    Args:
      name: with its tag, which chooses the number of classes.
      meta: whether its arrays have shapes and no numbers.
    """
    import timm
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if not meta:
            return timm.create_model(name).eval()
        try:
            with torch.device("meta"):
                return timm.create_model(name)
        except (NotImplementedError, RuntimeError):  # some compute constants from their arrays
            return timm.create_model(name, device="meta")


def write_config(network, folder: pathlib.Path) -> None:
    """Writes config.json as timm does."""
    from timm.models import _hub

    _hub.save_config_for_hf(network, folder / "config.json")


def randomised(network):
    """Fills a network of torch with numbers that show every array in the logits."""
    import torch

    draw = torch.Generator().manual_seed(0)
    state = network.state_dict()
    for name, value in state.items():
        if not value.is_floating_point():
            continue
        noise = torch.randn(value.shape, generator=draw)
        if name.endswith("running_var"):
            noise = 0.5 + noise**2
        elif name.endswith(("token", "pos_embed", "latent")):
            noise = 0.5 * noise
        elif value.ndim > 1:
            noise = noise / math.sqrt(value[0].numel())
        else:
            noise = 0.3 * noise + name.endswith(("weight", "gamma"))
        value.copy_(noise)
    network.load_state_dict(state)
    return network


def reason(error: Exception) -> str:
    """Returns an error in one line, without the name of the file."""
    line = " ".join(str(error).split())
    return line.removeprefix("model.safetensors ")[:300]


def table(results) -> list[str]:
    """Returns the lines of a table: how many names of each group load and are refused."""
    counts = collections.defaultdict(collections.Counter)
    architectures = collections.defaultdict(set)
    for name, group, outcome, _ in results:
        outcome = LOADED if outcome == EXACT else outcome
        for row in (group, "all"):
            counts[row][outcome] += 1
            counts[row]["names"] += 1
        if outcome == LOADED:
            architectures[group].add(name.partition(".")[0])
            architectures["all"].add(name.partition(".")[0])
    columns = ("names", LOADED, REFUSED, WRONG)
    lines = [f"{'group':<28}" + "".join(f"{c:>9}" for c in columns) + f"{'architectures':>15}"]
    for row in [*sorted(counts.keys() - {"all"}), "all"]:
        numbers = "".join(f"{counts[row][c]:>9}" for c in columns)
        lines.append(f"{row:<28}{numbers}{len(architectures[row]):>15}")
    return lines


if __name__ == "__main__":
    app.run(main)
