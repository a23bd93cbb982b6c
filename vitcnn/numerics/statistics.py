"""Statistics: standard errors, intervals and rank correlations, on the host in float64."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

Z = 1.96  # standard errors in half of a 95% interval


def jackknife(
    whole: Float[np.ndarray, "..."],
    left_out: Float[np.ndarray, "blocks ..."],
    sizes: Float[np.ndarray, " blocks"],
) -> Float[np.ndarray, "..."]:
    """Returns the delete-one-block jackknife standard error.

    Args:
      whole: the statistic on everything.
      left_out: the statistic without each block.
      sizes: the number of images of each block.

    Source: Busing, Meijer and van der Leeden, Delete-m Jackknife for Unequal m, 1999, eq. 9.
    """
    g = len(sizes)
    h = (sizes.sum() / sizes).reshape((g,) + (1,) * np.ndim(whole))
    pseudo = h * whole - (h - 1) * left_out
    centre = g * whole - ((1 - 1 / h) * left_out).sum(0)
    return np.sqrt(((pseudo - centre) ** 2 / (h - 1)).sum(0) / g)


def wilson(share: Float[np.ndarray, "..."], trials: float) -> Float[np.ndarray, "... 2"]:
    """Returns the ends of the 95% interval of a share of so many trials (Wilson 1927)."""
    square = Z * Z / trials
    centre = share + square / 2
    half = Z * np.sqrt(share * (1 - share) / trials + square / (4 * trials))
    return np.stack([centre - half, centre + half], axis=-1) / (1 + square)


def spearman(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> float:
    """Returns Spearman's correlation on the host, NaN without pairs or where one is all equal.

    Ties have their average rank.
    """
    ranked = []
    for values in (x, y):
        _, place, times = np.unique(values, return_inverse=True, return_counts=True)
        rank = (np.cumsum(times) - (times - 1) / 2)[place]
        ranked.append(rank - rank.mean() if rank.size else rank)
    x, y = ranked
    size = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / size) if size > 0 else float("nan")


def fisher_z(rho: Float[np.ndarray, " n"], pairs: int) -> Float[np.ndarray, " n"]:
    """Returns artanh of rank correlations, those of 1 and -1 moved inwards by half a step.

    A step is what exchanging two neighbours takes off a perfect rank correlation of so many pairs,
    12 / (pairs^3 - pairs); z is then finite.
    """
    most = 1 - 6 / max(pairs**3 - pairs, 12)
    return np.arctanh(np.clip(rho, -most, most))
