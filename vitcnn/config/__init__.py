"""Configs: the functions that config files call, for measurement, training and ablations.

A config file builds a `ml_collections.ConfigDict` from these functions:

    config = measurement()
    config.models.vit = model("vit", "B/16", weights="")
    config.data = source("npz", path="")
    config.analyses.cka = analysis("cka", images=1000)

Each function returns every field of the thing that it names, so a flag can set any of them:
`--config.models.vit.image_size=384`. A field that nobody sets is an unset placeholder. It is left
out before the thing is made, so the thing's own default holds; for a network that is first the
value stored with the weights, then the variant's. None is not a value. An empty string marks a
field that the user has to give.

`check_measurement`, `check_training` and `check_ablation` return a config without its unset fields.
They raise a ValueError that names whatever is wrong, before any work starts.

`read("configs/analyze/scenes.py:smallest")` returns the config of a file.

Read the files in this order: `schema` (the fields), `build` (what config files call), `check`,
`precision`, `walk` (all fields, for --help), `files` (where config files are), `recipes` (what the
config files of trainings have in common).
"""

from vitcnn.config.build import (
    ablation,
    analysis,
    evaluation,
    measurement,
    mixing,
    model,
    network,
    optimizer,
    schedule,
    source,
    stage,
    training,
)
from vitcnn.config.check import (
    BASELINE,
    check_ablation,
    check_file_name,
    check_measurement,
    check_training,
)
from vitcnn.config.files import read
from vitcnn.config.schema import Ablation, Evaluation, Measurement, Training
from vitcnn.config.walk import walk

__all__ = [
    "BASELINE",
    "Ablation",
    "Evaluation",
    "Measurement",
    "Training",
    "ablation",
    "analysis",
    "check_ablation",
    "check_file_name",
    "check_measurement",
    "check_training",
    "evaluation",
    "measurement",
    "mixing",
    "model",
    "network",
    "optimizer",
    "read",
    "schedule",
    "source",
    "stage",
    "training",
    "walk",
]
