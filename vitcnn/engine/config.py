"""The config of a measurement: its fields, and how they are checked before any long work."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from vitcnn import analyses
from vitcnn.data import sources
from vitcnn.lookup import check_name
from vitcnn.model import Model, load

# The fields of an analysis config and their defaults; configs/analyze/ has examples.
CONFIG: Mapping[str, Any] = {
    "models": {},  # name -> family, variant, weights, preprocess, fields of the module
    "data": {},  # source, and the fields of its `load`
    "analyses": {},  # name -> fields of JOB, and those of the analysis
    "stages": {},  # name -> fields of STAGE: runs that come first, in the order of their names
    "group": 128,  # images per HSIC estimate
    "seed": 0,  # draws the images
    "precision": "highest",  # of every matrix product of the program
    "max_sums_gb": 4.0,  # refuse to start if the sums of all analyses need more
    "save_every_s": 60.0,  # how often the sums are saved for resuming
}

PRECISIONS = ("default", "high", "highest", "bfloat16", "tensorfloat32", "float32")  # JAX's names

JOB: Mapping[str, Any] = {
    "analysis": "",  # file in vitcnn/analyses; "" is the name of the job
    "models": (),  # names, in the order of the result; () is all, by name
    "taps": (),  # globs; () is the analysis's TAPS
    "images": 0,  # 0 is the analysis's IMAGES, or all there are if that is less
    "repeats": 1,  # draws of the images; the estimate pools them, error bars are those of one
}

# A stage is an ordinary run of the same models. Its Results are `given` to the jobs of the same
# name in later stages and in the config itself: a probe goes on from its fit on other images.
STAGE: Mapping[str, Any] = {
    "data": {},  # {} is those of the config
    "analyses": {},
}

NEUTRAL = ("save_every_s", "max_sums_gb")  # fields that do not change a number


def defaults() -> ConfigDict:
    """Returns `CONFIG` for a config file to fill in: what it has, a flag can set."""
    return ConfigDict(CONFIG)


def job(analysis: str = "", **fields: Any) -> ConfigDict:
    """Returns the fields of one analysis, with changes, for a config file.

    They are `JOB` and, where the analysis is named, its own: what a config has, a flag can set.
    """
    own = analyses.constant(analyses.find(analysis), "FIELDS") if analysis else {}
    return ConfigDict({**JOB, **own, "analysis": analysis, **fields})


def stage(**fields: Any) -> ConfigDict:
    """Returns the fields of one stage, `STAGE` with changes, for a config file."""
    return ConfigDict({**STAGE, **fields})


def check_config(config: Mapping[str, Any], source: Any = None) -> ConfigDict:
    """Returns a config with the defaults of `CONFIG` filled in.

    Args:
      config: as the user gave it.
      source: ready images, if `config.data` is not to be used.

    Raises:
      ValueError: an unknown field; the message gives the nearest one.
    """
    for field in config:
        check_name("field of the config", field, CONFIG)
    full = ConfigDict({**CONFIG, **dict(config.items())})
    check_name("precision", full.precision, PRECISIONS)
    if source is None:
        _check_data(full.data, "config.data")
    for name, fields in full.stages.items():
        check_file_name(name)
        for field in fields:
            check_name(f"field of config.stages.{name}", field, STAGE)
        if fields.get("data"):
            _check_data(fields.data, f"config.stages.{name}.data")
    full.stages = ConfigDict({n: {**STAGE, **dict(f.items())} for n, f in full.stages.items()})
    return full


def check_file_name(name: str) -> None:
    """Raises ValueError unless the name of a model, an analysis or a stage can name a file."""
    if not re.fullmatch(r"[\w.+-]+", name):  # it becomes part of file names
        raise ValueError(
            f"{name!r} cannot name a model, an analysis or a stage: use letters, digits, _.+-"
        )


def _check_data(fields: Mapping[str, Any], where: str) -> None:
    if not fields.get("source"):
        raise ValueError(f"{where}.source is not set: name one of {sources.names()}")
    for field, value in fields.items():
        if isinstance(value, str) and not value:
            raise ValueError(f"{where}.{field} is empty; give it with --{where}.{field}=...")


def load_data(fields: Mapping[str, Any]) -> Any:
    """Opens the images that `config.data` names."""
    fields = dict(fields.items())
    return sources.load(fields.pop("source"), **fields)


def load_models(configs: Mapping[str, Any]) -> dict[str, Model]:
    """Loads every model of a config: name -> `vitcnn.load(**fields)`."""
    loaded = {}
    for name, fields in configs.items():
        fields = dict(fields.items())
        for needed in ("family", "variant"):
            if not fields.get(needed):
                raise ValueError(f"config.models.{name}.{needed} is not set")
        if fields.get("weights") == "":
            raise ValueError(
                f"config.models.{name}.weights is empty; give a path, or None for random"
            )
        if "preprocess" in fields:
            fields["preprocess"] = dict(fields["preprocess"].items())
        loaded[name] = load(fields.pop("family"), fields.pop("variant"), **fields)
    return loaded
