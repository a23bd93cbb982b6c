"""Lesion: what a trained network loses without a part (Raghu et al., figure 8, without retraining).

One part at a time is replaced inside the forward pass: by default by its mean over the images of
the group, so that it says nothing about an image any more but stays as large as it was. The parts
are, among the taps of the job,

- every branch that is added to a skip connection: attention, MLP, the branch of a ResNet unit;
- every skip connection, such as "block03/skip_attn": only the addition reads the mean, and the
  branch still reads its input;
- every single head of a tap of role "heads", such as "block*/heads", which is no default.

Taps of role "residual" are compared with those of the intact network, by unbiased linear CKA of all
tokens (`vitcnn.similarity.hsic`). Other taps that a glob matches play no part.

All lesions are one compiled forward pass, whose edits choose the part by its number. It runs once
for each lesion and group of images; their number is printed before anything else is done.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
import xarray
from jaxtyping import Bool, Float, Int

from vitcnn import tap_layout
from vitcnn.analyses import Config, Group, Traits, figure
from vitcnn.lookup import check_name
from vitcnn.numerics.arrays import Array
from vitcnn.results.datasets import variable
from vitcnn.similarity import gram, hsic
from vitcnn.taps import TapInfo

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TAPS = (
    "*block*/attn",
    "*block*/skip_attn",
    "*block*/mlp",
    "*block*/skip_mlp",
    "*block*/out",
    "stage*/unit*/conv*",
    "stage*/unit*/norm*",
    "stage*/unit*/gated",
    "stage*/unit*/skip",
    "stage*/unit*/out",
)
TRAITS = Traits(
    one_model=True,
    head=True,
    images=1000,
    least_group=hsic.MIN_GROUP,
)
REPLACEMENTS = ("mean", "zero", "other")


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings that a config can change.

    Attributes:
      replacement: what takes the place of a part: "mean", its mean over the images of the group;
        "zero"; or "other", its value for another image, the next one of the group.
      tokens: the tokens of the part that are replaced: "all", "class" or "spatial". Parts without
        such tokens are replaced whole.
      memory_gb: as many lesions run at once as have room for their taps in so much memory, since a
        small network may leave an accelerator idle with one. On a CPU one at a time is fastest.
    """

    replacement: str = "mean"
    tokens: str = "all"
    memory_gb: float = 2.0


@dataclasses.dataclass(frozen=True)
class Lesion:
    """One part that is replaced.

    Attributes:
      info: its tap.
      head: number of the head, None for the whole tap.
    """

    info: TapInfo
    head: int | None = None

    @property
    def name(self) -> str:
        """The tap; with a head "block03/heads:2"."""
        return self.info.name + ("" if self.head is None else f":{self.head}")

    @property
    def block(self) -> str:
        """The block or unit that the part belongs to, such as "stage1/unit01"."""
        return self.info.name.rpartition("/")[0]

    @property
    def part(self) -> str:
        """What the part is in its block: attn, skip_attn, mlp, skip_mlp, heads, branch or skip."""
        is_unit = self.info.skip is not None and self.info.role in ("conv", "norm", "gated")
        return "branch" if is_unit else self.info.name.rpartition("/")[2]


def lesions(config: Config) -> list[Lesion]:
    """Returns the lesions of a job, in execution order."""
    parts = []
    for info in config.infos:
        if info.role == "heads" and info.heads:
            parts += [Lesion(info, head) for head in range(info.heads)]
        elif info.is_skip or info.skip is not None:
            parts.append(Lesion(info))
    return parts


def layers(config: Config) -> list[TapInfo]:
    """Returns the taps that are compared with those of the intact network."""
    return [info for info in config.infos if info.role == "residual"]


def forwards(config: Config) -> int:
    """Returns how many forward passes of each image the lesions take."""
    return len(lesions(config))


def at_once(config: Config, images: int) -> int:
    """Returns how many lesions of a group of images run at once."""
    if jax.default_backend() == "cpu":
        return 1
    numbers = images * sum(math.prod(info.shape) for info in config.infos)
    return min(max(1, int(config.memory_gb * 1e9 / (4 * numbers))), forwards(config))


def measure(group: Group, config: Config, given: Mapping) -> dict:
    """Returns the sums over the images of one group, of the intact network and of every lesion.

    Raises:
      ValueError: no tap is a branch, a skip connection or heads; or a setting is unknown.
    """
    check_name("replacement", config.replacement, REPLACEMENTS)
    tap_layout.check_tokens(config.tokens, config.infos)
    parts, compared = lesions(config), layers(config)
    if not parts:
        raise ValueError(
            "none of the taps is a branch that is added to a skip connection, a skip connection, "
            "or of role heads: choose taps such as block*/attn and block*/skip_attn"
        )
    (view,) = group.models.values()
    names = [info.name for info in compared]
    intact = {name: view.u_centred_gram(name, "all") for name in names}
    order = {info.name: i for i, info in enumerate(config.infos)}
    later = jnp.array([[order[p.info.name] < order[name] for name in names] for p in parts])

    def lesioned(number):
        edit = {
            info.name: lambda x, info=info: _replace(x, info, parts, number, config)
            for info in {part.info.name: part.info for part in parts}.values()
        }
        logits, taps = view.forward(view.image, names, edit)
        sums = []
        for i, name in enumerate(names):
            # Layers before the lesion are what they were.
            after = jax.lax.cond(
                later[number, i],
                lambda x: hsic.u_centred(gram.linear(x)),
                lambda x, name=name: intact[name],
                taps[name],
            )
            sums.append(hsic.hsic_sums([intact[name], after]))
        return {
            "right": jnp.sum(_right(logits, group.label)),
            "kl": _divergence(view.logits, logits),
            "hsic": jax.tree.map(lambda *each: jnp.stack(each), *sums) if sums else {},
        }

    together = at_once(config, len(view.image))
    batch = {"batch_size": together} if together > 1 else {}
    return {
        "images": jnp.float32(len(view.image)),
        "labelled": jnp.sum(_labelled(view.logits, group.label)),
        "right": jnp.sum(_right(view.logits, group.label)),
        "lesions": jax.lax.map(lesioned, jnp.arange(len(parts)), **batch),
    }


def _replace(
    x: Float[Array, "n ..."],
    info: TapInfo,
    parts: Sequence[Lesion],
    number: Int[Array, ""],
    config: Config,
) -> Float[Array, "n ..."]:
    """Returns a tap in the lesion of this number: replaced if it is the part of the lesion."""
    hit = jnp.array([part.info.name == info.name for part in parts])[number]
    if info.role == "heads":
        heads = np.arange(info.heads)
        of_part = jnp.array([-1 if part.head is None else part.head for part in parts])
        hit = (hit & (heads == of_part[number]))[:, None]
    hit = hit & _tokens(x, info, config.tokens)
    if config.replacement == "mean":
        new = jnp.mean(x.astype(jnp.float32), axis=0, keepdims=True).astype(x.dtype)
    else:
        new = jnp.zeros_like(x) if config.replacement == "zero" else jnp.roll(x, -1, axis=0)
    return jnp.where(hit, new, x)


def _tokens(x: Float[Array, "n ..."], info: TapInfo, tokens: str) -> Bool[np.ndarray, "..."]:
    """Returns which tokens of a tap are replaced, to be broadcast with it."""
    which = tap_layout.which(info, tokens)
    if which == "all" or info.layout != "tokens":
        return np.array(True)
    token = np.arange(x.shape[1])
    chosen = token == 0 if which == "class" else token >= info.prefix_tokens
    return chosen.reshape(-1, *(1,) * (x.ndim - 2))


def _labelled(logits: Float[Array, "n classes"], label: Int[Array, " n"]) -> Bool[Array, " n"]:
    return (label >= 0) & (label < logits.shape[1])


def _right(logits: Float[Array, "n classes"], label: Int[Array, " n"]) -> Bool[Array, " n"]:
    """Returns which images have a label and are classified correctly; ties are wrong."""
    labelled = _labelled(logits, label)
    label = jnp.where(labelled, label, 0)[:, None]
    others = jnp.where(jnp.arange(logits.shape[1]) == label, -jnp.inf, logits)
    return labelled & (jnp.take_along_axis(logits, label, 1)[:, 0] > jnp.max(others, axis=1))


def _divergence(intact: Float[Array, "n c"], lesioned: Float[Array, "n c"]) -> Float[Array, ""]:
    """Returns the Kullback-Leibler divergence of the softmax, summed over images."""
    p, q = (jax.nn.log_softmax(x.astype(jnp.float32)) for x in (intact, lesioned))
    return jnp.sum(jnp.exp(p) * (p - q))


def finalize(sums: Mapping, config: Config) -> xarray.Dataset:
    """Returns what the network loses by every lesion.

    Variables:
      top1: top-1 accuracy of the intact network, NaN without labels; ties count against it.
      top1_loss [lesion]: by how much the lesion lowers it.
      kl [lesion]: Kullback-Leibler divergence of the probabilities with the lesion from those of
        the intact network, mean over images.
      cka [lesion, layer]: CKA of a layer with itself in the intact network; 1 before the lesion.
    Coordinates of a lesion: its part, such as "attn" or "skip_attn"; its block, such as "block03"
      or "stage1/unit01"; and the number of this block, from 0.
    """
    parts, compared = lesions(config), layers(config)
    after = sums["lesions"]
    labelled = sums["labelled"] if sums["labelled"] else np.nan
    matrix = np.full((len(parts), len(compared)), np.nan)
    for at in np.ndindex(matrix.shape):
        pair = jax.tree.map(lambda x, at=at: x[at], after["hsic"])
        matrix[at] = hsic.cka(pair)[0, 1]
    _warn(matrix, parts, compared)
    blocks = list(dict.fromkeys(part.block for part in parts))
    top1 = sums["right"] / labelled
    what = {"mean": "its mean", "zero": "zeros", "other": "another image's"}[config.replacement]
    title = f"part replaced by {what}{tap_layout.TOKENS[config.tokens]}"
    data = {
        "top1": variable((), top1, "top-1 accuracy of the intact network"),
        "top1_loss": variable(
            "lesion", top1 - after["right"] / labelled, f"loss of top-1 accuracy, {title}"
        ),
        "kl": variable(
            "lesion", after["kl"] / sums["images"], f"divergence of the output, {title}", "nat"
        ),
    }
    if compared:
        dims = ("lesion", "layer")
        data["cka"] = variable(dims, matrix, f"CKA with the intact network, {title}")
    coords = {
        "lesion": [part.name for part in parts],
        "part": ("lesion", [part.part for part in parts]),
        "block": ("lesion", [part.block for part in parts]),
        "number": ("lesion", [blocks.index(part.block) for part in parts]),
    }
    if compared:
        coords["layer"] = [info.name for info in compared]
    return xarray.Dataset(data, coords)


def _warn(
    matrix: Float[np.ndarray, "lesion layer"], parts: Sequence[Lesion], compared: Sequence[TapInfo]
) -> None:
    """Warns of the layers whose CKA is not defined."""
    dead = [f"{compared[j].name} without {parts[i].name}" for i, j in np.argwhere(np.isnan(matrix))]
    if dead:
        shown = ", ".join(dead[:5]) + (f" and {len(dead) - 5} more" if len(dead) > 5 else "")
        warnings.warn(f"do not vary over the images, so CKA is not defined: {shown}", stacklevel=3)


@figure(
    "Lesions",
    "What a trained network loses when one part is replaced by its mean over images, for every "
    "block: top-1 accuracy. A skip connection is replaced only where it is added to its branch.",
)
def draw(results: Sequence[xarray.Dataset]) -> Figure | None:
    """Draws the loss of accuracy by depth, one curve for each kind of part; None without labels."""
    results = [result for result in results if np.isfinite(result.top1)]
    return _curves(results, "top1_loss", "loss of top-1 accuracy") if results else None


@figure(
    "Lesions and the output",
    "The same for the output: Kullback-Leibler divergence of the class probabilities from those of "
    "the intact network.",
)
def draw_divergence(results: Sequence[xarray.Dataset]) -> Figure:
    """Draws the divergence of the output by depth, one curve for each kind of part."""
    return _curves(results, "kl", "divergence (nat)")


@figure(
    "Lesions and the last layer",
    "The same for the last residual stream: its CKA with that of the intact network. At 1 the "
    "layer is as it was.",
)
def draw_last_layer(results: Sequence[xarray.Dataset]) -> Figure | None:
    """Draws the CKA of the last layer with the intact one; None if no layer was compared."""
    results = [result.isel(layer=-1) for result in results if "cka" in result]
    return _curves(results, "cka", "CKA with the intact network") if results else None


def _curves(results: Sequence[xarray.Dataset], name: str, title: str) -> Figure:
    """Draws a variable by depth; blocks are counted from 0, the units of a ResNet from 1.

    Of single heads it draws the mean, without a band: their errors are not independent.
    """
    from vitcnn import figures

    panels, titles = [], []
    for result in results:
        units = any("/unit" in str(block) for block in result.block.values)
        panels.append({})
        for part in dict.fromkeys(result.part.values.tolist()):
            rows = result.isel(lesion=result.part.values == part)
            place = np.unique(rows.number.values)
            values, errors = [], []
            for number in place:
                here = rows.isel(lesion=rows.number.values == number)
                values.append(float(here[name].mean()))
                error = here[f"{name}_standard_error"]
                errors.append(float(error[0]) if error.size == 1 else np.nan)
            panels[-1][part] = (place + units, np.array(values), np.array(errors))
        titles.append("residual unit, from 1" if units else "block")
    return figures.curves(results, panels, titles, title)
