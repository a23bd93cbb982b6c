"""Skip ratio: how much of each layer comes by the skip connection (paper: Figs 7, E.1, E.2).

z goes through the skip, f(z) through the long branch (attention, MLP, or the convolutions of a
ResNet unit, z there after the projection). Per token or location: the ratio |z| / |f(z)|, the
cosine of z with z + f(z), and the cosine of z with f(z). All are means over images of the ratio
of an image; the paper does not say whether it averages ratios or norms, nor which cosine its
range of 0.6 to 1 shows (only that with the sum fits).
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
import xarray

TAPS = (
    "block*/in",
    "block*/attn",
    "block*/mid",
    "block*/mlp",
    "stage*/unit*/in",
    "stage*/unit*/norm*",
    "stage*/unit*/shortcut_*",
)
ONE_MODEL = True
IMAGES = 5000

STATISTICS = {
    "ratio": "|skip| / |branch|",
    "cosine_output": "cosine of skip and skip + branch",
    "cosine_branch": "cosine of skip and branch",
}


def measure(group, config, given):
    """Returns the sums over images of the three statistics at every token or location."""
    (view,) = group.models.values()
    sums = {"images": jnp.float32(len(view.image))}
    for name, info in view.info.items():
        if info.skip is None:
            continue
        z, f = (view.taps[tap].astype(jnp.float32) for tap in (info.skip, name))
        z, f = (a.reshape(len(a), -1, a.shape[-1]) for a in (z, f))
        norm_z, norm_f, norm_sum = (jnp.linalg.norm(a, axis=-1) for a in (z, f, z + f))
        sums[name] = {
            "ratio": jnp.sum(norm_z / norm_f, axis=0),
            "cosine_output": jnp.sum(jnp.sum(z * (z + f), -1) / (norm_z * norm_sum), axis=0),
            "cosine_branch": jnp.sum(jnp.sum(z * f, -1) / (norm_z * norm_f), axis=0),
        }
    return sums


def finalize(sums, config) -> xarray.Dataset:
    """Returns each statistic for the prefix tokens, for the image positions, and for every token.

    Variables, for each of ratio, cosine_output and cosine_branch:
      <name>_prefix [branch]: mean over prefix tokens (the class token), NaN without any.
      <name>_spatial [branch]: mean over image positions.
      <name>_token [branch, token]: every token; only if all branches have as many (a ViT).
    """
    infos = {info.name: info for info in config.infos if info.skip is not None}
    variables = {}
    for statistic, long_name in STATISTICS.items():
        rows = {name: sums[name][statistic] / sums["images"] for name in infos}
        prefix = [row[: infos[name].prefix_tokens] for name, row in rows.items()]
        spatial = [row[infos[name].prefix_tokens :] for name, row in rows.items()]
        attrs = {"long_name": long_name, "units": "1"}
        means = np.array([part.mean() if part.size else np.nan for part in prefix])
        variables[f"{statistic}_prefix"] = ("branch", means, attrs)
        variables[f"{statistic}_spatial"] = ("branch", np.array([p.mean() for p in spatial]), attrs)
        if len({row.size for row in rows.values()}) == 1:
            tokens = np.stack(list(rows.values()))
            variables[f"{statistic}_token"] = (("branch", "token"), tokens, attrs)
    roles = [info.role for info in infos.values()]
    return xarray.Dataset(variables, {"branch": list(infos), "role": ("branch", roles)})


def draw(results: Sequence[xarray.Dataset]):
    """Draws the ratio by depth, prefix tokens and image positions apart."""
    from vitcnn import figures

    panels = []
    for result in results:
        panels.append({})
        for role in dict.fromkeys(result.role.values.tolist()):
            rows = result.isel(branch=result.role.values == role)
            place = np.arange(rows.sizes["branch"])
            for part in ("spatial", "prefix"):
                value, error = rows[f"ratio_{part}"], rows[f"ratio_{part}_standard_error"]
                if np.isfinite(value).any():
                    branch = "unit" if role == "norm" else role  # the last norm of a ResNet unit
                    name = f"{branch}, {'class token' if part == 'prefix' else 'spatial'}"
                    panels[-1][name] = (place, value, error)
    return figures.curves(results, panels, "block or unit", "|skip| / |branch|")
