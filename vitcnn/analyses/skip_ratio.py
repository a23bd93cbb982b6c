"""Skip ratio: how much of each layer comes by the skip connection (paper: Figs 7, E.1, E.2).

z goes through the skip, f(z) through the long branch (attention, MLP, or the convolutions of a
ResNet unit, z there after the projection). Per token or location: the ratio |z| / |f(z)|, the
cosine of z with z + f(z), and the cosine of z with f(z). All are means over images of the ratio
of an image; the paper does not say whether it averages ratios or norms, nor which cosine its
range of 0.6 to 1 shows (only that with the sum fits). Where a vector is zero nothing of this is
defined, so that image is left out of the means of that token, and a warning says so.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
import xarray
from jaxtyping import Array, Bool, Float

from vitcnn.analyses import Traits, figure

TAPS = (
    "*block*/in",
    "*block*/attn",
    "*block*/mid",
    "*block*/mlp",
    "stage*/unit*/in",
    "stage*/unit*/conv*",
    "stage*/unit*/norm*",
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


def measure(group, config, given):
    """Returns the sums over images of the three statistics at every token, and of how many images.

    Those with a vector of norm 0 are left out.
    """
    (view,) = group.models.values()
    sums = {"images": jnp.float32(len(view.image))}
    for name, info in view.info.items():
        if info.skip is None:
            continue
        z, f = (view.taps[tap].astype(jnp.float32) for tap in (info.skip, name))
        z, f = (a.reshape(len(a), -1, a.shape[-1]) for a in (z, f))
        norm_z, norm_f, norm_sum = (jnp.linalg.norm(a, axis=-1) for a in (z, f, z + f))
        both = (norm_z != 0) & (norm_f != 0)  # NaN is not left out: it has to show
        sums[name] = {
            "ratio": _sum(norm_z / norm_f, both),
            "cosine_output": _sum(
                jnp.sum(z * (z + f), -1) / (norm_z * norm_sum), both & (norm_sum != 0)
            ),
            "cosine_branch": _sum(jnp.sum(z * f, -1) / (norm_z * norm_f), both),
        }
    return sums


def _sum(values: Float[Array, "n token"], known: Bool[Array, "n token"]) -> dict[str, Array]:
    """Returns, for every token, the sum over images of what is known, and the number of these."""
    total = jnp.sum(jnp.where(known, values, 0), axis=0)
    return {"total": total, "count": jnp.sum(known, axis=0)}


def finalize(sums, config) -> xarray.Dataset:
    """Returns each statistic for the class token, for the image positions, and for every token.

    Variables, for each of ratio, cosine_output and cosine_branch:
      <name>_class [branch]: of the class token, NaN without one.
      <name>_spatial [branch]: mean over images and image positions; other prefix tokens (registers,
        a distillation token) are in neither.
      <name>_token [branch, token]: every token; only if all branches have as many (a ViT).
    And phases, a number: see the function of this name. NaN where no image is left.
    Attribute `prefix_tokens`: how many of the tokens come before the image positions.

    Warns:
      UserWarning: a skip, a branch or their sum was zero; with the share that was left out.
    """
    infos = {info.name: info for info in config.infos if info.skip is not None}
    variables, attributes = {}, {}
    for statistic, long_name in STATISTICS.items():
        rows, spatial = {}, []
        for name, info in infos.items():
            total, count = sums[name][statistic]["total"], sums[name][statistic]["count"]
            rows[name] = _mean(total, count)
            places = slice(info.prefix_tokens, None)
            spatial.append(_mean(total[places].sum(), count[places].sum()))
        attrs = {"long_name": long_name, "units": "1"}
        first = [row[0] if infos[name].class_token else np.nan for name, row in rows.items()]
        variables[f"{statistic}_class"] = ("branch", np.array(first), attrs)
        variables[f"{statistic}_spatial"] = ("branch", np.array(spatial), attrs)
        if len({row.size for row in rows.values()}) == 1:
            tokens = np.stack(list(rows.values()))
            variables[f"{statistic}_token"] = (("branch", "token"), tokens, attrs)
            attributes["prefix_tokens"] = next(iter(infos.values())).prefix_tokens
    _warn(sums, infos)
    roles = [info.role for info in infos.values()]
    apart = [variables[f"ratio_{part}"][1] for part in ("class", "spatial")]
    said = {"long_name": "class token skips first, image positions later", "units": "1"}
    variables["phases"] = ((), phases(*apart), said)
    return xarray.Dataset(variables, {"branch": list(infos), "role": ("branch", roles)}, attributes)


def _mean(total, count) -> np.ndarray:
    return total / np.where(count > 0, count, np.nan)


def _warn(sums, infos) -> None:
    """Says of which branches, and what share, was left out of some statistic."""
    left = {}
    for name in infos:
        counts = [sums[name][statistic]["count"] for statistic in STATISTICS]
        if least := 1 - min(map(np.mean, counts)) / sums["images"]:
            left[name] = least
    if left:
        said = ", ".join(f"{name} ({share:.2g})" for name, share in left.items())
        warnings.warn(
            "a skip, a branch or their sum is zero, so that this share of images and tokens is "
            f"left out: {said}",
            stacklevel=3,
        )


def phases(
    class_token: Float[np.ndarray, " branch"], spatial: Float[np.ndarray, " branch"]
) -> float:
    """Returns how far the class token and the positions change places half-way (Figs 7, E.1).

    With log2 of the ratio of the class token over that of the positions, it is the lesser of its
    mean over the first half of the branches and of minus its mean over the second half: above 0
    only if the class token goes by the skip first and by the branch later. NaN without class token.
    """
    share = np.log2(class_token / spatial)
    half = len(share) // 2
    return float(min(share[:half].mean(), -share[-half:].mean())) if half else float("nan")


@figure(
    "Skip ratio",
    "Norm of what comes by the skip connection over the norm of what the branch adds "
    "(paper: Fig. 7 right). Above 1 the skip carries more. Units of a ResNet have their "
    "projected shortcut.",
)
def draw(results: Sequence[xarray.Dataset]):
    """Draws the ratio by depth, class token and image positions apart.

    Blocks of a ViT are numbered as in the names of taps, from 0; residual units of a ResNet are
    counted through all its stages, from 1.
    """
    from vitcnn import figures

    panels, titles = [], []
    for result in results:
        panels.append({})
        for role in dict.fromkeys(result.role.values.tolist()):
            rows = result.isel(branch=result.role.values == role)
            place = np.arange(rows.sizes["branch"]) + _units(result)
            for part in ("spatial", "class"):
                value, error = rows[f"ratio_{part}"], rows[f"ratio_{part}_standard_error"]
                if np.isfinite(value).any():
                    branch = (
                        "unit" if role in ("norm", "conv") else role
                    )  # the last of a ResNet unit
                    name = f"{branch}, {'class token' if part == 'class' else 'spatial'}"
                    panels[-1][name] = (place, value, error)
        titles.append(_depth(result))
    return figures.curves(results, panels, titles, RATIO)


@figure(
    "Skip ratio of every token",
    "The same for every token in every block (paper: Figs 7 left, E.1), the class token and "
    "any other prefix tokens on top.",
)
def draw_tokens(results: Sequence[xarray.Dataset]):
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
    """Returns what the branches of a Result are counted by."""
    return "residual unit, from 1" if _units(result) else "block"


def _units(result: xarray.Dataset) -> bool:
    return any(str(name).startswith("stage") for name in result.branch.values)
