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
