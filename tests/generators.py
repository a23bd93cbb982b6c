"""Generators of random numbers whose draws a test chooses."""

import numpy as np


class Sign(np.random.Generator):
    """Chooses one sign, wherever an augmentation draws one."""

    def __init__(self, positive):
        super().__init__(np.random.PCG64(0))
        self.positive = positive

    def random(self):
        return 0.25 if self.positive else 0.75
