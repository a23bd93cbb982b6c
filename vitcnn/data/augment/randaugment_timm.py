"""RandAugment as timm has it, with which DeiT was trained ("rand-m9-mstd0.5-inc1" in timm's terms).

It differs from Google's `randaugment`: each operation is applied with a probability, its strength
varies, larger magnitudes always change an image more, translations are relative to the size of the
image, and there is no "cutout" (timm erases on normalised images instead).
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageEnhance, ImageOps

from vitcnn.data.augmentation import Change, check_range, signed
from vitcnn.data.preprocess import INTERPOLATIONS
from vitcnn.lookup import check_name

OPERATIONS = (
    "auto_contrast",
    "equalize",
    "invert",
    "rotate",
    "posterize",
    "solarize",
    "solarize_add",
    "color",
    "contrast",
    "brightness",
    "sharpness",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
)
RANDOM = ("bilinear", "bicubic")  # what interpolation="random" chooses from
MOST = 10  # greatest magnitude


@dataclasses.dataclass(frozen=True)
class TimmRandAugment(Change):
    """Applies random operations, each drawn from all of `OPERATIONS`.

    Attributes:
      layers: number of operations that are drawn; they may be the same.
      magnitude: mean strength, 0 to 10.
      deviation: standard deviation of the strength, which is then limited to 0 to 10.
      probability: probability with which an operation that was drawn is applied.
      fill: value of empty pixels (red, green, blue); the default is the mean of ImageNet.
      interpolation: "bicubic", "bilinear", "nearest", or "random" for one of the first two, drawn
        for each operation.
    """

    layers: int = 2
    magnitude: float = 9
    deviation: float = 0.5
    probability: float = 0.5
    fill: tuple[int, ...] = (124, 116, 104)
    interpolation: str = "bicubic"

    def __post_init__(self):
        check_range("layers", self.layers, 1)
        check_range("magnitude", self.magnitude, 0, MOST)
        check_range("deviation", self.deviation, 0)
        check_range("probability", self.probability, 0, 1)
        if len(self.fill) != 3 or not all(value in range(256) for value in self.fill):
            raise ValueError(f"fill is {self.fill}: expected three whole numbers, each 0 to 255")
        check_name("interpolation", self.interpolation, ("nearest", *RANDOM, "random"))

    def __call__(
        self, image: UInt8[np.ndarray, "h w 3"], rng: np.random.Generator
    ) -> UInt8[np.ndarray, "h w 3"]:
        """Returns the image after those operations that are applied."""
        picture = Image.fromarray(image)
        for _ in range(self.layers):
            operation = OPERATIONS[rng.integers(len(OPERATIONS))]
            if rng.random() < self.probability:
                magnitude = self.magnitude + self.deviation * rng.standard_normal()
                level = min(max(magnitude, 0), MOST) / 10
                picture = getattr(self, operation)(picture, level, rng)
        return np.asarray(picture)

    # The operations: an image of Pillow, a level in [0, 1] and the generator -> an image.

    def auto_contrast(
        self, picture: Image.Image, level: float, rng: np.random.Generator
    ) -> Image.Image:
        """Stretches each channel to the whole range."""
        return ImageOps.autocontrast(picture)

    def equalize(self, picture: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
        """Makes the histogram of each channel flat."""
        return ImageOps.equalize(picture)

    def invert(self, picture: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
        """Makes the negative."""
        return ImageOps.invert(picture)

    def rotate(self, picture: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
        """Rotates by up to 30 degrees."""
        method = self._interpolation(rng)
        return picture.rotate(signed(level * 30, rng), method, fillcolor=self.fill)

    def posterize(
        self, picture: Image.Image, level: float, rng: np.random.Generator
    ) -> Image.Image:
        """Keeps 4 bits or fewer; none at level 1, which is black."""
        bits = 4 - int(level * 4)
        return ImageOps.posterize(picture, bits) if bits else Image.new("RGB", picture.size)

    def solarize(self, picture: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
        """Inverts the pixels that are not below a threshold."""
        return ImageOps.solarize(picture, 256 - int(level * 256))

    def solarize_add(
        self, picture: Image.Image, level: float, rng: np.random.Generator
    ) -> Image.Image:
        """Adds up to 110 to the pixels below 128."""
        addition = int(level * 110)
        table = [value + addition if value < 128 else value for value in range(256)]
        return picture.point(table * 3)

    def color(self, picture: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
        """Weakens or strengthens the colours."""
        return ImageEnhance.Color(picture).enhance(_factor(level, rng))

    def contrast(self, picture: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
        """Weakens or strengthens the contrast."""
        return ImageEnhance.Contrast(picture).enhance(_factor(level, rng))

    def brightness(
        self, picture: Image.Image, level: float, rng: np.random.Generator
    ) -> Image.Image:
        """Darkens or brightens."""
        return ImageEnhance.Brightness(picture).enhance(_factor(level, rng))

    def sharpness(
        self, picture: Image.Image, level: float, rng: np.random.Generator
    ) -> Image.Image:
        """Blurs or sharpens."""
        return ImageEnhance.Sharpness(picture).enhance(_factor(level, rng))

    def shear_x(self, picture: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
        """Moves rows, the more the further down they are."""
        return self._affine(picture, (1, signed(level * 0.3, rng), 0, 0, 1, 0), rng)

    def shear_y(self, picture: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
        """Moves columns, the more the further to the right they are."""
        return self._affine(picture, (1, 0, 0, signed(level * 0.3, rng), 1, 0), rng)

    def translate_x(
        self, picture: Image.Image, level: float, rng: np.random.Generator
    ) -> Image.Image:
        """Moves by up to 45 % of the width."""
        shift = signed(level * 0.45, rng) * picture.width
        return self._affine(picture, (1, 0, shift, 0, 1, 0), rng)

    def translate_y(
        self, picture: Image.Image, level: float, rng: np.random.Generator
    ) -> Image.Image:
        """Moves by up to 45 % of the height."""
        shift = signed(level * 0.45, rng) * picture.height
        return self._affine(picture, (1, 0, 0, 0, 1, shift), rng)

    def _affine(
        self, picture: Image.Image, matrix: tuple[float, ...], rng: np.random.Generator
    ) -> Image.Image:
        """Returns a picture whose pixel at (x, y) was at (a x + b y + c, d x + e y + f)."""
        method = Image.Transform.AFFINE
        return picture.transform(
            picture.size, method, matrix, self._interpolation(rng), fillcolor=self.fill
        )

    def _interpolation(self, rng: np.random.Generator) -> Image.Resampling:
        name = self.interpolation
        return INTERPOLATIONS[RANDOM[rng.integers(len(RANDOM))] if name == "random" else name]


def _factor(level: float, rng: np.random.Generator) -> float:
    """Returns the factor of an enhancement: 1 changes nothing, 0 removes all."""
    return max(0.1, 1 + signed(level * 0.9, rng))


AUGMENTATION = TimmRandAugment
