import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from vitcnn.checkpoints.sidecars import timm
from vitcnn.data import Preprocess
from vitcnn.data.preprocess import INTERPOLATIONS


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


KERNELS = {  # support and kernel of each antialiased filter, from its definition
    "box": (0.5, lambda x: (np.abs(x) <= 0.5) * 1.0),
    "bilinear": (1.0, lambda x: np.clip(1 - np.abs(x), 0, None)),
    "bicubic": (
        2.0,
        lambda x: np.where(
            np.abs(x) < 1,
            1.5 * np.abs(x) ** 3 - 2.5 * np.abs(x) ** 2 + 1,
            np.where(
                np.abs(x) < 2, -0.5 * np.abs(x) ** 3 + 2.5 * np.abs(x) ** 2 - 4 * np.abs(x) + 2, 0
            ),
        ),
    ),
    "lanczos": (3.0, lambda x: np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0)),
}


def matrix(old, new, name):
    """[new, old] weights of a one-dimensional antialiased resize, in float64."""
    _, kernel = KERNELS[name]
    scale = old / new
    centres = (np.arange(new) + 0.5) * scale
    distance = (np.arange(old)[None] + 0.5 - centres[:, None]) / max(scale, 1)
    weights = kernel(distance)
    return weights / weights.sum(1, keepdims=True)


def resized(image, height, width, name):
    rows, columns = matrix(image.shape[0], height, name), matrix(image.shape[1], width, name)
    return np.clip(np.einsum("yh,xw,hwc->yxc", rows, columns, image.astype(float)), 0, 255)


@pytest.mark.parametrize("name", ["bilinear", "bicubic", "lanczos", "box"])
@pytest.mark.parametrize(("new", "old"), [((12, 9), (40, 45)), ((50, 33), (20, 30))])
def test_resize_is_antialiased_to_one_grey_level(name, new, old):
    image = picture(*old)
    ours = Preprocess(size=new, interpolation=name).geometry(image)
    assert ours.shape == (*new, 3) and ours.dtype == np.uint8
    if name == "box" and new > old:
        return  # the tie at the edge of the box is a matter of taste
    # Pillow rounds between its two passes, which can move the result by a level or, where the
    # kernel has negative lobes and a pass was clipped, by more; random noise clips a lot
    error = np.abs(ours - resized(image, *new, name))
    assert error.max() <= (1.01 if name in ("bilinear", "box") else 60)
    assert np.median(error) <= 0.51


def test_bicubic_is_exact_to_a_level_where_nothing_clips():
    image = picture(40, 45) // 4 + 96
    ours = Preprocess(size=(12, 50), interpolation="bicubic").geometry(image)
    assert np.abs(ours - resized(image, 12, 50, "bicubic")).max() <= 1.01


def test_resize_is_pillows():
    image = picture(33, 47)
    for name, method in INTERPOLATIONS.items():
        ours = Preprocess(size=(20, 15), interpolation=name).geometry(image)
        theirs = np.asarray(Image.fromarray(image).resize((15, 20), method))
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("old", "short", "expected"),
    [((100, 200), 50, (50, 100)), ((200, 100), 50, (100, 50)), ((37, 100), 64, (64, 172))],
)
def test_resize_keeps_the_aspect_ratio(old, short, expected):
    image = picture(*old)
    assert Preprocess(resize=short).geometry(image).shape[:2] == expected


def test_centre_crop():
    image = picture(10, 16)
    cropped = Preprocess(resize=10, size=(6, 8)).geometry(image)
    np.testing.assert_array_equal(cropped, image[2:8, 4:12])


@pytest.mark.parametrize(
    ("odd", "start"), [(0, 0), (1, 0), (2, 1), (3, 2), (4, 2), (5, 2), (6, 3), (7, 4), (9, 4)]
)
def test_centre_crop_is_torchvisions_where_an_odd_number_is_cut_off(odd, start):
    """Half of it, rounded to even: 0.5 to 0, 1.5 to 2, 2.5 to 2, 3.5 to 4, 4.5 to 4."""
    for image in (picture(10, 10 + odd), picture(10 + odd, 10)):
        left, top = (0, start) if image.shape[1] == 10 else (start, 0)
        theirs = Image.fromarray(image).crop((left, top, left + 10, top + 10))
        ours = Preprocess(resize=10, size=10).geometry(image)
        np.testing.assert_array_equal(ours, np.asarray(theirs))


def test_resize_and_crop_are_the_two_steps():
    image = picture(90, 130)
    ours = Preprocess(resize=48, size=32).geometry(image)
    both = np.asarray(Image.fromarray(image).resize((69, 48), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(ours, both[8:40, 18:50])


def test_images_that_fit_pass_untouched():
    image = picture(24, 32)
    for preprocess in (
        Preprocess(),
        Preprocess(size=(24, 32)),
        Preprocess(resize=24),
    ):
        assert preprocess.geometry(image) is image
    np.testing.assert_array_equal(Preprocess(resize=24, size=(24, 32)).geometry(image), image)


def test_one_number_is_a_square():
    assert Preprocess(size=24).size == (24, 24)
    assert Preprocess(size=[24, np.int64(32)]).size == (24, 32)


def test_normalise():
    images = picture(4, 5)[None]
    preprocess = Preprocess(mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0))
    expected = (images / 255 - [0.1, 0.2, 0.3]) / [0.5, 0.25, 2.0]
    ours = preprocess.normalise(images)
    assert type(ours) is np.ndarray and ours.dtype == np.float32
    np.testing.assert_allclose(ours, expected, rtol=0, atol=5e-7)
    on_device = jax.jit(preprocess.normalise)(jnp.asarray(images))
    assert on_device.dtype == jnp.float32
    np.testing.assert_allclose(on_device, expected, rtol=0, atol=5e-7)


def test_default_normalisation_is_minus_one_to_one():
    images = np.array([0, 255], np.uint8).reshape(1, 1, 2, 1).repeat(3, 3)
    np.testing.assert_array_equal(Preprocess().normalise(images)[0, 0], [[-1] * 3, [1] * 3])


def test_call_is_geometry_and_normalisation():
    images = [picture(20, 30), picture(31, 17, seed=1)]
    preprocess = Preprocess(size=8, resize=10)
    ours = preprocess(images)
    assert ours.shape == (2, 8, 8, 3) and ours.dtype == np.float32
    for one, image in zip(ours, images, strict=True):
        expected = preprocess.geometry(image) / 127.5 - 1
        np.testing.assert_allclose(one, expected, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="pass a batch"):
        preprocess(images[0])
    with pytest.raises(ValueError, match=r"image 0 is 20 x 30 and image 1 is 31 x 17"):
        Preprocess()(images)


def test_to_dict_round_trip_through_json():
    preprocess = Preprocess(size=(224, 192), resize=256, interpolation="bicubic", std=(1, 2, 3))
    fields = json.loads(json.dumps(preprocess.to_dict()))
    assert Preprocess(**fields) == preprocess
    assert hash(Preprocess(**fields)) == hash(preprocess)
    with pytest.raises(dataclasses.FrozenInstanceError):
        preprocess.resize = 3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(interpolation="bilinar"), "did you mean 'bilinear'"),
        (dict(size=(0, 5)), r"size is \(0, 5\): expected \(height, width\)"),
        (dict(size=(5,)), "expected .height, width."),
        (dict(size=(2.5, 3)), "expected .height, width."),
        (dict(resize=-1), "resize is -1: expected the short side"),
        (dict(resize=2.5), "resize is 2.5: expected the short side"),
        (dict(resize=(5, 0)), r"resize is \(5, 0\): expected .* or \(height, width\)"),
        (dict(resize=(9, 7), size=8), r"\(8, 8\) does not fit into preprocess.resize = \(9, 7\)"),
        (dict(resize=100, size=128), "does not fit .* set preprocess.resize to at least 128"),
        (dict(std=(1, 0, 1)), "above 0"),
        (dict(mean=(0.5,)), "three finite numbers"),
        (dict(mean=0.5), "mean is 0.5: expected three finite numbers"),
        (dict(mean=(0.5, 0.5, float("nan"))), "three finite numbers"),
    ],
)
def test_wrong_fields(fields, message):
    with pytest.raises(ValueError, match=message):
        Preprocess(**fields)


def test_two_sides_are_resized_whatever_the_aspect_ratio():
    image = picture(40, 90)
    preprocess = Preprocess(size=(16, 20), resize=[20, 24], interpolation="bicubic")
    theirs = Image.fromarray(image).resize((24, 20), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(preprocess.geometry(image), np.asarray(theirs)[2:18, 2:22])
    assert Preprocess(**preprocess.to_dict()) == preprocess and preprocess.resize == (20, 24)
    assert Preprocess(resize=(20, 24)).geometry(image).shape == (20, 24, 3)


@pytest.mark.oracle
@pytest.mark.parametrize("mode", ["center", "squash"])
@pytest.mark.parametrize("share", [0.875, 0.95, 1.0])
def test_timm_cuts_images_alike(mode, share):
    data = pytest.importorskip("timm.data")
    cfg = {"input_size": [3, 48, 48], "crop_mode": mode, "crop_pct": share, "mean": [0.5] * 3}
    cfg |= {"std": [0.5] * 3, "interpolation": "bicubic"}
    fields = timm.read({"architecture": "resnet50", "pretrained_cfg": cfg}).preprocess
    image = picture(70, 100)
    transform = data.create_transform(
        **{name: cfg[name] for name in ("crop_mode", "crop_pct", "interpolation", "mean", "std")},
        input_size=(3, 48, 48),
    )
    theirs = transform(Image.fromarray(image)).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(Preprocess(**fields)([image])[0], theirs, atol=1e-5)


def test_crop_larger_than_the_image():
    with pytest.raises(ValueError, match=r"size \(60, 90\) is larger .* \(64, 80\).*90 or more"):
        Preprocess(resize=64, size=(60, 90)).geometry(picture(64, 80))


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((1, 4, 4, 3), np.uint8)]
)
def test_not_an_image(image):
    with pytest.raises(ValueError, match="expected uint8"):
        Preprocess().geometry(image)


def lit(box, height, width):
    """A dark picture with a bright box."""
    image = np.zeros((height, width, 3), np.uint8)
    top, left, bottom, right = (
        round(edge * side) for edge, side in zip(box, (height, width) * 2, strict=True)
    )
    image[top:bottom, left:right] = 255
    return image


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"size": (20, 30)},
        {"size": (24, 20), "resize": 32},
        {"resize": 50},
        {"size": (24, 20), "resize": (30, 32)},
    ],
)
def test_boxes_lie_where_the_picture_of_the_box_lies(fields):
    preprocess = Preprocess(interpolation="nearest", **fields)
    given = np.array([[0.25, 0.3, 0.75, 0.6], [0.0, 0.0, 1.0, 1.0]], np.float32)
    moved = preprocess.boxes(given, 80, 100)
    for box, at in zip(given, moved, strict=True):
        seen = preprocess.geometry(lit(box, 80, 100))[..., 0] > 0
        side = np.array(seen.shape)
        rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
        edges = [rows[0], columns[0], rows[-1] + 1, columns[-1] + 1]
        np.testing.assert_allclose(at, np.array(edges) / np.tile(side, 2), atol=1 / side.min())
    assert moved.dtype == np.float32


def test_boxes_outside_of_the_crop_are_left_out():
    preprocess = Preprocess(size=20, resize=40)  # the middle half
    moved = preprocess.boxes(np.array([[0.0, 0.0, 0.2, 1.0], [0.2, 0.4, 0.5, 0.5]]), 60, 60)
    assert np.isnan(moved[0]).all()
    np.testing.assert_allclose(moved[1], [0, 0.3, 0.5, 0.5], atol=1e-6)
    assert preprocess.boxes(np.zeros((0, 4)), 60, 60).shape == (0, 4)


def test_boxes_of_another_geometry_are_refused():
    class Mirrored(Preprocess):
        def geometry(self, image):
            return image[:, ::-1]

    with pytest.raises(ValueError, match="Mirrored has a geometry of its own"):
        Mirrored().boxes(np.zeros((1, 4)), 60, 60)
