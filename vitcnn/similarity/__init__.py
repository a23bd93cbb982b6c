"""Similarity of representations: pure maths, arrays in, arrays out.

Every measure is a function of the linear Gram matrices of the layers on the same images (`gram`).
`measure` says what a measure is and adds its values up over groups of images; the folder
`measures` holds the measures, one family a file; `hsic` has the sums behind every kind of CKA, and
`maps` reads the finished matrix of every layer with every layer.
"""

from vitcnn.similarity import gram, hsic, maps, measure, measures

__all__ = ["gram", "hsic", "maps", "measure", "measures"]
