"""What taps are called in figures of many of them: by part, with a number."""

from __future__ import annotations

import re

import xarray

from vitcnn.figures._describe import kind, origin

FIRST_BRANCH = {"vit": "attention", "mixer": "token mixing"}  # of a block, by kind of the model


def tap_titles(result: xarray.Dataset) -> dict[str, list[tuple[int, str]]]:
    """Returns the taps of a Result of one model by the part of the network that they are.

    Returns:
      part -> [(position of the tap in the Result, title)], such as
      "attention" -> [(0, "block 0, attention"), ...].
    """
    provenance = origin(result)
    model = next(iter(provenance.get("models", ())), "")
    first = FIRST_BRANCH.get(kind(provenance, model))
    parts = {"mid": first, "attn": first, "out": "MLP", "mlp": "MLP"} if first else {}
    titles: dict[str, list[tuple[int, str]]] = {}
    for i, tap in enumerate(result.tap.values.tolist()):
        part, title = re.sub(r"\d", "", tap), tap
        if block := re.fullmatch(r"(?:stage(\d+)/)?block(\d+)/(\w+)", tap):
            part = parts.get(block[3], block[3])
            stage = f"stage {block[1]}, " if block[1] else ""
            title = f"{stage}block {int(block[2])}, {part}"
        elif unit := re.fullmatch(r"stage(\d+)/unit(\d+)/(out|norm\d|conv\d|gated)", tap):
            part, title = "unit", f"stage {unit[1]}, unit {int(unit[2])}"
        elif tap == "stem/conv":
            part = title = "initial conv"
        titles.setdefault(part, []).append((i, title))
    return titles
