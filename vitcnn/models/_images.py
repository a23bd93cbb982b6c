"""What every network asks of its images."""

from __future__ import annotations

from jaxtyping import Array, Float


def pair(size: int | tuple[int, int]) -> tuple[int, int]:
    """Returns (rows, columns) of a size that is one number if it is square."""
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def check(
    images: Float[Array, "batch height width channel"], image_size: int | tuple[int, int]
) -> None:
    """Raises ValueError unless `images` is a batch of RGB images of the size of the network."""
    height, width = pair(image_size)
    if images.ndim != 4 or images.shape[1:] != (height, width, 3):
        shape = " x ".join(map(str, images.shape))
        raise ValueError(
            f"images are {shape}, but this network takes N x {height} x {width} x 3 (channels "
            f"last); resize them, or create the network with another image_size"
        )
