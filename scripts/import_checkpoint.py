"""Writes a checkpoint of any known format under Google's names, or for timm.

    python scripts/import_checkpoint.py --out=S_16.npz \\
        --weights=hf:timm/vit_small_patch16_224.augreg_in21k_ft_in1k
    python scripts/import_checkpoint.py --out=S_16 --family=vit --variant=S/16 --weights=S_16.npz

An --out that ends in .npz is a NumPy archive under Google's names. Any other is a folder with
model.safetensors and config.json, from which timm makes the network:
timm.create_model("local-dir:S_16", pretrained=True). --family and --variant are needed where
nothing beside the weights says which network they are of.

--fields sets fields of the network as JSON, such as --fields='{"num_classes": 21843}'. The script
prints what the merge did and how images have to be preprocessed. An archive has no place for the
preprocessing, so it goes to a sidecar, a .vitcnn.json of the same name that `vitcnn.load` reads. If
no file next to the weights describes it, set
--preprocess='{"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}'.
"""

import json

from absl import flags

import vitcnn
from vitcnn import checkpoints, command_line

FAMILY = flags.DEFINE_string("family", "", "Family of the network, or another name for it.")
VARIANT = flags.DEFINE_string("variant", "", "Its usual name, such as B/16.")
WEIGHTS = flags.DEFINE_string("weights", None, "Path, hf:<owner>/<repo> or https URL with sha256.")
OUT = flags.DEFINE_string("out", None, "The archive, ending in .npz, or the folder to write.")
FIELDS = flags.DEFINE_string("fields", "{}", "Fields of the network that differ, as JSON.")
PREPROCESS = flags.DEFINE_string(
    "preprocess",
    "{}",
    "Fields of the preprocessing, as JSON, if no file next to the weights describes them.",
)
NEW_HEAD = flags.DEFINE_bool("new_head", False, "Drop the head of the weights.")
RESIZE = flags.DEFINE_enum(
    "position_resize", "bicubic", ["bicubic", "linear"], "How position embeddings are resized."
)

# Parts of a ViT that Google's format has no name for; no other tool could read an archive of them.
NAMELESS = {
    "dist": "a distillation token",
    "head_dist": "a distillation head",
    "registers": "register tokens",
    "ls1": "layer scale",
    "ls2": "layer scale",
    "fc_norm": "a norm after pooling",
}


def check_names(model):
    """Raises ValueError, naming them, if parts of a network have no name in Google's format."""
    parts = {part for key in checkpoints.flat(model.variables) for part in key.split("/")}
    nameless = {meaning for name, meaning in NAMELESS.items() if name in parts}
    if getattr(model.module, "gated", False):  # the names of their arrays do not show it
        nameless.add("gated MLPs")
    if nameless:
        raise ValueError(
            f"Google's format has no name for {' and '.join(sorted(nameless))}: write a folder for "
            "timm instead (an --out that does not end in .npz)"
        )


def write_archive(model):
    """Writes a model as an archive under Google's names, with its sidecar."""
    check_names(model)
    fields = {k: getattr(model.module, k) for k in ("gelu", "epsilon") if hasattr(model.module, k)}
    settings = {"preprocess": model.provenance["preprocess"], "fields": fields}
    checkpoints.export(OUT.value, model.variables, settings)


def main(_):
    model = vitcnn.load(
        FAMILY.value,
        VARIANT.value,
        WEIGHTS.value,
        preprocess=json.loads(PREPROCESS.value),
        new_head=NEW_HEAD.value,
        position_resize=RESIZE.value,
        **json.loads(FIELDS.value),
    )
    if OUT.value.endswith(".npz"):
        write_archive(model)
    else:
        record = model.provenance
        checkpoints.export_timm(
            OUT.value, record["family"], model.module, model.variables, record["preprocess"]
        )
    origin = model.provenance["weights"]
    report = origin["arrays"]
    print(f"read: {origin.get('source') or origin['path']}, sha256 {origin['sha256']}")
    print(f"format: {origin['format']}")
    print(
        f"arrays: {report['in_file']} in the file, {report['in_network']} in the network, "
        f"{report['renamed']} renamed"
    )
    for what in ("resized", "new"):
        print(f"{what}: {json.dumps(origin.get(what)) if what in origin else 'none'}")
    print(f"preprocess: {json.dumps(model.provenance['preprocess'])}")
    print(f"fields: {json.dumps(model.provenance['fields'], default=str)}")
    if "batch_stats" in model.variables and OUT.value.endswith(".npz"):
        print("names: our own; Google has no ResNet of batch norms")
    print(f"wrote: {OUT.value}, {model.parameter_count:,} parameters")


if __name__ == "__main__":
    flags.mark_flags_as_required(["weights", "out"])
    command_line.run_without_config(main)
