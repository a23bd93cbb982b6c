"""Accuracies of images whose classes have other numbers than the head or the fit, by hand."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vitcnn
from vitcnn import results
from vitcnn.data import classes

SIZE = 4
NAMES = ("ant", "bee", "cow", "dog")


class Linear(nn.Module):
    """Logits that are linear in the mean colour of the image."""

    outputs: int = 1000

    @nn.compact
    def __call__(self, images):
        x = vitcnn.tap(self, "colour", images.mean((1, 2)))
        return nn.Dense(self.outputs, name="head")(x)


def linear(outputs, **provenance):
    module = Linear(outputs)
    variables = module.init(jax.random.key(1), jnp.zeros((1, SIZE, SIZE, 3)))
    return vitcnn.Model(module, variables, vitcnn.Preprocess(size=SIZE), provenance)


class Images(list):
    """Images of one colour each, with labels and names of classes."""

    labelled = True

    def __init__(self, labels, names, count=None, seed=0):
        rng = np.random.default_rng(seed)
        colours = rng.integers(0, 256, (len(labels), 1, 1, 3))
        pixels = np.broadcast_to(colours, (len(labels), SIZE, SIZE, 3)).astype(np.uint8)
        super().__init__(
            {"image": image, "label": int(label)}
            for image, label in zip(pixels, labels, strict=True)
        )
        self.classes = count or len(names)
        self.class_names, self.provenance = names, {"source": "images"}


def run(workdir, model, source, **config):
    config = {"analyses": {"accuracy": {}}, "group": 8, **config}
    given = {"models": {"m": model}, "source": source, "progress": False}
    return vitcnn.analyze(config, workdir, **given)


def top1(model, source, numbers):
    """The accuracy by hand: the largest of all logits is that of the class's own number."""
    logits, _ = model.run(model.preprocess([e["image"] for e in source]))
    labels = np.array([numbers[e["label"]] for e in source])
    return np.mean(np.argmax(np.asarray(logits, np.float64), 1) == labels)


def by_names(model, numbers, seed):
    """Labels that are right for half of the images: the class with the largest own logit."""
    blank = Images([0] * 16, ["x"], seed=seed)
    logits, _ = model.run(model.preprocess([e["image"] for e in blank]))
    return np.argmax(np.asarray(logits)[:, list(numbers)], 1)


def test_part_of_imagenet_with_a_head_of_a_thousand(tmp_path):
    model = linear(1000)
    logits, _ = model.run(model.preprocess([e["image"] for e in Images([0] * 16, ["x"])]))
    best = np.argmax(np.asarray(logits), 1)
    numbers = sorted(set(best[:12].tolist()))  # the classes of the first images
    names = [classes.imagenet_synsets()[number] for number in numbers]
    labels = [numbers.index(b) if b in numbers else 0 for b in best]
    source = Images(labels, names)
    found = run(tmp_path, model, source)["accuracy.m"]
    expected = top1(model, source, numbers)
    assert float(found.top1) == expected and expected > 0.5 and len(numbers) > 1
    record = results.provenance(found)
    assert record["data"]["class_names"] == names
    assert record["classes"] == {
        "compared_by": "synset ids of ImageNet-1k",
        "numbers": dict(zip(names, numbers, strict=True)),
    }


@pytest.mark.parametrize("order", [(2, 0, 3, 1), (3, 2)])
def test_a_head_with_names_is_compared_by_name(tmp_path, order):
    model = linear(4, class_names=NAMES)
    labels = by_names(model, order, seed=0)
    source = Images(labels, [NAMES[i] for i in order])
    found = run(tmp_path, model, source)["accuracy.m"]
    assert float(found.top1) == top1(model, source, order)
    assert results.provenance(found)["classes"]["compared_by"] == "names"


def test_labels_without_names_keep_their_numbers(tmp_path):
    model = linear(10)
    source = Images([5, 6, 7, 8, 9] * 3, None, count=10)
    found = run(tmp_path, model, source)["accuracy.m"]
    assert float(found.top1) == top1(model, source, range(10))
    assert results.provenance(found)["classes"] == {"compared_by": "numbers of the labels"}


def probe_config(fit):
    job = {"taps": ("colour",), "penalties": (1.0,)}
    return {
        "stages": {"fit": {"data": fit, "analyses": {"probe": {"analysis": "probe_fit"}}}},
        "analyses": {"probe": job},
    }


@pytest.fixture
def stage_of(monkeypatch):
    """Puts a source in memory in the place of the data of the stage."""
    from vitcnn.engine import analyze

    def put(source):
        monkeypatch.setattr(analyze, "load_source", lambda fields: source)

    return put


def test_fit_and_test_images_are_compared_by_name(tmp_path, stage_of):
    """Classes are colours, so a probe is right only if the numbers meet."""
    rng = np.random.default_rng(0)
    palette = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]])

    def coloured(order, n, names=True):
        source = Images(np.arange(n) % len(order), [NAMES[i] for i in order])
        source.class_names = source.class_names if names else None
        for example in source:
            colour = palette[order[example["label"]]] * 0.7 + rng.integers(0, 40, 3)
            example["image"] = np.broadcast_to(colour, (SIZE, SIZE, 3)).astype(np.uint8)
        return source

    stage_of(coloured((0, 1, 2, 3), 32))
    config = probe_config({"source": "scenes"})
    config["stages"]["fit"]["analyses"]["probe"]["taps"] = ("colour",)
    for order in ((0, 1, 2, 3), (2, 0, 3, 1), (3, 1)):
        workdir = tmp_path / "".join(map(str, order))
        found = run(workdir, linear(4), coloured(order, 16), **config)["probe.m"]
        assert found.accuracy.values.item() == 1.0 and int(found.images) == 16
        assert found.attrs["chance"] == 0.25
    numbers = results.provenance(found)["classes"]["numbers"]
    assert numbers == {"dog": 3, "bee": 1}
    other = coloured((0, 1), 16)
    other.class_names = ["ant", "be"]
    with pytest.raises(ValueError, match=r"the classes of the fit: 'be'; did you mean 'bee'"):
        run(tmp_path / "a", linear(4), other, **config)
    with pytest.raises(ValueError, match=r"have 2 classes, those of the fit 4; .*one side only"):
        run(tmp_path / "b", linear(4), coloured((3, 1), 16, names=False), **config)


def test_a_source_says_what_it_is(tmp_path):
    with pytest.raises(ValueError, match=r"are list, which has no labelled, classes, provenance"):
        run(tmp_path / "a", linear(4), list(Images([0, 1] * 4, NAMES)))
    source = Images([0, 1] * 4, None, count=1)
    source.classes = None
    with pytest.raises(ValueError, match=r"probe needs the number of classes"):
        run(tmp_path / "b", linear(4), source, analyses={"probe": {"analysis": "probe_fit"}})
    assert int(run(tmp_path / "c", linear(4), source)["accuracy.m"].images) == 8
