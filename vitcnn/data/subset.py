"""A part of a source: a range of its images, or a few of each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vitcnn.data.order import order


class Part:
    """A source made of some images of another.

    Args:
      source: the other source.
      indices: which of its images, in this order.
      what: says so, for provenance.
      draws: parts of equal size that it falls into, one behind the other.
    """

    def __init__(
        self, source: Any, indices: Sequence[int], what: Mapping[str, Any], draws: int = 1
    ):
        self._source = source
        self._indices = indices
        self.draws = draws
        self.labelled = source.labelled
        self.classes = source.classes
        self.provenance = {
            **source.provenance,
            "part": {**source.provenance.get("part", {}), **what},
        }

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return self._source[int(self._indices[i])]

    def label(self, i: int) -> int:
        """Returns the label of image i."""
        return label_of(self._source, int(self._indices[i]))


def label_of(source: Any, i: int) -> int:
    """Returns the label of image i of a source; without its image, if the source has `label`."""
    return source.label(i) if hasattr(source, "label") else source[i]["label"]


def subset(
    source: Any, start: int = 0, stop: int = 0, shots: int = 0, draws: int = 1, draw_seed: int = 0
) -> Any:
    """Returns some of the images of a source; the source itself if nothing is chosen.

    Args:
      source: the images.
      start: first image that is taken.
      stop: image behind the last that is taken; 0 takes all to the end.
      shots: images of each class, drawn from those from `start` to `stop`; 0 takes all.
      draws: how often they are drawn, one draw behind the other.
      draw_seed: of the draws.

    Raises:
      ValueError: there are no such images.
    """
    if start or stop:
        source = span(source, start, stop or None)
    return few_shot(source, shots, draws, draw_seed) if shots else source


def span(source: Any, start: int = 0, stop: int | None = None) -> Part:
    """Returns images `start` to `stop` - 1 of a source.

    Raises:
      ValueError: the source has no such images.
    """
    n = len(source)
    stop = n if stop is None else stop
    if not 0 <= start < stop <= n:
        raise ValueError(
            f"data.start = {start} and data.stop = {stop}: expected 0 <= start < stop <= {n}, the "
            "number of images"
        )
    return Part(source, range(start, stop), {"start": start, "stop": stop})


def few_shot(source: Any, shots: int, draws: int = 1, seed: int = 0) -> Part:
    """Returns `shots` images of each class, drawn `draws` times, one draw behind the other.

    Image i belongs to draw i // (shots * classes). Draw d takes the first images of each class in
    the permutation of (seed, d), so that 5 shots are among 10 shots of the same draw; an image may
    be in several draws.

    Args:
      source: labelled images.
      shots: images of each class in a draw.
      draws: number of draws.
      seed: of the permutations.

    Raises:
      ValueError: the source has no labels, or a class has fewer images.
    """
    if shots < 1 or draws < 1:
        raise ValueError(f"data.shots = {shots}, data.draws = {draws}: expected 1 or more")
    if not source.labelled:
        raise ValueError(f"data.shots = {shots} needs labels, which the data do not have")
    chosen = []
    for draw in range(draws):
        found: dict[int, list[int]] = {c: [] for c in range(source.classes)}
        missing = shots * source.classes
        for i in order(len(source), None, seed, draw).tolist():
            label = label_of(source, i)
            if label in found and len(found[label]) < shots:
                found[label].append(i)
                missing -= 1
                if not missing:
                    break
        poor = [c for c, images in found.items() if len(images) < shots]
        if poor:
            least = min(poor, key=lambda c: len(found[c]))
            raise ValueError(
                f"data.shots = {shots}: {len(poor)} of {source.classes} classes have fewer images, "
                f"class {least} only {len(found[least])}; set data.shots to that or less"
            )
        chosen += [i for images in found.values() for i in images]
    return Part(source, chosen, {"shots": shots, "draws": draws, "draw_seed": seed}, draws)
