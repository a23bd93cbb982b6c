"""Centred kernel alignment (CKA): the cosine of two centred Gram matrices.

CKA(X, Y) = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)), summed over groups of images before the ratio
is taken (`vitcnn.similarity.hsic`). Three kinds differ in the kernel and in how it is centred:

    cka         K = X X', unbiased HSIC   (Nguyen, Raghu and Kornblith 2021, arXiv 2010.15327)
    cka_biased  K = X X', biased HSIC     (Kornblith et al. 2019, arXiv 1905.00414)
    cka_rbf     Gaussian kernel, unbiased HSIC

Unbiased CKA has mean 0 for independent representations, and single values can be slightly negative.
Biased CKA of independent representations is above 0, the more so the fewer the images.
"""

from __future__ import annotations

from collections.abc import Mapping

from vitcnn.similarity import gram, hsic
from vitcnn.similarity.measure import HsicRatio, Options


def check_bandwidth(options: Options, images: int, sizes: Mapping[str, int]) -> Options:
    """Returns the options; raises ValueError unless `bandwidth` is above 0."""
    gram.check_kernel("rbf", options["bandwidth"])
    return options


MEASURES = (
    HsicRatio(
        name="cka",
        title="CKA",
        long_name="unbiased linear CKA",
        chance=0.0,
        centred=lambda linear, options: hsic.u_centred(linear),
    ),
    HsicRatio(
        name="cka_biased",
        title="biased CKA",
        long_name="biased linear CKA",
        centred=lambda linear, options: hsic.centred(linear),
    ),
    HsicRatio(
        name="cka_rbf",
        title="RBF CKA",
        long_name="unbiased CKA, RBF kernel",
        options={"bandwidth": 1.0},  # of the kernel, as a fraction of the median distance
        check=check_bandwidth,
        chance=0.0,
        centred=lambda linear, options: hsic.u_centred(gram.rbf(linear, options["bandwidth"])),
    ),
)
