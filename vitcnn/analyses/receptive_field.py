"""Effective receptive field: the pixels that a position depends on (paper: Figs 6, C.1-C.4).

It is the absolute gradient of the central position of a feature map with respect to the image, as
the model sees it, averaged over channels and images (Luo et al. 2016, arXiv 1701.04128). Where the
paper is silent: the absolute value is taken of every channel's gradient, so that signs do not
cancel, and averaged over red, green and blue; the central cell of an even grid is the one below
and to the right of the middle, (7, 7) of 14 x 14; a random 64 channels stand for all of them, and
are the same in layers of one width. Standard errors are of the images drawn, not of the channels.

The taps are those after the residual additions, or (`residual` = "before") the branches that are
about to be added; named in the config, taps are measured whatever they are. The disc of `radius` is
about the middle of the cell. In a ResNet with TensorFlow's padding the true middle of a position is
up to half a cell to the lower right of it.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import xarray
from jaxtyping import Array, Float

from vitcnn.analyses import Traits, figure
from vitcnn.lookup import check_name
from vitcnn.tap_layout import cell, edges, geometry
from vitcnn.taps import TapInfo

TAPS = (
    "*block*/attn",
    "*block*/mid",
    "*block*/mlp",
    "*block*/out",
    "stem/conv",
    "stage*/unit*/conv*",
    "stage*/unit*/norm*",
    "stage*/unit*/out",
)
TRAITS = Traits(
    one_model=True,
    images=32,  # as the paper
    blocks=1,  # the sums are large; `finalize` has the standard errors from sums of squares
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a config sets.

    Attributes:
      residual: "after" for the taps after a residual addition, "before" for the branches.
      position: (down, right) in the image, from 0 to 1; the cell there is taken.
      channels: number of channels drawn of each tap; 0 takes all.
      channel_seed: draws the channels.
      method: "channels" for the absolute gradient of each channel; "sum" for that of their
        mean, an approximation in which signs cancel.
      mass: share of the field that the disc of `radius` holds.
      batch: images differentiated at a time, which bounds memory.
    """

    residual: str = "after"
    position: tuple[float, ...] = (0.5, 0.5)
    channels: int = 64
    channel_seed: int = 0
    method: str = "channels"
    mass: float = 0.5
    batch: int = 8


def chosen(config) -> list[TapInfo]:
    """Returns the taps that are measured.

    Raises:
      ValueError: there are none.
    """
    check_name("residual", config.residual, ("after", "before"))
    if config.taps:
        return list(config.infos)
    parts = ("attention", "token_mixing", "mlp", "conv", "norm")
    before = [info for info in config.infos if info.skip is not None]
    after = [i for i in config.infos if i.role not in parts or i.name.startswith("stem/")]
    if kept := before if config.residual == "before" else after:
        return kept
    raise ValueError(f"no tap is {config.residual} a residual addition; change residual or taps")


def measure(group, config, given):
    """Returns for every tap the sums over images of their fields, and of squares for the errors."""
    ((name, view),) = group.models.items()
    n, size = len(view.image), view.image.shape[1:3]
    sums = {"images": jnp.float32(n)}
    for info in _checked(name, view, config):
        fields = _fields(view, info, config)
        distance, inside = geometry(info, config.position, size)
        total = jnp.sum(fields, axis=(1, 2))
        outside = jnp.einsum("nyx,yx->n", fields, jnp.asarray(1 - inside, jnp.float32))
        rings = np.ceil(distance).astype(np.int32).reshape(-1)  # of 1 px
        held = jax.ops.segment_sum(fields.reshape(n, -1).T, rings, rings.max() + 1)
        excess = jnp.cumsum(held, axis=0) - config.mass * total
        sums[info.name] = {
            "field": jnp.sum(fields, axis=0),
            "field_squared": jnp.sum(fields**2, axis=0),
            "outside_squared": jnp.sum(outside**2),
            "outside_total": jnp.sum(outside * total),
            "total_squared": jnp.sum(total**2),
            "excess": jnp.sum(excess, axis=1),
            "excess_squared": jnp.sum(excess**2, axis=1),
        }
    return sums


def _fields(view, info, config) -> Float[Array, "n height width"]:
    """Returns the mean absolute gradient of every image."""
    row, column = cell(info, config.position)

    def at_position(images):
        return info.positions(view.forward(images, info.name))[:, row, column]

    def differentiate(images):
        # No image touches another, so the gradient of a sum over images has that of each.
        value, pull = jax.vjp(at_position, images)
        size = value.shape[1]

        def field(cotangent):
            (gradient,) = pull(jnp.broadcast_to(cotangent, value.shape).astype(value.dtype))
            return jnp.mean(jnp.abs(gradient), axis=-1)

        if config.method == "sum":
            return field(1 / size)
        channels = np.arange(size)
        if 0 < config.channels < size:
            rng = np.random.default_rng(config.channel_seed)
            channels = rng.choice(size, config.channels, replace=False)

        def add(total, channel):  # one at a time: all the gradients at once are too many to keep
            return total + field(jnp.arange(size) == channel), None

        total, _ = jax.lax.scan(add, jnp.zeros(images.shape[:3], images.dtype), channels)
        return total / len(channels)

    n = len(view.image)
    parts = -(-n // config.batch)
    each = -(-n // parts)  # the last part is filled up with images that are not counted
    images = view.image[jnp.arange(parts * each) % n]
    fields = jax.lax.map(differentiate, images.reshape(parts, each, *images.shape[1:]))
    return fields.reshape(parts * each, *images.shape[1:3])[:n]


def _checked(name, view, config) -> list[TapInfo]:
    """Returns the taps that are measured; raises ValueError for what cannot be."""
    check_name("method", config.method, ("channels", "sum"))
    if len(config.position) != 2 or not all(0 <= share < 1 for share in config.position):
        raise ValueError(
            f"position = {tuple(config.position)} is outside of the image; expected (down, right), "
            "each at least 0 and below 1, such as (0.5, 0.5), the middle"
        )
    if config.channels < 0 or config.batch < 1:
        raise ValueError(f"channels = {config.channels} or batch = {config.batch} is too small")
    if not 0 < config.mass < 1:
        raise ValueError(f"mass = {config.mass} must be between 0 and 1")
    infos = chosen(config)
    for info in infos:
        axes = {"map": 3, "tokens": 2}.get(info.layout)
        if info.grid is None or info.heads is not None or len(info.shape) != axes:
            raise ValueError(
                f"{info.name} of {name} is {info.shape} with grid {info.grid}, expected [rows, "
                "columns, channels] or [tokens, channels] with a grid; leave it out of taps"
            )
        kind = view.taps[info.name].dtype
        if jnp.finfo(kind).bits < 32:
            said = f'too coarse for gradients: set config.models.{name}.dtype = "float32"'
            raise ValueError(f"the activations of {name} are {kind}, {said}")
    return infos


def finalize(sums, config) -> xarray.Dataset:
    """Returns the field of every tap, and how far it reaches.

    Variables:
      field [tap, y, x]: mean |gradient|, per unit of the normalised image.
      radius [tap]: of the least disc about the middle of the cell that holds the share `mass` of
        the field, a pixel being where its middle is, px.
      outside [tap]: share of the field outside of the cell itself (a patch).
    Coordinates of a tap: depth, 0 for the first and 1 for the last; branch, whether it comes before
    a residual addition; row and column of the cell; rows and columns of its grid.

    Standard errors are those of a mean, of a quantile (the error of the share inside the radius
    over the share per px there) and of a ratio of means.

    Warns:
      UserWarning: a tap has no gradient to the image; its radius and outside are NaN.
    """
    infos = chosen(config)
    rows = [_summary(sums[info.name], info, config, sums["images"]) for info in infos]
    # The second is an approximation: signs cancel between channels.
    name = "mean |gradient|" if config.method == "channels" else "|gradient of mean channel|"
    attrs = {
        "field": {"long_name": name, "units": "1"},
        "radius": {"long_name": f"radius of {config.mass:.0%} of the field", "units": "px"},
        "outside": {"long_name": "share of the field outside of its own cell", "units": "1"},
    }
    variables = {}
    for key in attrs:
        dims = ("tap", "y", "x") if key == "field" else ("tap",)
        variables[key] = (dims, np.stack([row[key][0] for row in rows]), attrs[key])
        error = np.stack([row[key][1] for row in rows])
        said = attrs[key] | {"long_name": f"standard error of {attrs[key]['long_name']}"}
        variables[f"{key}_standard_error"] = (dims, error, said)
    at = np.array([(*cell(info, config.position), *info.grid) for info in infos])
    coords = {
        "tap": [info.name for info in infos],
        "depth": ("tap", np.linspace(0, 1, len(infos))),
        "branch": ("tap", [info.skip is not None for info in infos]),
        **{key: ("tap", at[:, k]) for k, key in enumerate(("row", "column", "rows", "columns"))},
    }
    return xarray.Dataset(variables, coords)


def _summary(s, info, config, images):
    """Returns (value, standard error) of each variable for one tap."""
    alone = images / config.repeats  # images of one repeat, on which the errors rest
    degrees = alone - 1 if alone > 1 else np.nan

    def error(variance):  # of single images
        return np.sqrt(np.maximum(variance, 0) / degrees)

    field = s["field"] / images
    found = {"field": (field, error(s["field_squared"] / images - field**2))}
    total = field.sum()
    if not total > 0:
        said = f"{info.name} has no receptive field: its |gradient| adds up to {total:g}"
        warnings.warn(said, stacklevel=2)
        return found | {"radius": (np.nan, np.nan), "outside": (np.nan, np.nan)}
    distance, inside = geometry(info, config.position, field.shape)
    outside = (field * (1 - inside)).sum() / total
    left = s["outside_squared"] - 2 * outside * s["outside_total"]
    left += outside**2 * s["total_squared"]  # sum over images of (outside_i - outside total_i)^2
    found["outside"] = (outside, error(left / images) / total)
    order = np.argsort(distance, axis=None)
    shares = np.cumsum(field.reshape(-1)[order]) / total
    radius = distance.reshape(-1)[order][np.searchsorted(shares, config.mass)]
    ring = max(int(np.ceil(radius)), 1)
    excess, squared = s["excess"] / images, s["excess_squared"] / images
    below = excess[ring - 1] if ring > 1 else -config.mass * total
    spread = error(squared[ring] - excess[ring] ** 2) / (excess[ring] - below)
    return found | {"radius": (radius, spread)}


@figure(
    "Receptive fields",
    "Mean |gradient| of the feature at the middle of the map with respect to the image "
    "(paper: Fig. 6). The frame is the feature's own cell; each map has its own colour "
    "scale.",
)
def draw(results: Sequence[xarray.Dataset], everything: bool = False):
    """Draws the fields, each from 0 to its own maximum.

    Args:
      results: of any models.
      everything: whether to draw all taps (paper: Figs C.1-C.3), not five of a kind (Figs 6, C.4).
    """
    from vitcnn import figures

    panels = []
    for result in results:
        rows = [
            one for taps in figures.tap_titles(result).values() for one in _pick(taps, everything)
        ]
        rows = sorted(rows) if everything else rows
        fields = result.field.values
        panels.append([figures.Map(name, fields[i], _own(result.isel(tap=i))) for i, name in rows])
    branch = {bool(b) for result in results for b in result.branch.values}
    said = {(False,): "After residual additions.", (True,): "Branches, before residual additions."}
    scale, remark = results[0].field.attrs["long_name"], said.get(tuple(branch), "")
    return figures.maps(results, panels, scale, False, (0, None), remark)


def _own(one: xarray.Dataset) -> tuple[float, float, float, float]:
    """Returns the cell of one tap as row, column, height and width in px."""
    height, width = one.field.shape
    top, bottom = edges(int(one.row), int(one.rows), height)
    left, right = edges(int(one.column), int(one.columns), width)
    return top, left, bottom - top, right - left


@figure(
    "Size of receptive fields",
    "Radius of the disc that holds the share of the mean |gradient| that the axis names "
    "(the field mass of the analysis), by relative depth.",
)
def draw_radius(results: Sequence[xarray.Dataset]):
    """Draws the radius against relative depth, one curve for each kind of tap."""
    from vitcnn import figures

    panels = []
    for result in results:
        panels.append({})
        for kind, taps in figures.tap_titles(result).items():
            rows = result.isel(tap=[i for i, _ in taps])
            panels[-1][kind] = (rows.depth, rows.radius, rows.radius_standard_error)
    title = f"{results[0].radius.attrs['long_name']} (px)"
    return figures.curves(results, panels, "relative depth (first layer 0, last 1)", title)


def _pick(taps, everything):
    """Returns all of some taps, or five of them evenly spaced from the first to the last."""
    if everything or len(taps) <= 5:
        return taps
    return [taps[round(i)] for i in np.linspace(0, len(taps) - 1, 5)]
