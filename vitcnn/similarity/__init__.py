"""Similarity of representations: pure maths, arrays in, arrays out.

Linear CKA is a function of the Gram matrices of the layers on the same images (`gram`), every other
measure a function of the distances of the images (`distances`). `measure` says what a measure is
and adds its values up over groups of images; the folder `measures` holds the measures, one family a
file; `hsic` has the sums behind every kind of CKA, and `maps` reads the finished matrix of every
layer with every layer.
"""

from vitcnn.similarity import distances, gram, hsic, maps, measure, measures

__all__ = ["distances", "gram", "hsic", "maps", "measure", "measures"]
