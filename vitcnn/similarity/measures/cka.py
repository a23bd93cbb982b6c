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

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from vitcnn.similarity import gram, hsic
from vitcnn.similarity.measure import HsicRatio, Layers, OfDistances, Options, Requirement


def check_bandwidth(options: Options, images: int, sizes: Mapping[str, int]) -> Options:
    """Returns the options; raises ValueError unless `bandwidth` is above 0."""
    gram.check_kernel("rbf", options["bandwidth"])
    return options


VARIED_KERNEL = Requirement(
    met=lambda layers, options: hsic.alive(
        hsic.rbf_sums(layers.squared, layers.noise, layers.images, options["bandwidth"])
    ),
    otherwise=hsic.NO_KERNEL,
)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class RbfCka(OfDistances):
    """CKA with a Gaussian kernel: HSIC is summed over groups before the ratio is taken."""

    def sums(self, layers: Layers, options: Options) -> dict[str, Any]:
        """Returns the HSIC of every pair of layers, and which layers have no kernel."""
        sums = hsic.rbf_sums(layers.squared, layers.noise, layers.images, options["bandwidth"])
        return {"hsic": sums, "lacking": np.float64(layers.live & ~hsic.alive(sums))}

    def form(self, layers: int) -> dict[str, Any]:
        """Returns the shapes of `sums`."""
        hsic_form = hsic.form_of_sums(layers)
        return {"hsic": hsic_form, "lacking": hsic_form.energy}

    def matrices(self, total: Mapping[str, Any]) -> dict[str, Float[np.ndarray, "layers layers"]]:
        """Returns the CKA matrix by the name of the measure."""
        return {self.name: hsic.cka(total["hsic"])}

    def lacking(
        self, total: Mapping[str, Any]
    ) -> list[tuple[Requirement, Bool[np.ndarray, " layers"]]]:
        """Returns the layers without a kernel in some group; groups with one still count."""
        return [(VARIED_KERNEL, total["lacking"] > 0)]


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
        diagonal=True,
    ),
    RbfCka(
        name="cka_rbf",
        title="RBF CKA",
        long_name="unbiased CKA, RBF kernel",
        options={"bandwidth": 1.0},  # of the kernel, as a fraction of the median distance
        check=check_bandwidth,
        chance=0.0,
    ),
)
