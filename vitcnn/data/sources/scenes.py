"""Scenes: procedural images that ask "local texture or global arrangement?".

An image shows its class twice, and either cue can be wrong on purpose:

- **texture**: a fine grating fills the image. In class c its waves run along the angle
  pi * c / classes (0 gives upright stripes, a quarter turn level ones). Its wavelength is 1/7 of
  the side (4.6 pixels of 32), so a patch of about 4 pixels of 32 tells the class, anywhere in the
  image, and a network that only sees small patches can read it.
- **arrangement**: two small discs, one orange and one blue, 0.42 to 0.5 of the side apart. The
  direction from orange to blue is 2 pi * c / classes (0 is right, a quarter turn is down), give or
  take a fifth of the distance to the next class. The pair lies anywhere in the image, so no patch
  that holds less than both discs tells the class: the patches of all classes are alike. A reader
  that also knows where in the image its patch lies, or sees the border in it, can do a little:
  one disc narrows the class, for the other has to fit in. With 8 classes, the best reader of one
  disc is right a third of the time.

The knobs, and what each does:

- `texture`, `arrangement`: the probability that the cue shows the class of the image. Otherwise it
  shows a class drawn uniformly at random, the true one included. A network that reads one cue with
  strength p perfectly and ignores the other is right p + (1 - p) / classes of the time
  (`cue_accuracy`); p = 0 takes the cue away. The best reader of both gets `bayes_accuracy`, the
  better of the two: where the cues disagree it follows the stronger, where they agree it is surer.
  Give the two cues different strengths to force a choice, and equal strengths to leave it open.
- `size`: number of images. Image i does not depend on it: a larger size only adds images.
- `noise`: standard deviation of the noise added to every pixel and channel, in units of the [0, 1]
  range (values are clipped). The grating's amplitude is 0.10 to 0.25. Noise makes single patches
  unreliable long before it hides a cue from a reader of the whole image.
- `classes`: 2 to 32. More classes lie closer together in both angles: 8 are easy to tell apart at
  32 pixels, 16 need most of the image.
- `image_size`: side in pixels, 16 or more. Everything is relative to it: the same scene, finer.
- `split`: "train" and "test" are disjoint streams of random numbers; so are two seeds.

Each scene also says where its discs are ("boxes", orange before blue) and what each cue shows
("cues"), for analyses that read them.

Nuisances carry no class: mean colour, tint, amplitude and phase of the grating, the colours,
size and position of the discs. The label is drawn uniformly. A knob changes nothing but its own
part: image i with other `noise`, `texture` or `image_size` is otherwise the same scene.

Mirroring an image changes both cues: do not train on scenes with the "flip" augmentation.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32

from vitcnn.lookup import check_name

SPLITS = {"train": 0, "test": 1}  # key of the split's stream of random numbers
WAVELENGTH = 1 / 7  # lengths are in units of the image side
DISTANCE = (0.42, 0.5)
RADIUS = (0.07, 0.09)
JITTER = 0.2  # of the angle between neighbouring directions, either way
ORANGE = np.array([1.0, 0.55, 0.1], np.float32)
BLUE = np.array([0.1, 0.25, 0.85], np.float32)


def load(
    size: int = 20_000,
    classes: int = 8,
    image_size: int = 32,
    texture: float = 0.9,
    arrangement: float = 0.9,
    noise: float = 0.2,
    split: str = "train",
    seed: int = 0,
) -> Scenes:
    """Returns the source; the docstring of the module describes the images.

    Args:
      size: number of images.
      classes: number of classes.
      image_size: side of the images in pixels.
      texture: probability that the texture shows the class, from 0 to 1.
      arrangement: probability that the arrangement of the discs shows the class, from 0 to 1.
      noise: standard deviation of the noise of each pixel, in units of the range of the image.
      split: "train" or "test", which share no image.
      seed: seed of all images.

    Raises:
      ValueError: a field is out of its range, or the split is unknown.
    """
    return Scenes(size, classes, image_size, texture, arrangement, noise, split, seed)


def cue_accuracy(classes: int, strength: float) -> float:
    """Returns the accuracy of a perfect reader that sees only one cue, of this strength."""
    return strength + (1 - strength) / classes


def bayes_accuracy(classes: int, texture: float, arrangement: float) -> float:
    """Returns the accuracy of the best reader of both cues.

    Let a and b be the accuracies of the cues alone. They agree on the class with probability a * b;
    where they disagree, at most one of them is right. Following the better cue is right with
    probability max(a (1 - b), b (1 - a)), because each wrong class is equally likely and less
    likely than either. The sum is max(a, b).
    """
    return max(cue_accuracy(classes, texture), cue_accuracy(classes, arrangement))


@dataclasses.dataclass(frozen=True)
class Scenes:
    """The source: image i is a pure function of (seed, split, i) and of the knobs."""

    size: int
    classes: int
    image_size: int
    texture: float
    arrangement: float
    noise: float
    split: str
    seed: int

    labelled = True
    most_boxes = 2

    def __post_init__(self):
        check_name("split of scenes", self.split, SPLITS)
        for name, low, high in (
            ("size", 1, math.inf),
            ("classes", 2, 32),
            ("image_size", 16, math.inf),
            ("texture", 0, 1),
            ("arrangement", 0, 1),
            ("noise", 0, math.inf),
            ("seed", 0, math.inf),
        ):
            value = getattr(self, name)
            whole = name in ("size", "classes", "image_size", "seed")
            if not low <= value <= high or (whole and value != int(value)):
                kind = "a whole number" if whole else "a number"
                bounds = f"from {low} to {high}" if high < math.inf else f"of {low} or more"
                raise ValueError(f"scenes: {name} is {value!r}: expected {kind} {bounds}")

    @property
    def provenance(self) -> dict[str, Any]:
        """The knobs, and the best accuracies that they allow."""
        return {
            "source": "scenes",
            **dataclasses.asdict(self),
            "texture_accuracy": cue_accuracy(self.classes, self.texture),
            "arrangement_accuracy": cue_accuracy(self.classes, self.arrangement),
            "bayes_accuracy": bayes_accuracy(self.classes, self.texture, self.arrangement),
        }

    @property
    def cue_classes(self) -> dict[str, int]:
        """The number of classes of each cue."""
        return {"texture": self.classes, "arrangement": self.classes}

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, i: int) -> dict[str, Any]:
        draws, rng = self._draws(i)
        label, stripes, direction = self._classes(draws)
        discs = self._discs(draws[5:], direction)
        image = self._render(draws[5:], stripes, discs)
        if self.noise:
            grain = rng.standard_normal(image.shape, np.float32)
            grain *= np.float32(self.noise)
            image += grain
        image *= 255
        image += 0.5
        np.clip(image, 0, 255, out=image)
        boxes = [(y - r, x - r, y + r, x + r) for x, y, r, _ in discs]
        return {
            "image": image.astype(np.uint8),
            "label": label,
            "boxes": np.array(boxes, np.float32),
            "cues": {"texture": stripes, "arrangement": direction},
        }

    def label(self, i: int) -> int:
        """Returns the class of scene i."""
        return self.cues(i)["label"]

    def digests(self, indices: Sequence[int]) -> list[str]:
        """Returns a digest of each scene: of the knobs, since they make it what it is."""
        knobs = {k: v for k, v in dataclasses.asdict(self).items() if k != "size"}
        return [f"{knobs} {int(i)}" for i in indices]

    def cues(self, i: int) -> dict[str, int]:
        """Returns {"label", "texture", "arrangement"}: the class, and what each cue shows."""
        return dict(
            zip(("label", "texture", "arrangement"), self._classes(self._draws(i)[0]), strict=True)
        )

    def _draws(self, i: int) -> tuple[list[float], np.random.Generator]:
        """Returns the 20 uniform numbers that make scene i, and the generator of its noise."""
        if not 0 <= i < self.size:
            raise IndexError(f"scene {i}: there are scenes 0 to {self.size - 1}")
        key = (SPLITS[self.split], i)
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))
        return rng.random(20).tolist(), rng

    def _classes(self, draws: list[float]) -> tuple[int, int, int]:
        label, right_texture, other_texture, right_arrangement, other_arrangement = draws[:5]
        label = int(label * self.classes)
        stripes = label if right_texture < self.texture else int(other_texture * self.classes)
        direction = (
            label if right_arrangement < self.arrangement else int(other_arrangement * self.classes)
        )
        return label, stripes, direction

    def _render(
        self, draws: list[float], stripes: int, discs: Sequence[Disc]
    ) -> Float32[np.ndarray, "side side 3"]:
        x, y = _axes(self.image_size)
        # grating: colours around a mid grey, an amplitude that is nearly the same in all channels
        angle = math.pi * stripes / self.classes
        k = 2 * math.pi / WAVELENGTH
        wave = np.cos(k * math.cos(angle) * x + (k * math.sin(angle) * y + 2 * math.pi * draws[0]))
        amplitude = 0.10 + 0.15 * draws[1]
        mean = np.array([0.4 + 0.2 * v for v in draws[2:5]], np.float32)
        tint = np.array([amplitude * (0.7 + 0.6 * v) for v in draws[5:8]], np.float32)
        image = wave[:, :, None] * tint
        image += mean
        for disc in discs:
            _paint(image, *disc)
        return image

    def _discs(self, draws: list[float], direction: int) -> list[Disc]:
        """Returns the orange and the blue disc; their middle is uniform over where both fit."""
        turn = 2 * math.pi / self.classes
        angle = turn * (direction + JITTER * (2 * draws[8] - 1))
        distance = DISTANCE[0] + (DISTANCE[1] - DISTANCE[0]) * draws[9]
        radius = RADIUS[0] + (RADIUS[1] - RADIUS[0]) * draws[10]
        dx, dy = distance / 2 * math.cos(angle), distance / 2 * math.sin(angle)
        margin = radius + 0.01
        middle_x = 0.5 + (0.5 - margin - abs(dx)) * (2 * draws[11] - 1)
        middle_y = 0.5 + (0.5 - margin - abs(dy)) * (2 * draws[12] - 1)
        discs = []
        for sign, colour, brightness in ((-1, ORANGE, draws[13]), (1, BLUE, draws[14])):
            paint = colour * np.float32(0.85 + 0.15 * brightness)
            discs.append((middle_x + sign * dx, middle_y + sign * dy, radius, paint))
        return discs


Disc = tuple[float, float, float, np.ndarray]  # x, y, radius in parts of the side; its colour


def _paint(image: np.ndarray, x: float, y: float, radius: float, colour: np.ndarray) -> None:
    """Paints a disc, its edge smoothed over one pixel; only the square around it is touched."""
    side = image.shape[0]
    reach = radius + 1 / side
    left, right = (max(0, int((x + s * reach) * side)) for s in (-1, 1))
    top, bottom = (max(0, int((y + s * reach) * side)) for s in (-1, 1))
    xs, ys = _axes(side)
    across, down = xs[:, left : right + 1] - np.float32(x), ys[top : bottom + 1] - np.float32(y)
    cover = (radius - np.sqrt(across * across + down * down)) * side + 0.5
    cover = np.clip(cover, 0, 1)[:, :, None]
    square = image[top : bottom + 1, left : right + 1]
    square += cover * (colour - square)


@functools.lru_cache(maxsize=8)
def _axes(side: int) -> tuple[Float32[np.ndarray, "1 side"], Float32[np.ndarray, "side 1"]]:
    """Returns the positions of the pixel centres along x and y, in units of the side."""
    centres = (np.arange(side, dtype=np.float32) + np.float32(0.5)) / np.float32(side)
    return centres[None, :], centres[:, None]
