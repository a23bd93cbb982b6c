"""Analyses: one measurement a file; adding a file is registering it.

An analysis is

    TAPS = ("block*/out", "stage*/unit*/out")  # default globs; config.taps overrides
    TRAITS = Traits(one_model=True)            # what the engine has to know, if not the defaults

    @dataclasses.dataclass(frozen=True)
    class Settings: ...                        # its own settings, with defaults and meanings

    def forwards(config): ...                  # if it runs the network itself: passes of an image
    def measure(group, config, given): ...     # on device, pure: one group of images -> sums
    def finalize(sums, config): ...            # on host, float64: a total -> xarray.Dataset

    @figure("Heading", "Caption.")
    def draw(results): ...                     # a sequence of Results -> matplotlib figure

`measure` sees one group of real images (`Group`) and knows nothing of devices, padding, error bars
or other groups. `config` is a `Config`: the settings of the analysis and the layers to measure.
`given` has, for each stage (`config.stages`) by name, the arrays of the Result of the job that has
the same name in that stage. When layers or settings do not fit, `measure` raises a ValueError. The
error comes when the program is traced, before any image is read.

Sums are pytrees of arrays; `vitcnn.numerics.exact` has types for sums that float32 cannot hold.
`finalize` is called on the total and on the totals that leave out one block of images, from which
the engine computes the standard errors. Figures are functions whose names begin with "draw"; a
function that has nothing to show returns None.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from jaxtyping import Float, Int

from vitcnn import lookup, tap_layout
from vitcnn.numerics.arrays import Array
from vitcnn.numerics.exact import Double
from vitcnn.similarity import distances, gram, hsic
from vitcnn.taps import TapInfo

ALL = 0  # as a number of images: all images of the source


@dataclasses.dataclass(frozen=True)
class Traits:
    """What the engine has to know of an analysis.

    Attributes:
      images: number of images to take, if the source has as many; `ALL` takes all.
      one_model: whether the analysis runs once for each model, rather than on all models at once.
      labels: whether it needs labels.
      head: whether it compares the model's own logits with the labels.
      needs: what else its images have to have: "boxes", "cues"; see `vitcnn.data.sources`.
      stages: names of those settings that name an earlier stage with a job of the same name.
      least_group: smaller groups of images are left out, with a warning.
      blocks: number of blocks for the jackknife: 64, or 1 for huge sums, whose Result then has no
        standard errors.
    """

    images: int = 10_240
    one_model: bool = False
    labels: bool = False
    head: bool = False
    needs: tuple[str, ...] = ()
    stages: tuple[str, ...] = ()
    least_group: int = 1
    blocks: int = 64


@dataclasses.dataclass(frozen=True)
class Selection:
    """The settings that every analysis has: models, taps and images.

    Attributes:
      models: names of models, in the order of the result; all by name if it is left out.
      taps: globs; those of the analysis if it is left out.
      images: number of images; 0 takes all. If it is left out, the number of the analysis, or all
        images if there are fewer.
      repeats: number of draws of the images; the estimate pools them, error bars are for one draw.
    """

    models: tuple[str, ...] = ()
    taps: tuple[str, ...] = ()
    images: int | None = None
    repeats: int = 1


@dataclasses.dataclass(frozen=True)
class NoSettings:
    """The settings of an analysis that has none of its own."""


@dataclasses.dataclass(frozen=True)
class Config:
    """The settings and layers of an analysis, as `measure` and `finalize` get them.

    Settings are read as attributes: `config.tokens`.

    Attributes:
      settings: the analysis's own settings.
      layers: (model, tap) of every layer.
      infos: description of the tap of every layer.
      taps: the globs that the user gave, () for the default globs of the analysis.
      images: number of images of one repeat.
      repeats: number of draws of the images.
      classes: number of classes of the labels, None without labels.
      length: number of images of the source.
      draws: number of equal parts of few-shot images, 1 for other images.
      most_boxes: greatest number of objects of an image, 0 for a source without boxes.
      cue_classes: (cue, number of its classes) of a source with cues.
    """

    settings: Any
    layers: tuple[tuple[str, str], ...] = ()
    infos: tuple[TapInfo, ...] = ()
    taps: tuple[str, ...] = ()
    images: int = 0
    repeats: int = 1
    classes: int | None = None
    length: int = 0
    draws: int = 1
    most_boxes: int = 0
    cue_classes: tuple[tuple[str, int], ...] = ()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "settings":
            raise AttributeError(name)
        return getattr(self.settings, name)


@dataclasses.dataclass(frozen=True)
class View:
    """A group of images as one model sees it, with what the model computes from them.

    Attributes:
      image: the images as the model sees them, normalised.
      taps: the taps that the analysis reads, by name, in execution order.
      logits: the output of the model, [n, classes] wherever labels are compared with it.
      info: description of each of those taps.
      forward: (images, tap names, edit) -> (logits, those taps by name) for other images, or with
        edited taps (see `vitcnn.edits`), or to differentiate. What nobody reads is not computed.
      cache: results of `cached`, shared by all analyses of these images.
      boxes: top, left, bottom and right of the objects in parts of the image as the model sees it,
        filled up with NaN; None unless an analysis needs them.
    """

    image: Float[Array, "n height width 3"]
    taps: Mapping[str, Float[Array, "n ..."]]
    logits: Any
    info: Mapping[str, TapInfo]
    forward: Callable[..., tuple[Any, dict[str, Array]]]
    cache: dict[Any, Any] = dataclasses.field(default_factory=dict)
    boxes: Float[Array, "n objects 4"] | None = None

    def cached(self, key: Any, compute: Callable[[], Any]) -> Any:
        """Returns the result of `compute`, which is called only the first time that a key is used.

        Without the cache XLA would compile, and run, a loop once for each analysis that has it.
        """
        if key not in self.cache:
            self.cache[key] = compute()
        return self.cache[key]

    def gram(self, tap: str, tokens: str) -> gram.Gram:
        """Returns the linear Gram matrix of some tokens of a tap; see `gram.linear`."""
        info = self.info[tap]
        key = ("gram", tap, tap_layout.which(info, tokens))
        return self.cached(key, lambda: gram.linear(info.tokens(self.taps[tap], tokens)))

    def squared_distances(self, tap: str, tokens: str) -> Double:
        """Returns the squared distances of all pairs of images; see `distances.squared`."""
        info = self.info[tap]
        key = ("squared distances", tap, tap_layout.which(info, tokens))
        x, matrix = info.tokens(self.taps[tap], tokens), self.gram(tap, tokens)
        return self.cached(key, lambda: distances.squared(x, matrix))

    def u_centred_gram(self, tap: str, tokens: str) -> gram.Gram:
        """Returns the U-centred Gram matrix of some tokens of a tap; see `hsic.u_centred`."""
        return hsic.u_centred(self.gram(tap, tokens))


@dataclasses.dataclass(frozen=True)
class Group:
    """One group of images as every model of the analysis sees it.

    Attributes:
      label: class index of each image, -1 where it has none.
      index: position of each image in its source.
      models: name -> view, in the order in which the config lists them for the analysis.
      cues: name of a cue -> its class in each image; {} unless an analysis needs them.
    """

    label: Int[Array, " n"]
    index: Int[Array, " n"]
    models: Mapping[str, View]
    cues: Mapping[str, Int[Array, " n"]] = dataclasses.field(default_factory=dict)


def figure(heading: str, caption: str) -> Callable[[Callable], Callable]:
    """Returns a decorator that gives a drawing function its heading and caption in the report."""

    def attach(draw: Callable) -> Callable:
        draw.heading, draw.caption = heading, caption
        return draw

    return attach


def names() -> list[str]:
    """Returns the names of the analyses."""
    return lookup.names_in(sys.modules[__name__])


def find(name: str) -> ModuleType:
    """Imports an analysis.

    Args:
      name: a file of this folder, or a module outside of it, "my_package.my_analysis".

    Raises:
      ValueError: there is no such analysis; the message gives the nearest names.
    """
    return lookup.find("analysis", sys.modules[__name__], name)


def traits(analysis: ModuleType) -> Traits:
    """Returns what the engine has to know of an analysis."""
    return getattr(analysis, "TRAITS", Traits())


def settings(analysis: ModuleType, **values: Any) -> Any:
    """Returns the settings of an analysis, with defaults for the values that are left out.

    Raises:
      TypeError: the analysis has no setting of this name.
    """
    return getattr(analysis, "Settings", NoSettings)(**values)


def fields(name: str) -> dict[str, lookup.Field]:
    """Returns the fields of an analysis in a config: `Selection` and its own settings."""
    own = getattr(find(name), "Settings", NoSettings)
    return {**lookup.fields_of(Selection), **lookup.fields_of(own)}
