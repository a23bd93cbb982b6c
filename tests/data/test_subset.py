"""Parts of a source: ranges and few-shot draws, against what their provenance says."""

import collections

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


def test_unknown_fields_list_those_of_every_source():
    with pytest.raises(ValueError, match="shots"):
        data.load("scenes", shot=3)
