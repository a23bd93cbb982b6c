"""Configs: the one room for what config files call, shared by measurement and training.

A config file makes a `ml_collections.ConfigDict` of these:

    config = measurement()
    config.models.vit = model("vit", "B/16", weights="")
    config.data = source("npz", path="")
    config.analyses.cka = analysis("cka", images=1000)

Each of them holds every field of the thing that it names, so that a flag can set it:
`--config.models.vit.image_size=384`. A field that nobody sets is an unset placeholder, which means
the default of whatever owns it (for a network first the weights' own value, then the variant's) and
never reaches it. None is no value. An empty string stands for what the user has to give.

`check_measurement` and `check_training` return a config without its unset fields, and raise a
ValueError that names whatever is wrong, before any work starts.
"""

from vitcnn.config.build import analysis, measurement, model, network, source, stage, training
from vitcnn.config.check import check_file_name, check_measurement, check_training
from vitcnn.config.schema import Measurement, Training
from vitcnn.config.walk import walk

__all__ = [
    "Measurement",
    "Training",
    "analysis",
    "check_file_name",
    "check_measurement",
    "check_training",
    "measurement",
    "model",
    "network",
    "source",
    "stage",
    "training",
    "walk",
]
