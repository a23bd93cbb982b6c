"""Families: what other libraries say of a network, in the fields of ours; one family a file.

A file has the name of its family in `vitcnn.models`. Three sources describe a network, and for each
the file says how a description becomes fields. What it does not understand is refused by name.

The shapes of arrays:
- `from_arrays(shapes)`, the fields that the shapes of all arrays show, by our full names. The axes
  of heads may be missing, since torch has none.
- `UNSEEN`, fields that change what a network computes and that no array shows; a name, or the JSON
  beside the weights, has to say them.

timm:
- `SIGNATURES`, for each of its formats, names of arrays that every network of the format has;
- `LAYERS`, the classes of the layers of timm that our network has too;
- `describe(network)`, (the fields of our network that computes what a network of timm does, "") or
  ({}, why there is none). It is given networks that have only `LAYERS`, on the device "meta".
  scripts/list_published.py writes the answers to `sidecars/architectures.tsv`;
- `arguments(facts, fields)`, which changes the fields of an architecture by the `model_args` of a
  config.json, and leaves in `facts` what it does not understand;
- `pool(facts, name, class_token, fields)`, the same for `global_pool`;
- `to_timm(module)`, the network of timm that computes what a network of ours does, a
  `timm_networks.Twin`.

transformers:
- `MODEL_TYPES`, the `model_type` of a config.json -> a function of its facts that returns fields.

Everyone:
- `NAMES`, names that people use -> the beginning of the variants that they mean: "deit" -> "DeiT-";
- `TRAINED`, where weights of timm were trained with other fields than the network of their name
  has in timm, "architecture.tag" -> these fields;
- `OTHER_NAMES`, names of networks in other libraries -> the architecture of timm that they are.
"""

from __future__ import annotations

import sys
from types import ModuleType

from vitcnn import lookup


def names() -> list[str]:
    """Returns the names of the families that have a file here."""
    return lookup.names_in(sys.modules[__name__])


def find(family: str) -> ModuleType:
    """Imports the file of a family."""
    return lookup.find("family", sys.modules[__name__], family)
