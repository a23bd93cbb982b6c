"""Orthogonal Procrustes similarity: how well one representation rotates onto another.

For centred features of unit Frobenius norm the Procrustes distance is d^2 = min |X - Y R|^2 =
2 - 2 |X'Y|_*, where the minimum is over rotations R and |.|_* is the nuclear norm (the sum of the
singular values). The similarity is |X'Y|_* = 1 - d^2 / 2, in [0, 1]: it is 1 for representations
that are rotations, shifts and scalings of each other. Independent representations read well above 0
where they have many directions for the number of images. Source: Schoenemann 1966; Ding, Denain and
Steinhardt 2021.
"""

from __future__ import annotations

import concurrent.futures
import os

import numpy as np
from jaxtyping import Float

from vitcnn.similarity.distances import Spectra
from vitcnn.similarity.measure import GroupMean


def procrustes(spectra: Spectra) -> Float[np.ndarray, "layers layers"]:
    """Returns the Procrustes similarity of every pair of layers.

    |X'Y|_* equals |F'G|_*, where F F' and G G' are the Gram matrices. F is the eigenvectors of a
    Gram matrix times the roots of its eigenvalues, without those that are 0, computed once a layer.
    The singular values are the roots of the eigenvalues of F'G G'F, which take half the time and
    lose digits of the singular values below 1e-8 only. One matrix for each pair cannot be avoided:
    for L layers of n images they take O(L^2 n^3), which dominates the cost above some hundred
    images a group. The pairs are computed in threads, each of which needs BLAS to have one.
    """
    factors = []
    for values, vectors in zip(spectra.values, spectra.vectors, strict=True):
        varies = values > 0
        factors.append(vectors[:, varies] * np.sqrt(values[varies] / values.sum()))

    def nuclear_norm(i, j):
        product = factors[i].T @ factors[j]
        if product.shape[0] > product.shape[1]:
            product = product.T
        squares = np.linalg.eigvalsh(product @ product.T)
        return np.sqrt(np.maximum(squares, 0)).sum()

    rows, columns = np.tril_indices(len(factors))
    matrix = np.empty((len(factors), len(factors)))
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        matrix[rows, columns] = list(pool.map(nuclear_norm, rows, columns))
    matrix[columns, rows] = matrix[rows, columns]
    return matrix


MEASURES = (
    GroupMean(
        name="procrustes",
        title="Procrustes",
        long_name="Procrustes similarity",
        matrix=lambda layers, options: procrustes(layers.spectra),
    ),
)
