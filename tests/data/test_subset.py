"""Parts of a source: ranges and few-shot draws, against what their provenance says."""

import collections
from fractions import Fraction

import numpy as np
import pytest

from vitcnn import data


class Labels:
    """A source of labels alone, whose images must not be read."""

    labelled, provenance = True, {"source": "labels"}

    def __init__(self, labels):
        self.labels = labels
        self.classes = max(labels) + 1

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        raise AssertionError("an image was read")

    def label(self, i):
        return self.labels[i]


def test_a_subrange_has_those_images():
    source = data.load("scenes", size=20, start=5, stop=9)
    whole = data.load("scenes", size=20)
    assert len(source) == 4 and source.classes == whole.classes
    for i in range(4):
        np.testing.assert_array_equal(source[i]["image"], whole[5 + i]["image"])
        assert source.label(i) == whole[5 + i]["label"]
    assert source.provenance["part"] == {"start": 5, "stop": 9}
    assert source.provenance["size"] == 20


@pytest.mark.parametrize(("start", "stop"), [(0, 21), (7, 7), (-1, 5), (20, None)])
def test_a_subrange_outside_the_source_is_an_error(start, stop):
    with pytest.raises(ValueError, match=r"start < stop <= 20"):
        data.load("scenes", size=20, start=start, stop=stop)


def test_few_shot_takes_as_many_of_each_class_by_seed_without_reading_images():
    labels = np.random.default_rng(0).integers(0, 5, 200).tolist()
    source = Labels(labels)
    part = data.few_shot(source, shots=4, draws=3, seed=1)
    assert len(part) == 3 * 4 * 5 and part.draws == 3
    draws = []
    for d in range(3):
        chosen = [part._indices[i] for i in range(20 * d, 20 * d + 20)]
        assert len(set(chosen)) == 20
        assert collections.Counter(labels[i] for i in chosen) == dict.fromkeys(range(5), 4)
        assert [part.label(20 * d + i) for i in range(20)] == [labels[i] for i in chosen]
        draws.append(set(chosen))
    assert draws[0] != draws[1] != draws[2]
    assert data.few_shot(source, 4, 3, 1)._indices == part._indices
    assert data.few_shot(source, 4, 3, 2)._indices != part._indices
    fewer = data.few_shot(source, 2, 1, 1)
    assert set(fewer._indices) < draws[0]  # 2 shots are among the 4 of the same draw


def test_few_shot_of_a_subrange_stays_in_it():
    part = data.load("scenes", size=400, classes=4, start=100, shots=3, draws=2)
    assert len(part) == 24
    assert part.provenance["part"] == {
        "start": 100,
        "stop": 400,
        "shots": 3,
        "draws": 2,
        "draw_seed": 0,
    }
    assert {part.label(i) for i in range(12)} == {0, 1, 2, 3}


def test_too_many_shots_name_the_poorest_class():
    with pytest.raises(ValueError, match=r"shots = 3: 1 of 2 classes .* class 1 only 2"):
        data.few_shot(Labels([0, 0, 0, 0, 1, 1]), shots=3)
    with pytest.raises(ValueError, match="expected 1 or more"):
        data.few_shot(Labels([0, 1]), shots=1, draws=0)


def test_classes_without_images_are_in_no_draw():
    with pytest.warns(UserWarning, match=r"shots = 2: 2 of 5 classes have no images .0, 3., so"):
        part = data.few_shot(Labels([1, 2, 4, 4, 2, 1, 1, 2]), shots=2, draws=2)
    assert len(part) == 12 and part.classes == 5
    for draw in (0, 6):
        assert [part.label(draw + i) for i in range(6)] == [1, 1, 2, 2, 4, 4]
    with pytest.raises(ValueError, match=r"shots = 3: 1 of 5 classes .* class 4 only 2"):
        data.few_shot(Labels([1, 2, 4, 4, 2, 1, 1, 2]), shots=3)
    wrong = Labels([0, 1])
    wrong.classes = 1
    with pytest.raises(ValueError, match="image 1 has label 1, but the data have 1 classes"):
        data.few_shot(wrong, shots=1)


def indices(labels, **fields):
    return data.stratified(Labels(labels), **fields)._indices


def webster(sizes, seats):
    """Seats of parties by Webster's method: one at a time to the largest votes / (2 seats + 1)."""
    won = np.zeros(len(sizes), int)
    for _ in range(seats):
        won[np.argmax([Fraction(n, 2 * int(w) + 1) for n, w in zip(sizes, won, strict=True)])] += 1
    return won


def test_a_share_has_of_each_class_its_part_without_reading_images():
    sizes = [101, 53, 7, 1]  # the middle images of all classes tie, as numbers 80 to 83; no others
    labels = np.random.default_rng(0).permutation(np.repeat(range(4), sizes)).tolist()
    for count in (83, 100, 120):
        part = indices(labels, count=count, seed=5)
        assert part == sorted(set(part)) and len(part) == count
        counts = np.bincount([labels[i] for i in part], minlength=4)
        np.testing.assert_array_equal(counts, webster(sizes, count))
    assert indices(labels, fraction=0.51, seed=5) == indices(labels, count=83, seed=5)
    assert indices(labels, count=83, seed=6) != indices(labels, count=83, seed=5)


def test_shares_of_a_seed_are_nested_and_classes_of_one_size_are_balanced():
    labels = np.random.default_rng(1).permutation(np.repeat(range(5), 20)).tolist()
    odd = np.zeros(5)
    for seed in range(30):
        smaller = set()
        for count in range(5, 100):
            part = set(indices(labels, count=count, seed=seed))
            assert smaller < part
            counts = np.bincount([labels[i] for i in part], minlength=5)
            assert counts.max() - counts.min() <= 1
            if count % 5 == 1:
                odd[np.argmax(counts)] += 1  # the class that is first in its turn
            smaller = part
    assert odd.sum() == 30 * 19 and np.abs(odd - 114).max() < 5 * np.sqrt(114 * 0.8)


def test_a_share_says_what_it_is_and_keeps_to_the_range_before_it():
    part = data.load("scenes", size=400, classes=4, start=100, fraction=0.1, subset_seed=3)
    assert len(part) == 30
    expected = {"start": 100, "stop": 400, "fraction": 0.1, "count": 30, "subset_seed": 3}
    assert part.provenance["part"] == expected
    assert np.bincount([part.label(i) for i in range(30)]).max() <= 9
    forty = data.load("scenes", size=400, classes=4, count=40)
    few = data.load("scenes", size=400, classes=4, count=40, shots=2)
    assert len(few) == 8
    inside = {forty[i]["image"].tobytes() for i in range(40)}
    assert {few[i]["image"].tobytes() for i in range(8)} < inside
    assert few.provenance["part"] == {
        "count": 40,
        "subset_seed": 0,
        "shots": 2,
        "draws": 1,
        "draw_seed": 0,
    }


def test_all_images_are_the_source_itself():
    source = Labels([0, 1, 1])
    assert data.stratified(source, fraction=1.0) is source
    assert data.stratified(source, count=3) is source
    whole = data.load("scenes", size=5, fraction=0.0, count=0, subset_seed=4)
    assert "part" not in whole.provenance


def test_images_without_labels_are_one_class():
    source = Labels([-1] * 50)
    source.labelled, source.classes = False, None
    part = data.stratified(source, fraction=0.3)
    assert len(part) == 15 and not part.labelled and len(set(part._indices)) == 15


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(fraction=1.5), r"data.fraction = 1.5: expected a share above 0, at most 1"),
        (dict(fraction=-0.1), r"data.fraction = -0.1"),
        (dict(fraction=float("nan")), r"data.fraction = nan"),
        (dict(fraction=0.02), r"0.02 of 20 images is less than one image.*at least 0.05"),
        (dict(count=21), r"data.count = 21: expected 1 to 20, the number of images"),
        (dict(count=-1), r"data.count = -1"),
        (dict(count=5, fraction=0.5), r"data.fraction = 0.5 and data.count = 5: set one"),
    ],
)
def test_wrong_shares_are_errors(fields, message):
    with pytest.raises(ValueError, match=message):
        data.load("scenes", size=20, **fields)


def test_a_share_that_loses_classes_warns():
    labels = [0] * 90 + [1] * 3 + [2] * 2
    with pytest.warns(UserWarning, match=r"fraction = 0.1: 2 of 3 classes lose all .* \(1, 2\)"):
        part = data.stratified(Labels(labels), fraction=0.1)
    assert len(part) == 10 and part.classes == 3


def test_unknown_fields_list_those_of_every_source():
    with pytest.raises(ValueError, match="shots"):
        data.load("scenes", shot=3)
