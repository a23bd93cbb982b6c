"""Mixing: mixup, CutMix and erasing on the device, after the images are normalised.

All are pure functions of a key and the whole batch, over all devices and micro-batches, so the
numbers do not depend on how the batch is split. The partner of an image is the one before it in the
batch; batches may have any size.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int, Key

Images = Float32[Array, "image height width channel"]
Targets = Float32[Array, "image classes"]

_AREA = (0.02, 0.33)  # share of an image that is erased
_ASPECT = (0.3, 1 / 0.3)  # height over width of what is erased
_ATTEMPTS = 10  # to draw a rectangle that fits


@dataclasses.dataclass(frozen=True)
class Mixing:
    """How training images are mixed with each other.

    Attributes:
      mixup: the weight of an image in its mean with its partner is drawn from Beta(mixup, mixup),
        once a step; 0 for no mixup (Zhang et al. 2018).
      cutmix: a rectangle of the partner covers the share 1 - Beta(cutmix, cutmix) of the image; 0
        for no CutMix (Yun et al. 2019).
      probability: probability of a step to be mixed at all.
      switch: where mixup and CutMix are both on, the probability of CutMix.
      whole_targets: whether the target of a mixed image has both classes as a whole, and not shares
        of them (DeiT-III); for a sigmoid loss without label smoothing.
      larger_share: whether in mixup an image always has the larger weight, as in Google's recipes.
      erasing: probability of an image to have a rectangle of 2 to 33 % of its area replaced by unit
        normal noise (Zhong et al. 2020), before it is mixed.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    probability: float = 1.0
    switch: float = 0.5
    whole_targets: bool = False
    larger_share: bool = True
    erasing: float = 0.0

    def __post_init__(self):
        for field in ("mixup", "cutmix"):
            if not 0 <= getattr(self, field) < float("inf"):
                raise ValueError(
                    f"config.mixing.{field} = {getattr(self, field)!r}: expected a number from 0"
                )
        for field in ("probability", "switch", "erasing"):
            if not 0 <= getattr(self, field) <= 1:
                raise ValueError(
                    f"config.mixing.{field} = {getattr(self, field)!r}: expected a probability"
                )


def mix(
    settings: Mixing, key: Key[Array, ""], images: Images, targets: Targets
) -> tuple[Images, Targets]:
    """Returns mixed images and their targets.

    The accuracy of a mixed batch is that of the class with the larger share,
    `targets.argmax(-1)`; of whole targets it is the class of the lower number.

    Args:
      settings: what to do; what is off costs nothing.
      key: of the step.
      images: normalised images, the whole batch.
      targets: shares of the classes.
    """
    erasing_key, mixing_key = jax.random.split(key)
    if settings.erasing:
        images = _erase(erasing_key, images, settings.erasing)
    if settings.probability and (settings.mixup or settings.cutmix):
        pixels, share = _weights(settings, mixing_key, *images.shape[1:3])
        images = pixels[..., None] * images + (1 - pixels[..., None]) * jnp.roll(images, 1, 0)
        targets = share * targets + (1 - share) * jnp.roll(targets, 1, 0)
        targets = (targets > 0).astype(jnp.float32) if settings.whole_targets else targets
    return images, targets


def _weights(
    settings: Mixing, key: Key[Array, ""], height: int, width: int
) -> tuple[Float32[Array, "height width"], Float32[Array, ""]]:
    """Returns (weight of an image against its partner at every pixel, and on the whole)."""
    mixup_key, cutmix_key, switch_key, probability_key = jax.random.split(key, 4)
    pixels, share = jnp.ones((height, width)), jnp.ones(())
    if settings.mixup:
        share = jax.random.beta(mixup_key, settings.mixup, settings.mixup)
        share = jnp.maximum(share, 1 - share) if settings.larger_share else share
        pixels = jnp.full((height, width), share)
    if settings.cutmix:
        box = _box(cutmix_key, settings.cutmix, height, width)
        # The box is cut at the border of the image, so its share is counted.
        box_pixels, box_share = 1 - box.astype(jnp.float32), 1 - box.mean(dtype=jnp.float32)
        use_box = jax.random.bernoulli(switch_key, settings.switch if settings.mixup else 1.0)
        pixels = jnp.where(use_box, box_pixels, pixels)
        share = jnp.where(use_box, box_share, share)
    mixed = jax.random.bernoulli(probability_key, settings.probability)
    return jnp.where(mixed, pixels, 1.0), jnp.where(mixed, share, 1.0)


def _box(key: Key[Array, ""], alpha: float, height: int, width: int) -> Bool[Array, "height width"]:
    """Returns where the box of CutMix lies; it has the shape of the image and any centre."""
    share_key, row_key, column_key = jax.random.split(key, 3)
    side = jnp.sqrt(1 - jax.random.beta(share_key, alpha, alpha))  # relative to the image

    def span(key, size):
        half = jnp.floor(size * side).astype(jnp.int32) // 2
        return _within(jax.random.randint(key, (), 0, size) - half, 2 * half, size)

    return span(row_key, height)[:, None] & span(column_key, width)[None, :]


def _erase(key: Key[Array, ""], images: Images, probability: float) -> Images:
    """Returns images, some of them with a rectangle of noise."""
    n, height, width, _ = images.shape
    area_key, aspect_key, row_key, column_key, chosen_key, noise_key = jax.random.split(key, 6)
    shape = (n, _ATTEMPTS)
    area = jax.random.uniform(area_key, shape, minval=_AREA[0], maxval=_AREA[1]) * height * width
    limits = jnp.log(jnp.asarray(_ASPECT))
    aspect = jnp.exp(jax.random.uniform(aspect_key, shape, minval=limits[0], maxval=limits[1]))
    rows = jnp.round(jnp.sqrt(area * aspect)).astype(jnp.int32)
    columns = jnp.round(jnp.sqrt(area / aspect)).astype(jnp.int32)
    fits = (rows < height) & (columns < width)
    first = jnp.argmax(fits, axis=1)[:, None]
    rows, columns = (jnp.take_along_axis(sizes, first, 1)[:, 0] for sizes in (rows, columns))

    def span(key, length, size):  # one a image
        start = jax.random.randint(key, (n,), 0, jnp.maximum(size - length, 0) + 1)
        return _within(start[:, None], length[:, None], size)

    inside = span(row_key, rows, height)[:, :, None] & span(column_key, columns, width)[:, None, :]
    chosen = jax.random.bernoulli(chosen_key, probability, (n,)) & fits.any(axis=1)
    noise = jax.random.normal(noise_key, images.shape)
    return jnp.where((inside & chosen[:, None, None])[..., None], noise, images)


def _within(
    start: Int[Array, "*boxes"], length: Int[Array, "*boxes"], size: int
) -> Bool[Array, "*places"]:
    """Returns which places of an axis lie in [start, start + length)."""
    places = jnp.arange(size)
    return (places >= start) & (places < start + length)
