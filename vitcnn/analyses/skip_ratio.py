"""Skip ratio: how much of each layer comes through the skip connection (paper: Figs 7, E.1, E.2).

Let z be what goes through the skip (in a ResNet unit, after the projection) and f(z) what goes
through the long branch (attention, MLP, or the convolutions of a ResNet unit). The statistics, for
each token or location, are the ratio |z| / |f(z)|, the cosine of z with z + f(z), and the cosine of
z with f(z). Each is the mean over images of the statistic of one image. The paper does not say
whether it averages ratios or norms, nor which cosine its range of 0.6 to 1 shows (only the cosine
with the sum fits). The statistics are not defined where a vector is zero, so such an image is left
out of the means of that token, and a warning says so.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np
import xarray
from jaxtyping import Bool, Float

from vitcnn.analyses import Config, Group, Traits, figure
from vitcnn.numerics.arrays import Array
from vitcnn.results.datasets import variable
from vitcnn.taps import TapInfo

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TAPS = (
    "*block*/in",
    "*block*/attn",
    "*block*/mid",
    "*block*/mlp",
    "stage*/unit*/in",
    "stage*/unit*/conv*",
    "stage*/unit*/norm*",
    "stage*/unit*/gated",
    "stage*/unit*/shortcut_*",
)
TRAITS = Traits(
    one_model=True,
    images=5000,
)

RATIO = "|skip| / |branch|"
STATISTICS = {
    "ratio": RATIO,
    "cosine_output": "cosine of skip and skip + branch",
    "cosine_branch": "cosine of skip and branch",
}


def measure(group: Group, config: Config, given: Mapping) -> dict:
    """Returns, for every token, the sums over images of the three statistics and their counts.

    Images with a vector of norm 0 are left out of the sums and of the counts.
    """
    (view,) = group.models.values()
    sums = {"images": jnp.float32(len(view.image))}
    for name, info in view.info.items():
        if info.skip is None:
            continue
        z, f = (view.taps[tap].astype(jnp.float32) for tap in (info.skip, name))
        z, f = (a.reshape(len(a), -1, a.shape[-1]) for a in (z, f))
        norm_z, norm_f, norm_sum = (jnp.linalg.norm(a, axis=-1) for a in (z, f, z + f))
        both = (norm_z != 0) & (norm_f != 0)  # NaN is kept, so that it shows in the Result
        sums[name] = {
            "ratio": _sum(norm_z / norm_f, both),
            "cosine_output": _sum(
                jnp.sum(z * (z + f), -1) / (norm_z * norm_sum), both & (norm_sum != 0)
            ),
            "cosine_branch": _sum(jnp.sum(z * f, -1) / (norm_z * norm_f), both),
        }
    return sums


def _sum(values: Float[Array, "n token"], defined: Bool[Array, "n token"]) -> dict[str, Array]:
    """Returns, for every token, the sum over images of the defined values, and their number."""
    total = jnp.sum(jnp.where(defined, values, 0), axis=0)
    return {"total": total, "count": jnp.sum(defined, axis=0)}


def finalize(sums: Mapping, config: Config) -> xarray.Dataset:
    """Returns each statistic for the class token, for the image positions, and for every token.

    Variables, for each of ratio, cosine_output and cosine_branch:
      <name>_class [branch]: statistic of the class token, NaN without one.
      <name>_spatial [branch]: mean over images and image positions. Other prefix tokens (registers,
        a distillation token) are in neither <name>_class nor <name>_spatial.
      <name>_token [branch, token]: statistic of every token; only if all branches have the same
        number of tokens (a ViT).
    And a number:
      phases: see the function of this name.
    All are NaN where no image is left.
    Attribute `prefix_tokens`: number of tokens before the image positions.

    Warns:
      UserWarning: a skip, a branch or their sum was zero; with the share that was left out.
    """
    infos = {info.name: info for info in config.infos if info.skip is not None}
    variables, attributes = {}, {}
    for statistic, long_name in STATISTICS.items():
        rows = {name: _mean(**sums[name][statistic]) for name in infos}
        spatial = {name: _spatial(sums[name][statistic], infos[name]) for name in infos}
        of_class = {name: rows[name][0] if infos[name].class_token else np.nan for name in infos}
        for part, values in (("class", of_class), ("spatial", spatial)):
            array = np.array(list(values.values()))
            variables[f"{statistic}_{part}"] = variable("branch", array, long_name)
        if len({row.size for row in rows.values()}) == 1:
            tokens = np.stack(list(rows.values()))
            variables[f"{statistic}_token"] = variable(("branch", "token"), tokens, long_name)
            attributes["prefix_tokens"] = next(iter(infos.values())).prefix_tokens
    _warn(sums, infos)
    ratios = [variables[f"ratio_{part}"][1] for part in ("class", "spatial")]
    variables["phases"] = variable(
        (), phases(*ratios), "class token skips first, image positions later"
    )
    roles = [info.role for info in infos.values()]
    return xarray.Dataset(variables, {"branch": list(infos), "role": ("branch", roles)}, attributes)


def _spatial(sums: Mapping, info: TapInfo) -> np.ndarray:
    """Returns the mean of a statistic over images and image positions."""
    total, count = (sums[key][info.prefix_tokens :].sum() for key in ("total", "count"))
    return _mean(total, count)


def _mean(
    total: Float[np.ndarray, "..."], count: Float[np.ndarray, "..."]
) -> Float[np.ndarray, "..."]:
    """Returns total / count, NaN where the count is 0."""
    return total / np.where(count > 0, count, np.nan)


def _warn(sums: Mapping, infos: Mapping[str, TapInfo]) -> None:
    """Warns of the branches of which some statistic leaves images out, with the share left out."""
    left = {}
    for name in infos:
        counts = [sums[name][statistic]["count"] for statistic in STATISTICS]
        if least := 1 - min(map(np.mean, counts)) / sums["images"]:
            left[name] = least
    if left:
        shares = ", ".join(f"{name} ({share:.2g})" for name, share in left.items())
        warnings.warn(
            "a skip, a branch or their sum is zero, so this share of images and tokens is "
            f"left out: {shares}",
            stacklevel=3,
        )


def phases(
    class_token: Float[np.ndarray, " branch"], spatial: Float[np.ndarray, " branch"]
) -> float:
    """Returns how far the class token and the positions change places half-way (Figs 7, E.1).

    Take log2 of the ratio of the class token over the ratio of the positions. The result is the
    lesser of its mean over the first half of the branches and minus its mean over the second half.
    It is above 0 only if the class token goes through the skip in the first half and through the
    branch in the second. NaN without a class token.
    """
    share = np.log2(class_token / spatial)
    half = len(share) // 2
    return float(min(share[:half].mean(), -share[-half:].mean())) if half else float("nan")


@figure(
    "Skip ratio",
    "Norm of the skip connection over the norm of the branch that is added to it "
    "(paper: Fig. 7 right). Above 1 the skip carries more. Units of a ResNet have their "
    "projected shortcut.",
)
def draw(results: Sequence[xarray.Dataset]) -> Figure:
    """Draws the ratio by depth, with separate curves for class token and image positions."""
    return _by_depth(results, "ratio", RATIO)


@figure(
    "Cosine of the skip connection with the sum",
    "Cosine of the skip connection and the sum of skip connection and branch, by depth (paper: "
    "Fig. E.2). At 1 the branch changes nothing but the length.",
)
def draw_cosine(results: Sequence[xarray.Dataset]) -> Figure:
    """Draws the cosine by depth, with separate curves for class token and image positions."""
    return _by_depth(results, "cosine_output", STATISTICS["cosine_output"])


def _by_depth(results: Sequence[xarray.Dataset], statistic: str, title: str) -> Figure:
    """Draws a statistic by depth.

    Blocks of a ViT are numbered as in the names of taps, from 0; residual units of a ResNet are
    counted through all its stages, from 1.
    """
    from vitcnn import figures

    panels = []
    for result in results:
        panels.append({})
        for role in dict.fromkeys(result.role.values.tolist()):
            rows = result.isel(branch=result.role.values == role)
            place = np.arange(rows.sizes["branch"]) + _units(result)
            for part in ("spatial", "class"):
                name = f"{statistic}_{part}"
                value, error = rows[name], rows[f"{name}_standard_error"]
                if np.isfinite(value).any():
                    # The branch of a ResNet unit ends in its last norm, convolution or gate.
                    branch = "unit" if role in ("norm", "conv", "gated") else role
                    curve = f"{branch}, {'class token' if part == 'class' else 'spatial'}"
                    panels[-1][curve] = (place, value, error)
    return figures.curves(results, panels, [_depth(result) for result in results], title)


@figure(
    "Skip ratio of every token",
    "The same for every token in every block (paper: Figs 7 left, E.1), the class token and "
    "any other prefix tokens on top.",
)
def draw_tokens(results: Sequence[xarray.Dataset]) -> Figure | None:
    """Draws the ratio of every token in every block of ViTs (paper: Figs 7 left, E.1).

    Returns None if no Result has the same tokens in all its branches.
    """
    from vitcnn import figures

    results = [result for result in results if "ratio_token" in result]
    if not results:
        return None
    panels = []
    for result in results:
        rows = {role: result.role.values == role for role in dict.fromkeys(result.role.values)}
        panels.append({str(r): result.ratio_token.values[at].T for r, at in rows.items()})
    prefix = [int(result.attrs["prefix_tokens"]) for result in results]
    return figures.tokens(results, panels, prefix, [_depth(r) for r in results], RATIO)


def _depth(result: xarray.Dataset) -> str:
    """Returns the axis title for the depth of a Result: it counts blocks or residual units."""
    return "residual unit, from 1" if _units(result) else "block"


def _units(result: xarray.Dataset) -> bool:
    """Returns whether the branches are residual units of a ResNet, counted from 1."""
    return any(str(name).startswith("stage") for name in result.branch.values)
