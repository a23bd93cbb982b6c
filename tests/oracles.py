"""Oracles in NumPy float64, written from the formulas and from nothing else."""

import numpy as np


def song(K, L):
    """Unbiased HSIC of Song et al. 2012, eq. 5, straight from the formula."""
    n = len(K)
    K = K - np.diag(np.diag(K))
    L = L - np.diag(np.diag(L))
    one = np.ones(n)
    first = np.trace(K @ L)
    second = (one @ K @ one) * (one @ L @ one) / ((n - 1) * (n - 2))
    third = 2 / (n - 2) * (one @ K @ L @ one)
    return (first + second - third) / (n * (n - 3))


def minibatch_cka(x, y, group=None):
    """Minibatch CKA: HSIC summed over groups with weight n (n - 3), then the ratio."""
    group = len(x) if group is None else group
    sums = np.zeros(3)
    for start in range(0, len(x), group):
        grams = []
        for a in (x, y):
            a = np.asarray(a[start : start + group]).astype(np.float64)
            a = a.reshape(len(a), -1)
            a = a - a.mean(0)  # in float64 only so that the formula's own cancellation is harmless
            grams.append(a @ a.T)
        n = len(grams[0])
        if n < 4:
            continue
        K, L = grams
        sums += n * (n - 3) * np.array([song(K, L), song(K, K), song(L, L)])
    return sums[0] / np.sqrt(sums[1] * sums[2])


# Measures of similarity of two layers, from the formula on features, not on Gram matrices. Features
# are float64; they may be as they are stored or centred.
K = 3  # components of CCA
NEIGHBOURS = 7
CCA = ("svcca", "pwcca", "cca")


def flat(x):
    x = np.asarray(x).astype(np.float64).reshape(len(x), -1)
    return x - x.mean(0)


def lengths(x):
    """Distances of all pairs of images, straight from the features."""
    return np.stack([np.sqrt(((x - image) ** 2).sum(1)) for image in x])


def pairs(x):
    return lengths(x)[np.triu_indices(len(x), 1)]


def canonical(x, y):
    """Canonical correlations by SVD; the canonical variates of x; its components."""
    (u, scale, _), (v, _, _) = (np.linalg.svd(flat(a), full_matrices=False) for a in (x, y))
    left, rho, _ = np.linalg.svd(u[:, :K].T @ v[:, :K])
    return rho, u[:, :K] @ left, u[:, :K] * scale[:K]


def pwcca(x, y):
    rho, variates, components = canonical(x, y)
    weights = np.abs(variates.T @ components).sum(1)
    return weights @ rho / weights.sum()


def procrustes(x, y):
    x, y = flat(x), flat(y)
    return np.linalg.svd(x.T @ y, compute_uv=False).sum() / np.linalg.norm(x) / np.linalg.norm(y)


def ranked(values):
    less = (values[None] < values[:, None]).sum(1)
    equal = (values[None] == values[:, None]).sum(1)
    return less + (equal + 1) / 2


def neighbours(x, y):
    """Of images that are equally near, the earlier counts as the nearer."""

    def sets(a):
        d = lengths(a)
        np.fill_diagonal(d, np.inf)
        return [set(row) for row in np.argsort(d, axis=1, kind="stable")[:, :NEIGHBOURS]]

    both = zip(sets(x), sets(y), strict=True)
    return np.mean([len(a & b) / NEIGHBOURS for a, b in both])


def cknna(x, y):
    """CKA over the pairs whose second image is among the nearest of the first in both layers."""

    def near(a):
        d = lengths(a)
        np.fill_diagonal(d, np.inf)
        order = np.argsort(d, axis=1, kind="stable")[:, :NEIGHBOURS]
        mask = np.zeros(d.shape, bool)
        for row, chosen in zip(mask, order, strict=True):
            row[chosen] = True
        return mask

    k, h, a, b = linear(x), linear(y), near(x), near(y)
    return (k * h)[a & b].sum() / np.sqrt((k * k)[a].sum() * (h * h)[b].sum())


def rbf_kernel(x, bandwidth=1.0):
    """Less 1, which no centred quantity sees, to keep the digits of wide kernels."""
    return np.expm1(-(lengths(x) ** 2) / (2 * (bandwidth * np.median(pairs(x))) ** 2))


def narrow_kernel(x, bandwidth):
    """The kernel as it is, to keep the digits of narrow ones."""
    return np.exp(-(lengths(x) ** 2) / (2 * (bandwidth * np.median(pairs(x))) ** 2))


def rbf(x, y, bandwidth=1.0):
    kernel = rbf_kernel if bandwidth >= 1 else narrow_kernel
    return ratio(kernel(x, bandwidth), kernel(y, bandwidth))


def ratio(a, b):
    return song(a, b) / np.sqrt(song(a, a) * song(b, b))


def linear(x):
    return flat(x) @ flat(x).T


def cka_biased(x, y):
    a, b = linear(x), linear(y)
    return (a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b)


SIMILARITY = {
    "cka": lambda x, y: ratio(linear(x), linear(y)),
    "cka_biased": cka_biased,
    "cka_rbf": rbf,
    "procrustes": procrustes,
    "svcca": lambda x, y: canonical(x, y)[0].mean(),
    "pwcca": pwcca,
    "cca": lambda x, y: (canonical(x, y)[0] ** 2).mean(),
    "rsa_pearson": lambda x, y: np.corrcoef(pairs(x), pairs(y))[0, 1],
    "rsa_spearman": lambda x, y: np.corrcoef(ranked(pairs(x)), ranked(pairs(y)))[0, 1],
    "neighbours": neighbours,
    "cknna": cknna,
}


def fold_of(index, folds):
    """The finaliser of MurmurHash3, in Python's own integers."""
    h, mask = int(index), 2**32 - 1
    h = ((h ^ h >> 16) * 0x85EBCA6B) & mask
    h = ((h ^ h >> 13) * 0xC2B2AE35) & mask
    return (h ^ h >> 16) % folds


def ridge(x, y, penalty):
    """Returns the prediction of new features by ridge regression with an intercept."""
    mean_x, mean_y = x.mean(0), y.mean(0)
    x, y = x - mean_x, y - mean_y
    gram = x.T @ x
    shrink = penalty * np.trace(gram) / len(gram) * np.eye(len(gram))
    w = np.linalg.solve(gram + shrink, x.T @ y)
    return lambda new: (new - mean_x) @ w + mean_y


def r_squared(y, guess):
    return 1 - ((y - guess) ** 2).sum() / ((y - y.mean(0)) ** 2).sum()


def cross_validation(x, y, fold, folds, penalties):
    """R^2 of each fold. x [images, positions, channels], y [images, positions, numbers]."""
    rows = lambda a, of: a[np.isin(fold, of)].reshape(-1, a.shape[-1])  # noqa: E731
    scores = []
    for test in range(folds):
        choice = (test + 1) % folds
        fit = [f for f in range(folds) if f not in (test, choice)]
        tried = [
            r_squared(rows(y, choice), ridge(rows(x, fit), rows(y, fit), p)(rows(x, choice)))
            for p in penalties
        ]
        best = penalties[int(np.argmax(tried))]
        fit = [*fit, choice]
        model = ridge(rows(x, fit), rows(y, fit), best)
        scores.append((r_squared(rows(y, test), model(rows(x, test))), best))
    return np.array(scores).T
