"""Skip connections: which blocks of a network have them, and which branches training leaves out."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitcnn.layers import fields
from vitcnn.lookup import check_name

RULES = ("linear", "uniform")


@dataclasses.dataclass(frozen=True)
class Skips:
    """The skip connections of all blocks (in a ResNet: units) of a network.

    With stochastic depth (Huang et al. 2016, arXiv 1603.09382) training leaves out the branch of a
    block at random, for each image by itself, so that only the skip connection remains. A block
    without a skip connection always keeps its branch, because nothing else would remain.

    Attributes:
      count: number of blocks; they are counted from 0.
      no_skip: blocks without skip connections.
      stochastic_depth: the probability of leaving out a branch: of the last block, see `rule`.
      rule: "linear": the probability rises linearly from 0 in the first block; "uniform": it is the
        same in all blocks.
      train: whether branches are left out at all.
      rescale: whether a branch that stays is divided by the probability of staying.
      parts: what the network calls its blocks, for errors.

    Raises:
      ValueError: a value is out of its range; the message names the field of the network.
    """

    count: int
    no_skip: tuple[int, ...]
    stochastic_depth: float
    rule: str
    train: bool
    rescale: bool = True
    parts: str = "blocks"

    def __post_init__(self):
        fields.check_numbers("no_skip", self.no_skip, self.count, self.parts)
        fields.check_probability("stochastic_depth", self.stochastic_depth)
        check_name("stochastic_depth_rule", self.rule, RULES)

    def has(self, number: int) -> bool:
        """Whether a block has its skip connections."""
        return number not in self.no_skip

    def rate(self, number: int) -> float:
        """Returns the probability that training leaves out a branch of a block."""
        if not self.has(number):
            return 0.0
        share = number / max(self.count - 1, 1) if self.rule == "linear" else 1.0
        return share * self.stochastic_depth

    def drop(
        self, module: nn.Module, number: int, branch: Float[Array, "batch ..."]
    ) -> Float[Array, "batch ..."]:
        """Returns what a branch adds to its skip: in training zeros for some of the images.

        Args:
          module: the module whose compact method is running; it draws from the rng "dropout".
          number: the block.
          branch: the output of the branch.
        """
        rate = self.rate(number)
        if not self.train or rate == 0:
            return branch
        shape = (len(branch), *(1,) * (branch.ndim - 1))
        stays = jax.random.bernoulli(module.make_rng("dropout"), 1 - rate, shape)
        return jnp.where(stays, branch / (1 - rate) if self.rescale else branch, 0)
