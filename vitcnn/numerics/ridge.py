"""Ridge regression and its R^2 on other tokens, computed from sums of products alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

NOISE = (8 * np.finfo(np.float32).eps) ** 2  # share of E|x|^2 below which a variance is rounding


class Moments:
    """Sums over the tokens of a fold; the moments of several folds together are their sum.

    Args:
      products: sum of (x, 1) (x, y, 1)', features x and targets y.
      squares: sums of the squares of y.
    """

    def __init__(
        self,
        products: Float[np.ndarray, "rows columns"],
        squares: Float[np.ndarray, " y"],
    ):
        self.products, self.squares = products, squares
        self.width = len(products) - 1

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.products + other.products, self.squares + other.squares)

    @property
    def numbers(self) -> int:
        """Length of y."""
        return len(self.squares)

    @property
    def count(self) -> float:
        """Number of tokens."""
        return self.products[-1, -1]

    @property
    def means(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean x and mean y."""
        mean = self.products[-1, :-1] / self.count
        return mean[: self.width], mean[self.width :]

    def about(self, x: np.ndarray, y: np.ndarray):
        """Returns the sums of xx', xy' and y^2 after x and y are subtracted from the data.

        Args:
          x: what to subtract from the features.
          y: what to subtract from the targets.
        """
        d, n = self.width, self.count
        mean_x, mean_y = self.means
        products = self.products[:d, :-1] - n * np.outer(mean_x, np.append(mean_x, mean_y))
        squares = self.squares - n * mean_y**2
        off_x, off_y = mean_x - x, mean_y - y
        products += n * np.outer(off_x, np.append(off_x, off_y))
        return products[:, :d], products[:, d:], squares + n * off_y**2

    def alive(self) -> bool:
        """Whether the features are finite and vary by more than rounding."""
        if not np.isfinite(self.products).all():
            return False
        whole = np.trace(self.products[:, : self.width])
        return bool(np.trace(self.about(*self.means)[0]) > NOISE * whole)


def held_out(
    folds: Sequence[Moments],
    turn: Sequence[int],
    parts: Mapping[str, slice],
    penalties: Sequence[float],
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (R^2 on the first fold of `turn`, penalty chosen on the second) for every target.

    Args:
      folds: the moments of each fold.
      turn: numbers of three or more folds: one to test on, one to choose the penalty on, and the
        others to fit.
      parts: target -> its columns of y.
      penalties: the penalties to choose from, in units of the mean eigenvalue.
    """
    test, choice, *rest = (folds[f] for f in turn)
    fit = sum(rest[1:], rest[0])
    scores = r_squared(fit, choice, parts, penalties)
    best = np.argmax(np.nan_to_num(scores, nan=-np.inf), axis=0)
    final = r_squared(fit + choice, test, parts, penalties)[best, np.arange(len(parts))]
    # A target that does not vary has no R^2, whatever the penalty.
    return final, np.where(np.isnan(final), np.nan, np.asarray(penalties, np.float64)[best])


def over_folds(
    folds: Sequence[Moments], parts: Mapping[str, slice], penalties: Sequence[float]
) -> tuple[Float[np.ndarray, "targets folds"], Float[np.ndarray, "targets folds"]]:
    """Returns R^2 on each fold held out in turn, and the penalty chosen for it.

    The penalty for fold f is chosen on the next fold after a fit on the others, and the fit is then
    repeated on all folds but f. NaN for folds without tokens, if fewer than three
    folds have any, and where features or targets do not vary.

    Args:
      folds: the moments of each fold.
      parts: target -> its columns of y.
      penalties: the penalties to choose from, in units of the mean eigenvalue.
    """
    scores, chosen = np.full((2, len(parts), len(folds)), np.nan)
    filled = [f for f, fold in enumerate(folds) if fold.count > 0]
    if len(filled) >= 3 and sum(folds[1:], folds[0]).alive():
        for k, f in enumerate(filled):
            order = filled[k:] + filled[:k]
            scores[:, f], chosen[:, f] = held_out(folds, order, parts, penalties)
    return scores, chosen


def fold_error(scores: Float[np.ndarray, "... fold"]) -> Float[np.ndarray, "..."]:
    """Returns the standard error of the mean over the folds that have a score.

    It is the standard deviation over folds divided by the square root of their number, which is
    rough, because folds share training images; NaN with fewer than two.
    """
    there = np.isfinite(scores)
    n = there.sum(-1)
    mean = fold_mean(scores)
    squares = np.where(there, (scores - mean[..., None]) ** 2, 0).sum(-1)
    return np.sqrt(squares / np.where(n > 1, n - 1, np.nan) / np.maximum(n, 1))


def fold_mean(scores: Float[np.ndarray, "... fold"]) -> Float[np.ndarray, "..."]:
    """Returns the mean over the folds that have a score, NaN without any."""
    there = np.isfinite(scores)
    n = there.sum(-1)
    return np.where(there, scores, 0).sum(-1) / np.where(n > 0, n, np.nan)


def r_squared(
    fit: Moments, test: Moments, parts: Mapping[str, slice], penalties: Sequence[float]
) -> Float[np.ndarray, "penalties targets"]:
    """Returns R^2 on `test` of the ridge regressions fitted on `fit`, for every penalty and target.

    With xx' = V diag(e) V' of the fit and B = V' xy', the map of penalty k is V B / (e + k mean e).
    The error of a target depends on B only through B B', so each further penalty costs little.
    """
    xx, xy, _ = fit.about(*fit.means)
    e, v = np.linalg.eigh(xx)
    test_xx, test_xy, test_squares = test.about(*fit.means)  # the map is about the fit's means
    _, _, own_squares = test.about(*test.means)
    a = v.T @ test_xx @ v
    b, c = v.T @ xy, v.T @ test_xy
    scores = np.full((len(penalties), len(parts)), np.nan)
    for j, part in enumerate(parts.values()):
        total = own_squares[part].sum()
        if total <= NOISE * test.squares[part].sum():
            continue
        errors = (b[:, part] @ b[:, part].T) * a
        gain = np.sum(b[:, part] * c[:, part], axis=1)
        for i, penalty in enumerate(penalties):
            w = 1 / (e + penalty * e.mean())
            sse = test_squares[part].sum() - 2 * w @ gain + w @ errors @ w
            scores[i, j] = 1 - sse / total
    return scores
