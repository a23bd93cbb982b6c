import importlib
import itertools

import numpy as np
import pytest

from vitcnn import data
from vitcnn.data import Preprocess, sources
from vitcnn.data.augment.pad_crop import PadCrop


class Numbers:
    """Image i is all i, but for one pixel that is 255 - i."""

    labelled = True
    classes = 10
    provenance = {"source": "numbers"}  # noqa: RUF012

    def __init__(self, n, side=6):
        self.n, self.side, self.reads = n, side, []

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        self.reads.append(i)
        image = np.full((self.side, self.side, 3), i, np.uint8)
        image[1, 2] = 255 - i
        return {"image": image, "label": i % 10}


class Faulty(Numbers):
    def __getitem__(self, i):
        if i == 13:
            raise ValueError("image 'thirteen.png' cannot be read")
        return super().__getitem__(i)


def test_order_is_a_permutation_by_seed_and_repeat():
    full = data.order(1000, 1000, seed=1, repeat=0)
    assert full.dtype == np.int64
    np.testing.assert_array_equal(np.sort(full), np.arange(1000))
    np.testing.assert_array_equal(data.order(1000, 30, seed=1, repeat=0), full[:30])
    np.testing.assert_array_equal(data.order(1000, None, seed=1), full)
    for seed, repeat in ((1, 1), (2, 0), (0, 1)):
        same = (data.order(1000, 1000, seed, repeat) == full).mean()
        assert same < 0.02  # one in a thousand agrees by chance
    shuffled = data.order(1000, 1000, seed=1)
    shuffled[:] = 0  # the caller's own copy
    np.testing.assert_array_equal(data.order(1000, 1000, seed=1), full)
    with pytest.raises(ValueError, match="20 images are asked for, but the source has 10"):
        data.order(10, 20, seed=0, repeat=0)


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_groups_in_order(threads):
    source = Numbers(40)
    indices = [np.array([3, 1, 2]), np.array([39]), np.array([5, 5]), np.arange(20)]
    seen = list(data.groups(source, {"m": Preprocess()}, indices, threads=threads))
    assert len(seen) == 4
    for index, group in zip(indices, seen, strict=True):
        np.testing.assert_array_equal(group["index"], index)
        np.testing.assert_array_equal(group["label"], index % 10)
        np.testing.assert_array_equal(group["images"]["m"][:, 0, 0, 0], index)
        assert group["index"].dtype == np.int32 and group["label"].dtype == np.int32
        assert group["images"]["m"].dtype == np.uint8


def test_equal_geometries_share_the_array():
    models = {
        "vit": Preprocess(size=4),
        "resnet": Preprocess(size=4, mean=(0.1, 0.2, 0.3)),  # normalisation is not geometry
        "large": Preprocess(size=8),
        "raw": Preprocess(),
    }
    source = Numbers(5)
    (group,) = data.groups(source, models, [np.arange(5)])
    images = group["images"]
    assert list(images) == list(models)
    assert images["vit"] is images["resnet"]
    assert [images[m].shape[1] for m in models] == [4, 4, 8, 6]
    assert sorted(source.reads) == [0, 1, 2, 3, 4]  # each image is read once for all models
    for i in range(5):
        expected = models["large"].geometry(source[i]["image"])
        np.testing.assert_array_equal(images["large"][i], expected)


def test_groups_are_loaded_ahead_but_not_all():
    source = Numbers(100)
    indices = np.arange(100).reshape(50, 2)
    stream = data.groups(source, {"m": Preprocess()}, list(indices), threads=2, prefetch=3)
    next(stream)
    assert len(source.reads) <= 2 * 6
    stream.close()


@pytest.mark.parametrize("threads", [0, 2])
def test_errors_of_the_source_reach_the_caller(threads):
    stream = data.groups(
        Faulty(20), {"m": Preprocess()}, [np.arange(10), np.arange(10, 20)], threads=threads
    )
    assert len(next(stream)["index"]) == 10
    with pytest.raises(ValueError, match=r"image 'thirteen.png' cannot be read"):
        next(stream)
    with pytest.raises(ValueError, match=r"thirteen\.png"):
        list(data.batches(Faulty(14), Preprocess(), batch=14, seed=0, threads=threads))


def test_images_that_differ_in_size():
    class Sizes(Numbers):
        def __getitem__(self, i):
            return {"image": np.zeros((5 + (i == 7), 6, 3), np.uint8), "label": 0}

    message = r"image 2 is 5 x 6 and image 7 is 6 x 6 pixels: set preprocess.size"
    with pytest.raises(ValueError, match=message):
        list(data.groups(Sizes(9), {"m": Preprocess()}, [np.array([2, 3, 7])]))
    (group,) = data.groups(Sizes(9), {"m": Preprocess(size=5)}, [np.array([2, 3, 7])])
    assert group["images"]["m"].shape == (3, 5, 5, 3)


def test_wrong_spans_and_no_models():
    source = Numbers(10)
    with pytest.raises(ValueError, match=r"group 1 asks for images 9 to 10.*images 0 to 9"):
        data.groups(source, {"m": Preprocess()}, [np.arange(3), np.array([9, 10])])
    with pytest.raises(ValueError, match="group 0 has indices of shape"):
        data.groups(source, {"m": Preprocess()}, [np.array([], int)])
    with pytest.raises(ValueError, match="no model"):
        data.groups(source, {}, [np.arange(3)])
    assert list(data.groups(source, {"m": Preprocess()}, [])) == []


def take(n, *arguments, **options):
    return list(itertools.islice(data.batches(*arguments, **options), n))


def test_batches_see_every_image_once_an_epoch():
    source = Numbers(30)
    seen = take(15, source, Preprocess(), batch=8, seed=5)  # 120 positions, 4 epochs
    index = np.concatenate([b["index"] for b in seen])
    for epoch in range(4):
        part = index[30 * epoch : 30 * (epoch + 1)]
        np.testing.assert_array_equal(part, data.order(30, 30, 5, epoch))
    assert not np.array_equal(index[:30], index[30:60])
    for b in seen:
        np.testing.assert_array_equal(b["images"][:, 0, 0, 0], b["index"])
        np.testing.assert_array_equal(b["label"], b["index"] % 10)
        assert b["index"].dtype == np.int32 and b["label"].dtype == np.int32


def assert_same(one, other):
    for a, b in zip(one, other, strict=True):
        assert set(a) == set(b)
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])


@pytest.mark.parametrize("threads", [0, 1, 4])
def test_a_step_is_a_pure_function_of_seed_and_step(threads):
    options = dict(batch=8, seed=5, augment=("flip", "pad_crop"))
    source = Numbers(30)
    reference = take(9, source, Preprocess(), **options)
    assert_same(reference, take(9, source, Preprocess(), threads=threads, **options))
    assert_same(reference[6:], take(3, source, Preprocess(), start=6, threads=threads, **options))
    other = take(9, source, Preprocess(), batch=8, seed=6)
    assert any(
        not np.array_equal(a["index"], b["index"]) for a, b in zip(reference, other, strict=True)
    )


def test_hosts_share_the_batch():
    options = dict(batch=12, seed=1, augment=("pad_crop", "flip"))
    source = Numbers(50)
    whole = take(5, source, Preprocess(), **options)
    parts = [take(5, source, Preprocess(), host=h, hosts=3, **options) for h in range(3)]
    joined = [
        {key: np.concatenate([part[k][key] for part in parts]) for key in whole[0]}
        for k in range(5)
    ]
    assert_same(whole, joined)


def test_a_batch_larger_than_the_source():
    (batch,) = take(1, Numbers(3), Preprocess(), batch=8, seed=0)
    counts = np.bincount(batch["index"], minlength=3)
    assert counts.sum() == 8 and counts.min() >= 2


def test_augmentation_is_drawn_anew_for_each_position():
    source = Numbers(200)
    seen = take(4, source, Preprocess(), batch=100, seed=0, augment="flip")
    flipped = [
        not np.array_equal(image, source[i]["image"])
        for b in seen
        for i, image in zip(b["index"], b["images"], strict=True)
    ]
    # Position p draws from the generator of (seed, p), whatever the image.
    for position, mirrored in enumerate(flipped):
        rng = np.random.default_rng(np.random.SeedSequence(0, spawn_key=(0, position)))
        assert mirrored == (rng.random() < 0.5)
    # The second epoch draws anew.
    first, second = (
        dict(zip(np.r_[a["index"], b["index"]], draws, strict=True))
        for a, b, draws in ((*seen[:2], flipped[:200]), (*seen[2:], flipped[200:]))
    )
    assert 0.3 < np.mean([first[i] == second[i] for i in range(200)]) < 0.7


@pytest.mark.parametrize("repeats", [1, 2, 3])
def test_repeats_show_each_image_several_times_in_a_batch(repeats):
    source = Numbers(30, side=12)
    options = dict(batch=12, seed=5, augment=("pad_crop",))
    seen = take(10, source, Preprocess(), repeats=repeats, **options)
    distinct = 12 // repeats
    stream = np.concatenate([data.order(30, 30, 5, epoch) for epoch in range(5)])
    fresh = Numbers(30, side=12)
    take(1, fresh, Preprocess(), repeats=repeats, threads=0, **options)
    assert len(fresh.reads) == distinct  # each image of a batch is read once
    for k, batch in enumerate(seen):
        expected = stream[k * distinct : (k + 1) * distinct]
        np.testing.assert_array_equal(batch["index"], np.tile(expected, repeats))
        np.testing.assert_array_equal(batch["label"], batch["index"] % 10)
        for row, image in enumerate(batch["images"]):  # each copy draws for itself
            rng = np.random.default_rng(np.random.SeedSequence(5, spawn_key=(0, 12 * k + row)))
            expected = PadCrop()(source[int(batch["index"][row])]["image"], rng)
            np.testing.assert_array_equal(image, expected)
    resumed = take(3, source, Preprocess(), repeats=repeats, start=7, **options)
    assert_same(seen[7:], resumed)
    parts = [
        take(10, source, Preprocess(), repeats=repeats, host=h, hosts=2, **options)
        for h in range(2)
    ]
    for k, batch in enumerate(seen):
        for key in batch:
            joined = np.concatenate([part[k][key] for part in parts])
            np.testing.assert_array_equal(batch[key], joined)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(augment=("flp",)), "unknown augmentation 'flp': did you mean 'flip'"),
        (dict(batch=9, hosts=2), "host 0 of 2 cannot have its share of a batch of 9"),
        (dict(host=2, hosts=2), "host 2 of 2"),
        (dict(batch=0), "batch of 0"),
        (dict(repeats=0), "repeats is 0: expected 1 or more"),
        (dict(repeats=3), "repeats is 3: expected .* a batch that is a multiple of it, not 8"),
        (dict(augment="resize_crop(8)"), "preprocess.size is not set"),
        (dict(augment=("flip", "inception_crop")), "'inception_crop' comes after 'flip'"),
        (dict(start=-1), "start is -1"),
        (dict(threads=-1), "threads is -1"),
    ],
)
def test_wrong_options_are_errors_at_once(options, message):
    with pytest.raises(ValueError, match=message):
        data.batches(Numbers(10), Preprocess(), **({"batch": 8, "seed": 0} | options))


def test_training_needs_labels_and_images():
    unlabelled = Numbers(4)
    unlabelled.labelled = False
    with pytest.raises(ValueError, match=r"no labels to train on: .*numbers"):
        data.batches(unlabelled, Preprocess(), batch=2, seed=0)
    with pytest.raises(ValueError, match="no images to train on"):
        data.batches(Numbers(0), Preprocess(), batch=2, seed=0)


def test_contact_sheet():
    sheet = data.contact_sheet(Numbers(5, side=4), rows=2, columns=3, gap=1)
    assert sheet.shape == (2 * 5 + 1, 3 * 5 + 1, 3) and sheet.dtype == np.uint8
    assert [sheet[1 + 5 * (i // 3), 1 + 5 * (i % 3), 0] for i in range(6)] == [0, 1, 2, 3, 4, 255]
    assert (sheet[0] == 255).all() and (sheet[:, 5] == 255).all()
    by_class = data.contact_sheet(Numbers(40, side=4), rows=3, columns=10, by_class=True, gap=1)
    top_left = by_class[1::5, 1::5, 0]
    np.testing.assert_array_equal(top_left, np.arange(30).reshape(3, 10))


def test_load_by_name():
    assert sources.names() == ["folder", "npz", "scenes", "tfds"]
    for name in sources.names():
        assert callable(importlib.import_module(f"vitcnn.data.sources.{name}").load)
    assert len(data.load("scenes", size=3)) == 3
    with pytest.raises(ValueError, match="unknown data source 'scene': did you mean 'scenes'"):
        data.load("scene")
    with pytest.raises(ValueError, match="unknown data source 'pipeline'"):
        data.load("pipeline")
    with pytest.raises(
        ValueError, match=r"field of data source 'scenes'.*'textur': did you mean 't"
    ):
        data.load("scenes", textur=0.5)
    with pytest.raises(ValueError, match="'tfds' needs name, split; its fields are name, split, d"):
        data.load("tfds")
