"""RandAugment for images of any size: Google's, relative to the size of the image.

At 32 pixels, `randaugment` of magnitude 10 turns a third of the images into plain grey. Here
translations and the square of "cutout" have at every size the share of the image that they have at
224 pixels, and "contrast" blends with the mean grey of the image, as in Pillow. All else is as in
`randaugment`.
"""

from __future__ import annotations

import dataclasses

from PIL import Image, ImageStat

from vitcnn.data.augment.randaugment import HALF_SIDE, TRANSLATION, RandAugment

NATIVE_SIDE = 224  # pixels; the size for which the constants of `randaugment` were chosen


@dataclasses.dataclass(frozen=True)
class RelativeRandAugment(RandAugment):
    """Applies random operations, each drawn from all of `randaugment.OPERATIONS`.

    Attributes:
      layers: number of operations, which may be the same.
      magnitude: strength of all operations.
    """

    def translation(self, side: int) -> float:
        """Returns the distance in pixels by which an image of this side is moved."""
        return self.level * TRANSLATION * side / NATIVE_SIDE

    def half_side(self, picture: Image.Image) -> int:
        """Returns half of the side of the square of "cutout", in pixels."""
        return int(self.level * HALF_SIDE * min(picture.size) / NATIVE_SIDE)

    def flat_grey(self, picture: Image.Image) -> int:
        """Returns the mean grey level of an image, rounded."""
        return int(ImageStat.Stat(picture.convert("L")).mean[0] + 0.5)


AUGMENTATION = RelativeRandAugment
