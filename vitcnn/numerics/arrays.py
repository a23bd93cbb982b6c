"""What the package takes as an array."""

from collections.abc import Sequence

import jax
import numpy as np
import xarray

# Public functions take arrays of either library; annotations such as Float[Array, "n d"] say so.
Array = jax.Array | np.ndarray
# One number after the other, or one name: figures and tables take any of these.
Numbers = Sequence[float] | np.ndarray | xarray.DataArray
Names = Sequence[str] | np.ndarray
