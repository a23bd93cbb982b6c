"""Localization: which input patch each token resembles (paper: Figs 9, 10, D.1-D.3).

The measurement is linear CKA of the token at every grid position with the raw input patch at every
grid position. A token is the vector of one position (paper: section 7; in a ResNet all channels at
one location); prefix tokens such as the class token are left out. A patch is the pixels of that
cell of the tap's own grid, as the model sees them, normalised. CKA is the unbiased minibatch
estimate of `vitcnn.similarity.hsic`; the paper does not name its estimator. The paper shows the
outputs of the last blocks; the default taps are the outputs of all blocks, which gives curves over
depth.

The early grids of a ResNet have many positions (56 x 56 in ResNet-50), and a map has one number for
every pair of positions. A grid with more than `max_positions` is therefore measured in square cells
of several positions, the smallest cells that bring it to `max_positions` or fewer. The token of a
cell is the concatenation of its positions, as its patch is the concatenation of their pixels:
nothing is averaged away. ResNet-50 at 224 px thus has 14 x 14 cells of 16 px in its first three
stages and 7 x 7 cells of 32 px in the last. `own_rate` depends on the number of positions (by
chance it is one over that number), so compare networks on one grid: with max_positions = 49 all
grids from 56 x 56 down are measured as 7 x 7.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray
from jaxtyping import Float

from vitcnn.analyses import Config, Group, Traits, figure
from vitcnn.numerics.arrays import Array
from vitcnn.numerics.exact import Scaled
from vitcnn.results.datasets import DEPTH_TITLE, relative_depth, variable
from vitcnn.similarity import hsic
from vitcnn.tap_layout import grid_name, patch_distances, split
from vitcnn.taps import TapInfo

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TAPS = ("*block*/out", "stage*/unit*/out")
TRAITS = Traits(
    one_model=True,
    images=10_240,  # as CKA
    least_group=hsic.MIN_GROUP,
)

SLICE = 2**25  # entries of the Gram matrices in memory at a time, 128 MiB
LISTED = 8  # positions that a warning lists
SUMMARIES = {  # variable of a layer -> (long name, units)
    "own_rate": ("tokens most similar to their own patch", "1"),
    "peak_distance": ("distance to the most similar patch", "px"),
    "own": ("CKA with the own patch", "1"),
    "contrast": ("highest minus mean CKA over patches", "1"),
    "own_contrast": ("CKA with the own patch minus mean over patches", "1"),
}
# The four tokens of the paper's 7 x 7 grids, (0, 0), (2, 1), (4, 2), (4, 4), in parts of the grid.
TOKENS = ((0, 0), (2 / 6, 1 / 6), (4 / 6, 2 / 6), (4 / 6, 4 / 6))


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings that a config can change.

    Attributes:
      max_positions: most positions of a grid; grids with more are measured in coarser cells.
    """

    max_positions: int = 256


def measure(group: Group, config: Config, given: Mapping) -> dict:
    """Returns the HSIC sums of every token with every patch, one tap after the other.

    Raises:
      ValueError: a tap has no positions, or its grid cannot be measured or does not divide the
        image.
    """
    ((model, view),) = group.models.items()
    image = view.image
    grids = {name: _cell_grid(info, config.max_positions) for name, info in view.info.items()}
    for name, (rows, columns) in grids.items():
        height, width = image.shape[1:3]
        if height % rows or width % columns:
            raise ValueError(
                f"{name} of {model} has {rows} x {columns} positions, which do not divide the "
                f"image, {height} x {width} px, into patches; change config.models.{model}."
                f"image_size, or choose other taps in config.analyses.<name>.taps"
            )
    sums = {"images": jnp.float32(len(image)), "patches": {}, "tokens": {}, "cross": {}}
    sums["size"] = jnp.float32(len(image)) * jnp.array(image.shape[1:3], jnp.float32)
    patches = {}
    for grid in dict.fromkeys(grids.values()):
        matrices, exponents, sums["patches"][grid_name(grid)] = _each(_gram, _cells(image, grid))
        patches[grid] = matrices, exponents

    def against(matrices, exponents, cell):
        matrix, exponent, own = _gram(cell)
        product = jnp.matmul(matrices, matrix, precision=jax.lax.Precision.HIGHEST)
        return Scaled(product, exponents + exponent), own

    for name, grid in grids.items():
        tokens = _cells(_features(view.taps[name], view.info[name]), grid)
        with_patches = jax.tree_util.Partial(against, *patches[grid])
        sums["cross"][name], sums["tokens"][name] = _each(with_patches, tokens)
    return sums


def _cell_grid(info: TapInfo, max_positions: int) -> tuple[int, int]:
    """Returns the (rows, columns) of cells in which a tap is measured.

    Raises:
      ValueError: the tap has no positions, or no number of cells fits `max_positions`.
    """
    if info.grid is None or info.layout == "attention":
        raise ValueError(
            f"{info.name} has no features at positions of the image; choose other taps in "
            "config.analyses.<name>.taps"
        )
    rows, columns = info.grid
    for k in range(1, math.gcd(rows, columns) + 1):
        cells = (rows // k) * (columns // k)
        if rows % k == columns % k == 0 and 2 <= cells <= max_positions:
            return rows // k, columns // k
    raise ValueError(
        f"{info.name} has a grid of {rows} x {columns} positions, which cannot be divided into 2 "
        f"to max_positions = {max_positions} square cells; raise config.analyses.<name>."
        "max_positions, or choose other taps"
    )


def _features(x: Float[Array, "n ..."], info: TapInfo) -> Float[Array, "n rows columns features"]:
    """Returns a tap with all its numbers at one position as one vector of features."""
    return info.positions(x).reshape(len(x), *info.grid, -1)


def _cells(
    x: Float[Array, "n height width c"], grid: tuple[int, int]
) -> Float[Array, "positions n features"]:
    """Returns the non-overlapping cells of a map, row by row."""
    return split(x, grid).transpose(1, 2, 0, 3, 4, 5).reshape(math.prod(grid), len(x), -1)


def _gram(cell: Float[Array, "n features"]):
    """Returns (flat U-centred Gram matrix, its exponent, its own sums) of one position."""
    gram = hsic.gram(cell)
    return gram.matrix.reshape(-1), gram.exponent, hsic.hsic_sums([gram])


def _each(function, cells: Float[Array, "positions n features"]):
    """Applies a function to every position, in slices that bound the memory of the Grams."""
    batch = max(1, SLICE // cells.shape[1] ** 2)
    if batch >= len(cells):
        return jax.vmap(function)(cells)
    return jax.lax.map(function, cells, batch_size=batch)


def finalize(sums: Mapping, config: Config) -> xarray.Dataset:
    """Returns the maps of every layer, and summaries of how well its tokens are localised.

    Variables, `<grid>` such as 14x14:
      cka_<grid> [layer_<grid>, token_row_<grid>, token_column_<grid>, patch_row_<grid>,
        patch_column_<grid>]: CKA of tokens and patches, for all layers of one grid; `cka_of` reads
        it by layer. NaN where a token or a patch does not vary over the images.
      own_rate [layer]: share of the tokens whose most similar patch is their own.
      own_rate_chance [layer]: own_rate by chance, one over the number of positions.
      peak_distance [layer]: distance from a token to its most similar patch, px, mean over tokens.
      own [layer]: CKA of a token with its own patch, mean over tokens.
      contrast [layer]: CKA of a token with its most similar patch minus its mean CKA over patches,
        mean over tokens. It is a difference because the mean CKA is near zero, and may be negative,
        where tokens are well localised: a ratio would say nothing.
      own_contrast [layer]: the same with the own patch in place of the most similar patch.
    Means are over tokens that vary and whose own patch varies. The variables that rest on the most
    similar patch jump where two patches are nearly as similar, and their jackknife errors are
    rough.
    Coordinates: `grid` [layer], the grid of each layer; `cell` [layer], the number of positions of
    the tap along a side of its cells.
    Attribute `class_token`: 1 if the model has a class token, else 0; claim 7 asks it.
    """
    infos = {info.name: info for info in config.infos}
    grids = {name: _cell_grid(info, config.max_positions) for name, info in infos.items()}
    size = sums["size"] / sums["images"]
    patch_norms = {}
    for grid in dict.fromkeys(grids.values()):
        label = grid_name(grid)
        patch_norms[grid] = _norms(sums["patches"][label], f"patches of the {label} grid", grid)
    maps, summaries = {}, {}
    for name, grid in grids.items():
        norms = _norms(sums["tokens"][name], f"tokens of {name}", grid)
        cka = sums["cross"][name] / norms[:, None] / patch_norms[grid][None, :]
        maps.setdefault(grid, {})[name] = cka
        summaries[name] = _summary(cka, patch_distances(grid, tuple(size)))
    variables = {}
    for grid, layers in maps.items():
        label = grid_name(grid)
        axes = ("layer", "token_row", "token_column", "patch_row", "patch_column")
        dims = [f"{axis}_{label}" for axis in axes]
        values = np.stack(list(layers.values())).reshape(-1, *grid, *grid)
        long_name = "unbiased linear CKA of token and patch"
        variables[f"cka_{label}"] = variable(dims, values, long_name)
    for key, (long_name, units) in SUMMARIES.items():
        values = np.array([summary[key] for summary in summaries.values()])
        variables[key] = variable("layer", values, long_name, units)
    chance = np.array([1 / math.prod(grid) for grid in grids.values()])
    variables["own_rate_chance"] = variable("layer", chance, "own_rate by chance", estimate=False)
    coords: dict[str, Any] = {f"layer_{grid_name(g)}": list(maps[g]) for g in maps}
    coords["layer"] = list(grids)
    coords["grid"] = ("layer", [grid_name(grid) for grid in grids.values()])
    coords["cell"] = ("layer", [infos[name].grid[0] // grid[0] for name, grid in grids.items()])
    has_class_token = any(info.class_token for info in config.infos)
    return xarray.Dataset(variables, coords, {"class_token": int(has_class_token)})


def _norms(own: hsic.HsicSums, what: str, grid: tuple[int, int]) -> Float[np.ndarray, " positions"]:
    """Returns the root of the HSIC of each position with itself, NaN for dead positions.

    Warns:
      UserWarning: there are dead positions; `what` says of what.
    """
    squares = own.hsic[:, 0, 0]
    total = hsic.HsicSums(
        np.diag(squares), own.energy[:, 0], own.square[:, 0], own.pairs[0], own.images[0]
    )
    live = hsic.alive(total)
    if not live.all():
        places = [f"({i // grid[1]}, {i % grid[1]})" for i in np.flatnonzero(~live)]
        more = f" and {len(places) - LISTED} more" if len(places) > LISTED else ""
        warnings.warn(
            f"{what} that do not vary over the images beyond rounding noise, or are not finite, "
            f"have a CKA of NaN: {', '.join(places[:LISTED])}{more}",
            stacklevel=3,
        )
    return np.sqrt(np.where(live, squares, np.nan))


def _summary(
    cka: Float[np.ndarray, "tokens patches"], distance: Float[np.ndarray, "tokens patches"]
) -> dict[str, float]:
    """Returns the `SUMMARIES` of the map of one layer; see `finalize`."""
    counted = np.isfinite(np.diagonal(cka))
    if not counted.any():
        return dict.fromkeys(SUMMARIES, np.nan)
    rows, patches = np.flatnonzero(counted), np.isfinite(cka).any(0)
    best = np.argmax(np.where(patches, cka[rows], -np.inf), axis=1)
    own, peak = cka[rows, rows], cka[rows, best]
    mean = cka[np.ix_(rows, patches)].mean(1)
    return {
        "own_rate": np.mean(best == rows),
        "peak_distance": np.mean(distance[rows, best]),
        "own": np.mean(own),
        "contrast": np.mean(peak - mean),
        "own_contrast": np.mean(own - mean),
    }


def cka_of(result: xarray.Dataset, layer: str, name: str = "cka") -> xarray.DataArray:
    """Returns the CKA of one layer, [token_row, token_column, patch_row, patch_column].

    Args:
      result: Result of this analysis.
      layer: name of the tap.
      name: "cka"; or "standard_error" for the standard error of the CKA.
    """
    grid = str(result.grid.sel(layer=layer).item())
    maps = result[f"cka_{grid}" + ("" if name == "cka" else f"_{name}")]
    cka = maps.sel({f"layer_{grid}": layer}, drop=True)
    return cka.rename({dim: str(dim).removesuffix(f"_{grid}") for dim in cka.dims})


@figure(
    "Which patch a token resembles",
    "CKA of the last layer's token at one position (framed) with the image patch at every "
    "position (paper: Figs 9, 10).",
)
def draw(results: Sequence[xarray.Dataset]) -> Figure:
    """Draws maps of a corner and of inner tokens of the last layer of each Result (Fig. 9)."""
    from vitcnn import figures

    panels, layers = [], []
    for result in results:
        layers.append(str(result.layer.values[-1]))
        cka = cka_of(result, layers[-1]).values
        rows, columns = cka.shape[:2]
        places = [(round(r * (rows - 1)), round(c * (columns - 1))) for r, c in TOKENS]
        panels.append(
            [figures.Map(f"token {place}", cka[place], place) for place in dict.fromkeys(places)]
        )
    remark = f"Token at the outlined position, of {', '.join(dict.fromkeys(layers))}."
    return figures.maps(results, panels, "CKA with each patch", remark=remark)


@figure(
    "Localization by depth",
    "Share of positions whose token is most similar to its own patch, and how far the "
    "greatest CKA stands out from the mean, by relative depth.",
)
def draw_curves(results: Sequence[xarray.Dataset]) -> Figure:
    """Draws the share of tokens that match their own patch best, and the contrast, by depth."""
    from vitcnn import figures

    labels = {"own_rate": "tokens that match their patch", "contrast": "highest minus mean CKA"}
    panels, chance = [], []
    for result in results:
        depth = relative_depth(result.sizes["layer"])
        panels.append(
            {
                label: (depth, result[key], result[f"{key}_standard_error"])
                for key, label in labels.items()
            }
        )
        chance.append(((depth, result.own_rate_chance.values), "match by chance"))
    scale = "share of tokens, or CKA"
    return figures.curves(results, panels, DEPTH_TITLE, scale, chance, share=True)
