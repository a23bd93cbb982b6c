"""Labels of an axis of layers."""

from __future__ import annotations

import itertools
import re
from typing import Any

from vitcnn.figures._style import short
from vitcnn.numerics.arrays import Names


def ticks(layers: Names, gap: float) -> tuple[list[float], list[str], list[float]]:
    """Returns where and how to label an axis of layers: at blocks and stages, without crowding.

    Layers are grouped by the first part of their name ("block03/ln1" and "block03/out" are "block
    3"). Of a numbered series every n-th group is labelled, n as small as the gap allows; then the
    last, the first and the other groups, where there is room.

    Args:
      layers: names from input to output.
      gap: least distance of two labels, in layers.

    Returns:
      (positions of the labels, labels, boundaries of the numbered groups), in layers.
    """
    spans: list[tuple[str, int, int]] = []
    parts = [name.split("/")[:-1] for name in layers]
    shared = list(
        itertools.takewhile(lambda level: len(set(level)) == 1, zip(*parts, strict=False))
    )
    for i, name in enumerate(layers):
        head = name.split("/")[len(shared)]
        start = spans.pop()[1] if spans and spans[-1][0] == head else i
        spans.append((head, start, i + 1))
    middle = {head: (start + stop - 1) / 2 for head, start, stop in spans}
    series: dict[str, list[str]] = {}
    labels = {head: head for head in middle}
    for head in middle:
        numbered = re.fullmatch(r"(.*[^\d_])_?(\d+)", head)
        if numbered:
            series.setdefault(numbered[1], []).append(head)
            labels[head] = f"{numbered[1]} {int(numbered[2])}"
    chosen: list[str] = []

    def fits(head, others):
        return all(abs(middle[head] - middle[other]) >= gap for other in others)

    for members in series.values():
        for step in (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 25, 50, 100, len(layers)):
            some = members[::step]
            if all(fits(b, [a]) for a, b in itertools.pairwise(some)):
                break
        chosen += [head for head in some if fits(head, chosen)]
    rest = [head for head in middle if not any(head in members for members in series.values())]
    for head in [*rest[-1:], *rest]:
        if head not in chosen and fits(head, chosen):
            chosen.append(head)
    chosen.sort(key=middle.get)
    numbered = [s for s in spans if any(s[0] in members for members in series.values())]
    edges = sorted({edge - 0.5 for _, start, stop in numbered for edge in (start, stop)})
    return [middle[head] for head in chosen], [labels[head] for head in chosen], edges


def label_layers(axis: Any, names: Names, gap: float) -> None:
    """Labels an axis on which layer i is at i; `gap` is the least distance in parts of the axis."""
    positions, labels, edges = ticks(names, gap * len(names))
    axis.set_ticks(positions, [short(label, 10) for label in labels])
    axis.set_ticks(edges, minor=True)
    if axis.axis_name == "x":
        axis.set_tick_params(rotation=90)
    if edges:  # labels name what lies between two marks
        axis.set_tick_params(which="major", length=0, pad=4.5)
