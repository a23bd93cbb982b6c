"""Analyses: one measurement a file; adding a file is registering it.

An analysis is

    TAPS = ("block*/out", "stage*/unit*/out")       # default globs; the config field taps overrides
    def measure(group, config, given): ...          # on device, pure: one group of images -> sums
    def finalize(sums, config): ...                 # on host, float64: a total -> xarray.Dataset
    def draw(results): ...                          # a sequence of Results -> matplotlib figure

and, where they differ from the default, the constants of `DEFAULTS` below. `measure` sees one
group of real images (`Group`) and knows nothing of devices, padding, error bars or other groups.
Further figures are functions whose names begin with `draw_`; one that has nothing to show returns
None.

The `config` that it gets has the fields of `vitcnn.plan.JOB` and its own `FIELDS`, and beside them
`layers` ((model, tap), ...), `infos` (their TapInfo), `classes` of the labels (None without),
`length`, the number of images of the source, and `draws`, the number of equal parts that few-shot
images fall into (1 for any others). `given` has, by name of the stage (`config.stages`),
the arrays of the Result that the job of the same name had there. What does not fit is a ValueError
of `measure`, which is traced before anything runs; it names the field to change.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from jaxtyping import Array, Float, Int

from vitcnn import lookup, tap_layout
from vitcnn.similarity import gram, hsic
from vitcnn.taps import TapInfo

DEFAULTS: Mapping[str, Any] = {
    "IMAGES": 10_240,  # images that the analysis takes, if the data has as many
    "FIELDS": {},  # further config fields of the analysis, with their defaults
    "ONE_MODEL": False,  # whether it runs once per model, rather than on all of them at once
    "LABELS": False,  # whether it needs labels
    "HEAD": False,  # whether it holds the model's own logits against the labels
    "GIVEN": (),  # its config fields that name a stage in which a job of its name comes before
    "MIN_GROUP": 1,  # smaller groups of images are left out, with a warning
    "CAPTIONS": {},  # name of a drawing function -> (heading, caption) in the report
    "BLOCKS": 64,  # 1 for huge sums, which then have no standard errors
}


@dataclasses.dataclass(frozen=True)
class View:
    """What one model makes of a group of images.

    Attributes:
      image: the images as the model sees them, normalised.
      taps: the taps that the analysis asked for, by name, in execution order.
      logits: the output of the model.
      info: what is known of each of those taps.
      forward: (images, tap name) -> that tap for other images, to differentiate; layers behind it
        are not run.
      made: what `once` has made so far, shared by all analyses of these images.
    """

    image: Float[Array, "n height width 3"]
    taps: Mapping[str, Float[Array, "n ..."]]
    logits: Float[Array, "n classes"]
    info: Mapping[str, TapInfo]
    forward: Callable[[Array, str], Array]
    made: dict[Any, Any] = dataclasses.field(default_factory=dict)

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """Returns what `make` makes, which is called for the first analysis that asks only.

        XLA would compile, and run, a loop once for each analysis that has it.
        """
        if key not in self.made:
            self.made[key] = make()
        return self.made[key]

    def gram(self, tap: str, tokens: str) -> gram.Gram:
        """Returns the linear Gram matrix of the asked tokens of a tap; see `gram.linear`."""
        info = self.info[tap]
        key = ("gram", tap, tap_layout.cut(info, tokens))
        return self.once(key, lambda: gram.linear(tap_layout.take(self.taps[tap], info, tokens)))

    def u_centred_gram(
        self, tap: str, tokens: str, kernel: str = "linear", bandwidth: float = 1.0
    ) -> gram.Gram:
        """Returns the U-centred Gram matrix of the asked tokens of a tap; see `hsic.u_centred`."""
        gram.check_kernel(kernel, bandwidth)
        made = self.gram(tap, tokens)
        return hsic.u_centred(made if kernel == "linear" else gram.rbf(made, bandwidth))


@dataclasses.dataclass(frozen=True)
class Group:
    """One group of images as every model of the analysis sees it.

    Attributes:
      label: class index of each image, -1 where it has none.
      index: position of each image in its source.
      models: name -> view, in the order in which the config lists them for the analysis.
    """

    label: Int[Array, " n"]
    index: Int[Array, " n"]
    models: Mapping[str, View]


def find(name: str) -> ModuleType:
    """Imports the analysis of this name; a ValueError lists the nearest ones."""
    return lookup.find("analysis", sys.modules[__name__], name)


def constant(analysis: ModuleType, name: str) -> Any:
    """Returns a constant of an analysis, or its default."""
    return getattr(analysis, name, DEFAULTS[name])
