"""What taps are called in figures of many of them: by kind, with a number."""

from __future__ import annotations

import re

import xarray


def kinds(result: xarray.Dataset) -> dict[str, list[tuple[int, str]]]:
    """Returns kind -> (number, title) of taps: "attention" -> [(0, "block 0, attention"), ...]."""
    from vitcnn import figures

    known = figures.origin(result)
    families = [figures.family(known, model) for model in known.get("models", ())]
    first = {"vit": "attention", "mixer": "token mixing"}.get(families[0] if families else "")
    parts = {"mid": first, "attn": first, "out": "MLP", "mlp": "MLP"} if first else {}
    named: dict[str, list[tuple[int, str]]] = {}
    for i, tap in enumerate(result.tap.values.tolist()):
        kind, title = re.sub(r"\d", "", tap), tap
        if found := re.fullmatch(r"block(\d+)/(\w+)", tap):
            kind = parts.get(found[2], found[2])
            title = f"block {int(found[1])}, {kind}"
        elif found := re.fullmatch(r"stage(\d+)/unit(\d+)/(out|norm\d|conv\d)", tap):
            kind, title = "unit", f"stage {found[1]}, unit {int(found[2])}"
        elif tap == "stem/conv":
            kind = title = "initial conv"
        named.setdefault(kind, []).append((i, title))
    return named
