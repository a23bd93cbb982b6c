"""Standard errors, intervals and rank correlations, on the host in float64."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

Z = 1.96  # standard errors in half of a 95% interval


def jackknife(
    whole: Float[np.ndarray, "..."] | np.floating,
    left_out: Float[np.ndarray, "blocks ..."],
    sizes: Float[np.ndarray, " blocks"],
) -> Float[np.ndarray, "..."] | np.floating:
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


def over_seeds(values: Float[np.ndarray, "... seed"]) -> dict[str, np.ndarray]:
    """Returns what few independent values say of their mean, by Student's t (Gosset 1908).

    Args:
      values: one value for each seed, on the last axis; NaN where a seed has none.

    Returns:
      "mean"; "deviation" and "standard_error" of the mean, of the sample with n - 1 in the
      denominator; and "half_width" of its 95% interval, the quantile 0.975 of t with n - 1 degrees
      of freedom times the standard error. They are NaN without a value, and all but the mean with
      fewer than two.
    """
    from scipy.stats import t as student  # which takes a second to import

    values = np.asarray(values, np.float64)
    there = np.isfinite(values)
    n = there.sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(there, values, 0).sum(-1) / np.where(n, n, np.nan)
        squares = np.where(there, (values - mean[..., None]) ** 2, 0).sum(-1)
        deviation = np.sqrt(squares / np.where(n > 1, n - 1, np.nan))
        error = deviation / np.sqrt(n)
    quantile = student.ppf(0.975, np.maximum(n - 1, 1))
    numbers = {
        "mean": mean,
        "deviation": deviation,
        "standard_error": error,
        "half_width": quantile * error,
    }
    return {name: np.asarray(values) for name, values in numbers.items()}


def p_value(value: float, error: float, degrees: float) -> float:
    """Returns the two-sided p-value of an estimate against zero, NaN without a standard error.

    Args:
      value: the estimate.
      error: its standard error.
      degrees: degrees of freedom of Student's t.
    """
    from scipy.stats import t as student  # which takes a second to import

    if not (np.isfinite(value) and error > 0 and degrees > 0):
        return float("nan")
    return float(2 * student.sf(abs(value) / error, degrees))


def holm(p: Float[np.ndarray, " n"], family: int) -> Float[np.ndarray, " n"]:
    """Returns p-values corrected for several questions (Holm 1979), NaN where p is NaN.

    A question is answered at the level of 5% if its corrected p-value is at most 0.05: the chance
    that any of the family is answered wrongly is then at most 5%, however they depend on others.

    Args:
      p: p-values of the questions that have one.
      family: number of all questions, at least that of the p-values.
    """
    p = np.asarray(p, np.float64)
    order = np.argsort(p)[: np.isfinite(p).sum()]  # NaN comes last
    scaled = p[order] * (family - np.arange(len(order)))
    corrected = np.full(p.shape, np.nan)
    corrected[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    return corrected


def wilson(
    share: Float[np.ndarray, "..."], trials: float | np.ndarray
) -> Float[np.ndarray, "... 2"]:
    """Returns the ends of the 95% interval of a share (Wilson 1927).

    Args:
      share: successes over trials.
      trials: number of trials.
    """
    square = Z * Z / trials
    centre = share + square / 2
    half = Z * np.sqrt(share * (1 - share) / trials + square / (4 * trials))
    return np.stack([centre - half, centre + half], axis=-1) / (1 + square)


def spearman(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> float:
    """Returns Spearman's rank correlation; ties share their mean rank.

    It is NaN without pairs, or if all values of x or of y are equal.
    """
    from scipy.stats import rankdata  # which takes a second to import

    if not len(x):
        return float("nan")
    x, y = (ranks - ranks.mean() for ranks in map(rankdata, (x, y)))
    size = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / size) if size > 0 else float("nan")


def fisher_z(rho: Float[np.ndarray, " n"], pairs: int) -> Float[np.ndarray, " n"]:
    """Returns artanh of rank correlations, finite because 1 and -1 move inwards by half a step.

    Exchanging two neighbours lowers a perfect rank correlation by one step, 12 / (pairs^3 - pairs).

    Args:
      rho: rank correlations.
      pairs: number of pairs that each is computed from.
    """
    most = 1 - 6 / max(pairs**3 - pairs, 12)
    return np.arctanh(np.clip(rho, -most, most))
