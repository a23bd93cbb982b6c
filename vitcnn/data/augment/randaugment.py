"""RandAugment as Google's ViTs and Mixers were trained with it, quirks included.

Cubuk et al. 2019 (arXiv 1909.13719) describe the method; the published models used code that
differs from Pillow's operations in these points, all of which are reproduced here:

- The magnitude m is shared by all operations and not limited to 10.
- The threshold of "solarize" is a byte: 256 is 0, so m = 10 and m = 20 invert the whole image.
- "posterize" with 0 bits (m < 2.5) keeps one bit.
- "contrast" blends with the constant height * width / 256 (196 at 224 x 224 pixels), not with the
  mean grey of the image.
- "color", "contrast", "brightness" and "sharpness" blend by 0.18 m + 0.1, so they only strengthen
  an image for m > 5, and m = 0 nearly removes colour, contrast, brightness or detail.
- Blends, smoothing and grey levels are rounded down.
- Translations and the square of "cutout" are in pixels, whatever the size of the image. For small
  images there is `randaugment_relative`.
"""

from __future__ import annotations

import dataclasses
import math
import warnings

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageFilter, ImageOps

from vitcnn.data.augmentation import Change, check_range, signed
from vitcnn.data.preprocess import Preprocess

OPERATIONS = (
    "auto_contrast",
    "equalize",
    "invert",
    "rotate",
    "posterize",
    "solarize",
    "color",
    "contrast",
    "brightness",
    "sharpness",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "cutout",
    "solarize_add",
)
FILL = (128, 128, 128)  # of empty pixels
TRANSLATION = 100  # pixels at magnitude 10
HALF_SIDE = 40  # pixels at magnitude 10, of the square of "cutout"
# TensorFlow makes bytes of numbers in [0, 1] by the factor 255.5, and rounds down. Pillow adds 0.5
# before it rounds down.
GREY = (*(weight * 255.5 / 255 for weight in (0.2989, 0.5870, 0.1140)), -0.5)
# Sums are multiples of 1/13; half of that keeps whole numbers from falling to the next lower one.
SMOOTH = ImageFilter.Kernel((3, 3), (1, 1, 1, 1, 5, 1, 1, 1, 1), scale=13, offset=0.5 / 13 - 0.5)


@dataclasses.dataclass(frozen=True)
class RandAugment(Change):
    """Applies random operations, each drawn from all of `OPERATIONS`.

    Attributes:
      layers: number of operations, which may be the same.
      magnitude: strength of all operations.
    """

    layers: int = 2
    magnitude: float = 10

    def __post_init__(self):
        check_range("layers", self.layers, 1)
        check_range("magnitude", self.magnitude, 0, 30)

    def check(self, preprocess: Preprocess) -> None:
        """Warns if translations leave nothing of the images."""
        if preprocess.size is not None:
            side = min(preprocess.size)
            if self.translation(side) >= side:
                warnings.warn(
                    f"RandAugment of magnitude {self.magnitude:g} moves images by "
                    f"{self.translation(side):g} pixels, so 2 of its 16 operations turn images of "
                    f"{side} pixels into plain grey; randaugment_relative scales with the images",
                    stacklevel=4,
                )

    def __call__(
        self, image: UInt8[np.ndarray, "h w 3"], rng: np.random.Generator
    ) -> UInt8[np.ndarray, "h w 3"]:
        """Returns the image after `layers` operations."""
        picture = Image.fromarray(image)
        for _ in range(self.layers):
            operation = OPERATIONS[rng.integers(len(OPERATIONS))]
            picture = getattr(self, operation)(picture, rng)
        return np.asarray(picture)

    @property
    def level(self) -> float:
        """The magnitude in units of 10."""
        return self.magnitude / 10

    def translation(self, side: int) -> float:
        """Returns the distance in pixels by which an image of this side is moved."""
        return self.level * TRANSLATION

    def half_side(self, picture: Image.Image) -> int:
        """Returns half of the side of the square of "cutout", in pixels."""
        return int(self.level * HALF_SIDE)

    def flat_grey(self, picture: Image.Image) -> int:
        """Returns the grey level that "contrast" blends an image with."""
        return min(255, picture.width * picture.height // 256)

    # The operations: an image of Pillow and the generator -> an image.

    def auto_contrast(self, picture: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Stretches each channel to the whole range."""
        return ImageOps.autocontrast(picture)

    def equalize(self, picture: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Makes the histogram of each channel flat."""
        return ImageOps.equalize(picture)

    def invert(self, picture: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Makes the negative."""
        return ImageOps.invert(picture)

    def rotate(self, picture: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Rotates by 30 degrees at magnitude 10, to either side."""
        angle = math.radians(signed(self.level * 30, rng))
        cosine, sine = math.cos(angle), math.sin(angle)
        x, y = picture.width / 2, picture.height / 2
        row, column = x - cosine * x + sine * y, y - sine * x - cosine * y
        return _affine(picture, (cosine, -sine, row, sine, cosine, column))

    def posterize(self, picture: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Keeps the highest bits: 4 at magnitude 10."""
        shift = min(max(8 - int(self.level * 4), 0), 7)  # TensorFlow shifts a byte by at most 7
        return picture.point([value >> shift << shift for value in range(256)] * 3)

    def solarize(self, picture: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Inverts the pixels that are not below a threshold."""
        return ImageOps.solarize(picture, int(self.level * 256) % 256)

    def solarize_add(self, picture: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Adds 110 at magnitude 10 to the pixels below 128."""
        addition = int(self.level * 110)
        table = [min(255, value + addition) if value < 128 else value for value in range(256)]
        return picture.point(table * 3)

    def color(self, picture: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Blends with the grey image."""
        return self._enhanced(picture, picture.convert("L", GREY).convert("RGB"))

    def contrast(self, picture: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Blends with a constant."""
        grey = self.flat_grey(picture)
        return self._enhanced(picture, Image.new("RGB", picture.size, (grey, grey, grey)))

    def brightness(self, picture: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Blends with black."""
        return self._enhanced(picture, Image.new("RGB", picture.size))

    def sharpness(self, picture: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Blends with the smoothed image."""
        return self._enhanced(picture, picture.filter(SMOOTH))

    def shear_x(self, picture: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Moves rows, the more the further down they are."""
        shear = signed(self.level * 0.3, rng)
        return _affine(picture, (1, shear, -shear / 2, 0, 1, 0))  # the first row stays

    def shear_y(self, picture: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Moves columns, the more the further to the right they are."""
        shear = signed(self.level * 0.3, rng)
        return _affine(picture, (1, 0, 0, shear, 1, -shear / 2))

    def translate_x(self, picture: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Moves the image to the left or to the right."""
        shift = signed(self.translation(picture.width), rng)
        return _affine(picture, (1, 0, shift, 0, 1, 0))

    def translate_y(self, picture: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Moves the image up or down."""
        shift = signed(self.translation(picture.height), rng)
        return _affine(picture, (1, 0, 0, 0, 1, shift))

    def cutout(self, picture: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Greys a square around a random pixel."""
        half = self.half_side(picture)
        x, y = int(rng.integers(picture.width)), int(rng.integers(picture.height))
        box = (
            max(0, x - half),
            max(0, y - half),
            min(picture.width, x + half),
            min(picture.height, y + half),
        )
        picture = picture.copy()
        picture.paste(FILL, box)
        return picture

    def _enhanced(self, picture: Image.Image, degenerate: Image.Image) -> Image.Image:
        """Returns the blend of an image with one that lacks something, rounded down."""
        return Image.blend(degenerate, picture, self.level * 1.8 + 0.1)


def _affine(picture: Image.Image, matrix: tuple[float, ...]) -> Image.Image:
    """Returns a picture whose pixel at (x, y) was at (a x + b y + c, d x + e y + f).

    Coordinates are from the corner of the image, so the centre of the first pixel is (0.5, 0.5).
    """
    method = Image.Transform.AFFINE
    return picture.transform(picture.size, method, matrix, Image.Resampling.NEAREST, fillcolor=FILL)


AUGMENTATION = RandAugment
