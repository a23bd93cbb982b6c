"""Gram matrices of taps, made once for all analyses of one group of images."""

from __future__ import annotations

from vitcnn.analyses import View, _tokens
from vitcnn.similarity import gram, hsic


def linear(view: View, tap: str, tokens: str) -> gram.Gram:
    """Returns the linear Gram matrix of the asked tokens of a tap; see `gram.linear`."""
    info = view.info[tap]
    key = ("linear", tap, _tokens.cut(info, tokens))
    return view.once(key, lambda: gram.linear(_tokens.take(view.taps[tap], info, tokens)))


def u_centred(view: View, tap: str, tokens: str, kernel: str, bandwidth: float) -> gram.Gram:
    """Returns the U-centred Gram matrix of the asked tokens of a tap; see `hsic.u_centred`."""
    gram.check_kernel(kernel, bandwidth)
    made = linear(view, tap, tokens)
    return hsic.u_centred(made if kernel == "linear" else gram.rbf(made, bandwidth))
