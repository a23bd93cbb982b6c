"""Similarity of representations: pure maths, arrays in, arrays out."""

from vitcnn.similarity import cka, hsic

__all__ = ["cka", "hsic"]
