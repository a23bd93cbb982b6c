"""Images on the devices: the batches have the bits of those that the host makes."""

import jax
import numpy as np
import pytest

from vitcnn import data
from vitcnn.data import Preprocess, augment, resident

SIZE = (12, 16)


@pytest.fixture(scope="module")
def source():
    return data.load("scenes", size=24, image_size=16)


CHAINS = [(), ("flip",), ("pad_crop(3)",), ("pad_crop(20, 'zero')", "flip", "pad_crop(2)")]


@pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: "+".join(chain) or "none")
@pytest.mark.parametrize("repeats", [1, 2])
def test_a_batch_has_the_same_bits(source, chain, repeats):
    """The images are cropped; the host has half of a batch; two epochs meet in one batch."""
    preprocess = Preprocess(size=SIZE, resize=16)
    options = dict(batch=20, seed=4, start=1, augment=chain, repeats=repeats, host=1, hosts=2)
    images, held = resident.read(source, preprocess, show=False, threads=2)
    assert images.shape == (24, *SIZE, 3) and held.size == SIZE
    assert held.labels.tolist() == [source.label(i) for i in range(24)]
    plain = data.batches(source, preprocess, **options)
    numbers = data.batches(source, preprocess, **options, resident=held)
    make = jax.jit(resident.batch_of)
    for _ in range(3):
        expected, sent = next(plain), next(numbers)
        assert "images" not in sent and ("places" in sent) == bool(chain)
        made = make(images, sent)
        assert made.keys() == expected.keys()
        for key in expected:
            np.testing.assert_array_equal(made[key], expected[key])
            assert made[key].dtype == expected[key].dtype


def suits(choice="auto", chain=(), shown=101, size=SIZE, images=100):
    source = data.load("scenes", size=images)
    return resident.suits(choice, source, Preprocess(size=size), augment.parse(chain), shown)


def test_auto_takes_images_that_fit_and_are_read_again():
    assert suits() and suits(chain=("flip", "pad_crop"))
    assert not suits(shown=100)  # each is read once
    assert not suits(chain=("flip", "cutout(4)")) and not suits(chain=("random_resized_crop",))
    assert not suits(size=None) and suits("always", size=None, shown=1)
    assert suits(images=50_000, size=32, shown=10**6)  # CIFAR-10
    assert not suits(images=50_000, size=224, shown=10**8) and not suits("never")
    with pytest.raises(
        ValueError, match=r"on_device = 'always': the augmentation 'cutout' runs on"
    ):
        suits("always", chain=("flip", "cutout(4)"))
