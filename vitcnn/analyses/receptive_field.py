"""Effective receptive field: the pixels that a position depends on (paper: Figs 6, C.1-C.4).

The field is the absolute gradient of the central position of a feature map with respect to the
image, as the model sees it, averaged over channels and images (Luo et al. 2016, arXiv 1701.04128).
The paper leaves the following open. The absolute value is taken of every channel's gradient, so
that signs do not cancel, and is averaged over red, green and blue. The central cell of an even grid
is the cell below and to the right of the middle, (7, 7) of 14 x 14. A random 64 channels stand for
all channels, and are the same in layers of one width. Standard errors are over the images drawn,
not over the channels.

The taps are those after the residual additions, or (`residual` = "before") the branches that are
about to be added; taps that the config names are measured whichever they are. The disc of `radius`
is about the middle of the cell. In a ResNet with TensorFlow's padding the true middle of a position
is up to half a cell to the lower right of it.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
import xarray
from jaxtyping import Float

from vitcnn.analyses import Config, Group, Traits, View, figure
from vitcnn.lookup import check_name
from vitcnn.numerics.arrays import Array
from vitcnn.results.datasets import DEPTH_TITLE, relative_depth, variable
from vitcnn.tap_layout import cell, edges, geometry
from vitcnn.taps import TapInfo

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TAPS = (
    "*block*/attn",
    "*block*/mid",
    "*block*/mlp",
    "*block*/out",
    "stem/conv",
    "stage*/unit*/conv*",
    "stage*/unit*/norm*",
    "stage*/unit*/gated",
    "stage*/unit*/out",
)
TRAITS = Traits(
    one_model=True,
    images=32,  # as the paper
    blocks=1,  # the sums are large; `finalize` has the standard errors from sums of squares
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings that a config can change.

    Attributes:
      residual: "after" for the taps after a residual addition, "before" for the branches.
      position: (down, right) in the image, from 0 to 1; the cell there is taken.
      channels: number of channels drawn of each tap; 0 takes all.
      channel_seed: seed that draws the channels.
      method: "channels" for the absolute gradient of each channel; "sum" for the absolute gradient
        of the mean channel, an approximation in which signs cancel.
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


def measured(config: Config) -> list[TapInfo]:
    """Returns the taps that are measured.

    Raises:
      ValueError: no tap is on the side of the residual additions that `residual` names.
    """
    check_name("residual", config.residual, ("after", "before"))
    if config.taps:
        return list(config.infos)
    inner = ("attention", "token_mixing", "mlp", "conv", "norm", "gated")
    before = [info for info in config.infos if info.skip is not None]
    after = [i for i in config.infos if i.role not in inner or i.name.startswith("stem/")]
    if infos := before if config.residual == "before" else after:
        return infos
    raise ValueError(
        f"no tap is {config.residual} a residual addition; change the field residual, or name taps "
        "in the field taps"
    )


def measure(group: Group, config: Config, given: Mapping) -> dict:
    """Returns for every tap the sums over images of the fields, and of squares for the errors.

    Raises:
      ValueError: a setting is out of its range, a tap has no features at positions, or the
        activations have less than 32 bits.
    """
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


def _fields(view: View, info: TapInfo, config: Config) -> Float[Array, "n height width"]:
    """Returns the mean absolute gradient of a tap with respect to every image."""
    row, column = cell(info, config.position)

    def at_position(images):
        _, taps = view.forward(images, [info.name])
        return info.positions(taps[info.name])[:, row, column]

    def differentiate(images):
        # No image influences another, so the gradient of a sum over images holds the gradient of
        # each image.
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

        def add(total, channel):  # in sequence, since the gradients of all channels fill the memory
            return total + field(jnp.arange(size) == channel), None

        total, _ = jax.lax.scan(add, jnp.zeros(images.shape[:3], images.dtype), channels)
        return total / len(channels)

    n = len(view.image)
    parts = -(-n // config.batch)
    each = -(-n // parts)  # the last part is filled up with images that are not counted
    images = view.image[jnp.arange(parts * each) % n]
    fields = jax.lax.map(differentiate, images.reshape(parts, each, *images.shape[1:]))
    return fields.reshape(parts * each, *images.shape[1:3])[:n]


def _checked(name: str, view: View, config: Config) -> list[TapInfo]:
    """Returns the taps that are measured.

    Raises:
      ValueError: see `measure`.
    """
    check_name("method", config.method, ("channels", "sum"))
    if len(config.position) != 2 or not all(0 <= share < 1 for share in config.position):
        raise ValueError(
            f"position = {tuple(config.position)} is outside of the image; expected (down, right), "
            "each at least 0 and below 1, such as (0.5, 0.5), the middle"
        )
    if config.channels < 0:
        raise ValueError(f"channels = {config.channels}: expected 1 or more, or 0 for all channels")
    if config.batch < 1:
        raise ValueError(f"batch = {config.batch}: expected 1 image or more")
    if not 0 < config.mass < 1:
        raise ValueError(f"mass = {config.mass}: expected a share between 0 and 1, such as 0.5")
    infos = measured(config)
    for info in infos:
        axes = {"map": 3, "tokens": 2}.get(info.layout)
        if info.grid is None or info.heads is not None or len(info.shape) != axes:
            raise ValueError(
                f"{info.name} of {name} is {info.shape} with grid {info.grid}, expected [rows, "
                "columns, channels] or [tokens, channels] with a grid; leave it out of taps"
            )
        dtype = view.taps[info.name].dtype
        if jnp.finfo(dtype).bits < 32:
            raise ValueError(
                f"the activations of {name} are {dtype}, too coarse for gradients: load the model "
                "with dtype=jnp.float32, as in vitcnn.load(..., dtype=jnp.float32)"
            )
    return infos


def finalize(sums: Mapping, config: Config) -> xarray.Dataset:
    """Returns the field of every tap, and how far it reaches.

    Variables:
      field [tap, y, x]: mean |gradient|, per unit of the normalised image.
      radius [tap]: radius of the least disc about the middle of the cell that holds the share
        `mass` of the field, px. A pixel is in the disc if its middle is.
      outside [tap]: share of the field outside of the cell itself (a patch).
    Coordinates of a tap: depth, 0 for the first and 1 for the last; branch, whether it comes before
    a residual addition; row and column of the cell; rows and columns of its grid.

    The standard errors are those of a mean, of a quantile (the error of the share inside the radius
    over the share per px there) and of a ratio of means.

    Warns:
      UserWarning: a tap has no gradient to the image; its radius and outside are NaN.
    """
    infos = measured(config)
    rows = [_summary(sums[info.name], info, config, sums["images"]) for info in infos]
    # In the mean channel signs cancel, so the two methods need different names.
    scale = "mean |gradient|" if config.method == "channels" else "|gradient of mean channel|"
    variables = {}
    for key, dims, long_name, units in (
        ("field", ("tap", "y", "x"), scale, "1"),
        ("radius", ("tap",), f"radius of {config.mass:.0%} of the field", "px"),
        ("outside", ("tap",), "share of the field outside of its own cell", "1"),
    ):
        values, errors = (np.stack(column) for column in zip(*(r[key] for r in rows), strict=True))
        variables[key] = variable(dims, values, long_name, units)
        of_error = f"standard error of {long_name}"
        variables[f"{key}_standard_error"] = variable(dims, errors, of_error, units)
    cells = np.array([(*cell(info, config.position), *info.grid) for info in infos])
    coords = {
        "tap": [info.name for info in infos],
        "depth": ("tap", relative_depth(len(infos))),
        "branch": ("tap", [info.skip is not None for info in infos]),
        **{key: ("tap", cells[:, k]) for k, key in enumerate(("row", "column", "rows", "columns"))},
    }
    return xarray.Dataset(variables, coords)


def _summary(
    sums: Mapping, info: TapInfo, config: Config, images: float
) -> dict[str, tuple[np.ndarray | float, np.ndarray | float]]:
    """Returns (value, standard error) of each variable for one tap."""
    independent = images / config.repeats  # images of one repeat, on which the errors rest
    degrees = independent - 1 if independent > 1 else np.nan

    def error(variance):  # of a mean, from the variance over images
        return np.sqrt(np.maximum(variance, 0) / degrees)

    field = sums["field"] / images
    summary = {"field": (field, error(sums["field_squared"] / images - field**2))}
    total = field.sum()
    if not total > 0:
        warnings.warn(
            f"{info.name} has no receptive field: its |gradient| adds up to {total:g}",
            stacklevel=2,
        )
        return summary | {"radius": (np.nan, np.nan), "outside": (np.nan, np.nan)}
    distance, inside = geometry(info, config.position, field.shape)
    outside = (field * (1 - inside)).sum() / total
    # Sum over images of (outside_i - outside total_i)^2.
    residual = sums["outside_squared"] - 2 * outside * sums["outside_total"]
    residual += outside**2 * sums["total_squared"]
    summary["outside"] = (outside, error(residual / images) / total)
    order = np.argsort(distance, axis=None)
    shares = np.cumsum(field.reshape(-1)[order]) / total
    radius = distance.reshape(-1)[order][np.searchsorted(shares, config.mass)]
    ring = max(int(np.ceil(radius)), 1)
    excess, squared = sums["excess"] / images, sums["excess_squared"] / images
    below = excess[ring - 1] if ring > 1 else -config.mass * total
    spread = error(squared[ring] - excess[ring] ** 2) / (excess[ring] - below)
    return summary | {"radius": (radius, spread)}


@figure(
    "Receptive fields",
    "Mean |gradient| of the feature at the middle of the map with respect to the image "
    "(paper: Fig. 6). The frame is the feature's own cell; each map has its own colour "
    "scale.",
)
def draw(results: Sequence[xarray.Dataset], everything: bool = False) -> Figure:
    """Draws the fields, each from 0 to its own maximum.

    Args:
      results: Results of any models.
      everything: whether to draw all taps (paper: Figs C.1-C.3), rather than five of a kind
        (Figs 6, C.4).
    """
    from vitcnn import figures

    panels = []
    for result in results:
        titles = figures.tap_titles(result).values()
        rows = [row for taps in titles for row in _pick(taps, everything)]
        rows = sorted(rows) if everything else rows
        fields = result.field.values
        panels.append([figures.Map(name, fields[i], _own(result.isel(tap=i))) for i, name in rows])
    branches = {bool(branch) for result in results for branch in result.branch.values}
    remarks = {
        (False,): "After residual additions.",
        (True,): "Branches, before residual additions.",
    }
    scale, remark = results[0].field.attrs["long_name"], remarks.get(tuple(branches), "")
    return figures.maps(results, panels, scale, False, (0, None), remark)


def _own(row: xarray.Dataset) -> tuple[float, float, float, float]:
    """Returns the cell of one tap as row, column, height and width in px."""
    height, width = row.field.shape
    top, bottom = edges(int(row.row), int(row.rows), height)
    left, right = edges(int(row.column), int(row.columns), width)
    return top, left, bottom - top, right - left


@figure(
    "Size of receptive fields",
    "Radius of the disc that holds the share of the mean |gradient| that the axis names "
    "(the field mass of the analysis), by relative depth.",
)
def draw_radius(results: Sequence[xarray.Dataset]) -> Figure:
    """Draws the radius against relative depth, one curve for each kind of tap."""
    from vitcnn import figures

    panels = []
    for result in results:
        panels.append({})
        for kind, taps in figures.tap_titles(result).items():
            rows = result.isel(tap=[i for i, _ in taps])
            panels[-1][kind] = (rows.depth, rows.radius, rows.radius_standard_error)
    title = f"{results[0].radius.attrs['long_name']} (px)"
    return figures.curves(results, panels, DEPTH_TITLE, title)


def _pick(taps: list[tuple[int, str]], everything: bool) -> list[tuple[int, str]]:
    """Returns all the taps, or five of them evenly spaced from the first to the last."""
    if everything or len(taps) <= 5:
        return taps
    return [taps[round(i)] for i in np.linspace(0, len(taps) - 1, 5)]
