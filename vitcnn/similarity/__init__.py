"""Similarity of representations: pure maths, arrays in, arrays out.

Every measure is a function of the linear Gram matrices of the layers on the same images (`gram`),
one file each: `cka` (of `hsic`), `procrustes`, `cca`, `rsa`, `neighbours`. `measures` has them all
by name, `compare` applies one to arrays.
"""

from vitcnn.similarity import cca, cka, gram, hsic, measures, neighbours, procrustes, rsa

__all__ = ["cca", "cka", "gram", "hsic", "measures", "neighbours", "procrustes", "rsa"]
