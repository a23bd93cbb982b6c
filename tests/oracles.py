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
}
