"""Measures: every similarity of layers by its name, made of Gram matrices and added up over groups.

`group_sums` makes them from the linear Gram matrices of one group of images, on the device;
`matrices` works them out on the host from the sums over all groups. HSIC is summed over groups
before the ratio of CKA is taken; every other measure is the mean over groups, weighted by their
images. `vitcnn.similarity.compare` does so for arrays, `vitcnn.analyses.similarity` for models.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from vitcnn.similarity import cca, gram, hsic, neighbours, procrustes, rsa
from vitcnn.similarity.cka import ratio, warn_of

MEASURES: Mapping[str, str] = {
    "cka": "unbiased linear CKA",
    "cka_biased": "biased linear CKA",
    "cka_rbf": "unbiased CKA, RBF kernel",
    "procrustes": "Procrustes similarity",
    "svcca": "mean canonical correlation",
    "pwcca": "projection-weighted canonical correlation",
    "cca": "mean squared canonical correlation",
    "rsa_pearson": "RSA, Pearson correlation of distances",
    "rsa_spearman": "RSA, Spearman correlation of distances",
    "neighbours": "share of nearest neighbours in common",
}
CKA = ("cka", "cka_biased", "cka_rbf")
CCA = ("svcca", "pwcca", "cca")
# What each measure can be told; the rest have no options.
OPTIONS = {"cka_rbf": ("bandwidth",), "neighbours": ("neighbours",)}
OPTIONS |= dict.fromkeys(CCA, ("components",))


@dataclasses.dataclass(frozen=True)
class Options:
    """Settings of the measures.

    Attributes:
      neighbours: number of nearest images.
      components: principal components before CCA; 0 is one for every 20 images of a group.
      bandwidth: of the RBF kernel, as a fraction of the median distance.
    """

    neighbours: int = 10
    components: int = 0
    bandwidth: float = 1.0


def check(
    measures: Sequence[str], options: Options, images: int, sizes: Mapping[str, int]
) -> Options:
    """Returns the options with the number of components filled in, 0 if no measure needs it.

    Args:
      measures: names.
      options: as asked for.
      images: images of a group.
      sizes: number of features of each layer, by what to call it.

    Raises:
      ValueError: an option that does not fit the group, or a layer with fewer features than
        components.
    """
    if "cka_rbf" in measures:
        gram.check_kernel("rbf", options.bandwidth)
    if "neighbours" in measures:
        neighbours.check_neighbours(options.neighbours, images)
    if not set(measures) & set(CCA):
        return dataclasses.replace(options, components=0)
    k = cca.check_components(options.components, images)
    small = [f"{label} has {size}" for label, size in sizes.items() if size < k]
    if small:
        raise ValueError(
            f"CCA of components = {k} needs as many features, but {', '.join(small)}; set "
            f"components <= {min(sizes.values())}, or leave them out"
        )
    return dataclasses.replace(options, components=k)


def least_images(measures: Sequence[str], options: Options) -> int:
    """Returns the number of images that a group needs, with the options from `check`."""
    most = options.neighbours + 2 if "neighbours" in measures else 0
    return max(most, cca.IMAGES_PER_COMPONENT * options.components)


def group_sums(
    grams: Sequence[gram.Gram], measures: Sequence[str], options: Options
) -> dict[str, Any]:
    """Returns the sums of one group of images that give every measure of every pair of layers.

    Args:
      grams: of the layers, from `gram.linear`.
      measures: names.
      options: from `check`.
    """
    n = grams[0].matrix.shape[0]
    prepare = {
        "cka": hsic.u_centred,
        "cka_biased": hsic.centred,
        "cka_rbf": lambda g: hsic.u_centred(gram.rbf(g, options.bandwidth)),
    }
    sums = {m: hsic.hsic_sums([prepare[m](g) for g in grams]) for m in measures if m in CKA}
    rest = [m for m in measures if m not in CKA]
    means, short = _means(grams, rest, options) if rest else ({}, jnp.zeros(len(grams), bool))
    return {
        "hsic": sums,
        "mean": {name: n * matrix for name, matrix in means.items()},
        "short": short.astype(jnp.float32),
        "infinite": 1.0 - jnp.stack([jnp.isfinite(g.energy) for g in grams]),
        "components": jnp.float32(n * options.components),
        "inverse_size": jnp.float32(n / (n - 1)),
        "images": jnp.float32(n),
    }


def _means(grams, measures, options):
    """Returns the matrix of each measure in one group, NaN for dead layers, and the short layers.

    A layer is short if it varies, but in fewer directions than CCA needs.
    """
    k, live = gram.stacked(grams)
    n, size, ok = k.shape[-1], options.components, live
    if {"procrustes", *CCA} & set(measures):
        spectra = gram.spectra(k)
        ok = live & (spectra.rank >= size)
        parts = cca.components(spectra, size) if size else None
        other = cca.permuted(parts, np.random.default_rng(0).permutation(n)) if size else None
    if {"rsa_pearson", "rsa_spearman"} & set(measures):
        distances = rsa.distances(k)
    found = {}
    for measure in measures:
        if measure == "procrustes":
            found[measure] = procrustes.procrustes(spectra)
        elif measure in ("svcca", "pwcca"):
            found[measure] = getattr(cca, measure)(parts, parts)
            found[f"{measure}_chance"] = getattr(cca, measure)(parts, other)
        elif measure == "cca":
            found[measure] = cca.cca(parts, parts)
            found["cca_chance"] = jnp.full((len(k), len(k)), size / (n - 1))  # over permutations
        elif measure == "neighbours":
            nearest = neighbours.nearest(k, options.neighbours)
            found[measure] = neighbours.neighbours(nearest, options.neighbours)
        else:
            found[measure] = getattr(rsa, measure)(distances)
    for name, matrix in found.items():
        known = ok if name.removesuffix("_chance") in CCA else live
        found[name] = jnp.where(known[:, None] & known[None, :], matrix, jnp.nan)
    return found, live & ~ok


def matrices(
    total: Mapping[str, Any], names: Sequence[str]
) -> dict[str, Float[np.ndarray, "layers layers"]]:
    """Returns measure (or "<measure>_chance") -> its matrix, NaN for dead layers, which are named.

    Args:
      total: `group_sums` over all groups, on the host in float64.
      names: names of the layers, for the warnings.
    """
    found = {measure: ratio(sums) for measure, sums in total["hsic"].items()}
    found |= {name: matrix / total["images"] for name, matrix in total["mean"].items()}
    order = [name for measure in MEASURES for name in (measure, f"{measure}_chance")]
    found = {name: found[name] for name in order if name in found}  # the device sorts names
    infinite, short = total["infinite"] > 0, total["short"] > 0
    said: dict[tuple, list[str]] = {}  # (what, which layers) -> measures
    for measure in [name for name in found if name in MEASURES]:
        dead = np.isnan(np.diagonal(found[measure])) & ~infinite
        few = short & dead & (measure in CCA)
        for what, which in (
            ("do not vary over the images beyond rounding noise", dead & ~few),
            ("vary in fewer directions than CCA has components", few),
            ("have NaN or infinite activations", infinite),
        ):
            said.setdefault((what, *which.tolist()), []).append(measure)
    for (what, *which), chosen in said.items():
        warn_of(what, names, np.array(which), ["CKA" if m == "cka" else m for m in chosen])
    return found


def variables(found: Mapping[str, Float[np.ndarray, "x y"]]) -> dict[str, tuple]:
    """Returns the matrices as variables of a Dataset [layer_x, layer_y]."""
    made = {}
    for name, matrix in found.items():
        long_name = MEASURES[name.removesuffix("_chance")]
        long_name += " of independent layers" * name.endswith("_chance")
        made[name] = (("layer_x", "layer_y"), matrix, {"long_name": long_name, "units": "1"})
    return made
