"""A Result belongs to what it measured: whatever changes a number makes another run."""

import importlib
import shutil
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import vitcnn
from vitcnn import checkpoints, data, results
from vitcnn.engine import identity

SIZE = 8


class Small(nn.Module):
    """A network whose fields, call and constants can change without changing its variables."""

    act: object = nn.gelu
    scale: float = 1.0
    early: bool = False

    @nn.compact
    def __call__(self, images, train=False, constant=None):
        x = nn.Dense(6, name="a")(images.reshape(len(images), -1))
        early = vitcnn.tap(self, "middle", x) if self.early else x
        x = self.act(early * self.scale) + (1.0 if train else 0.0)
        x = x if self.early else vitcnn.tap(self, "middle", x)
        return nn.Dense(5, name="b")(x if constant is None else x + np.asarray(constant))


VARIABLES = Small().init(jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 3)))


def model(call=None, preprocess=None, variables=VARIABLES, **fields):
    preprocess = preprocess or vitcnn.Preprocess(size=SIZE)
    return vitcnn.Model(Small(**fields), variables, preprocess, call=call or {})


def pictures(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (12, SIZE, SIZE, 3), np.uint8)


class Plain(list):
    """A source as a user writes one, without digests of its own."""

    labelled, provenance = True, {"source": "pictures"}


def in_memory(images, labels=range(12), classes=4):
    pairs = zip(images, labels, strict=True)
    source = Plain({"image": image, "label": i % 4} for image, i in pairs)
    source.classes = classes
    return source


def run(workdir, network=None, source=None, **config):
    config = {"analyses": {"cka": {"taps": ("middle",)}, "accuracy": {}}, "group": 6, **config}
    given = {"models": {"m": network or model()}, "source": source, "progress": False}
    return vitcnn.analyze(config, workdir, **given)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run on images in memory."""
    workdir = tmp_path_factory.mktemp("finished")
    run(workdir, source=in_memory(pictures()))
    return workdir


def other_pixel():
    images = pictures()
    images[5, 3, 2, 1] ^= 1
    return images


CHANGES = {
    "a pixel": ({"source": in_memory(other_pixel())}, "images_sha256.accuracy.m"),
    "a label": (
        {"source": in_memory(pictures(), [1, *range(1, 12)])},
        "images_sha256.accuracy.m",
    ),
    "the order": ({"source": in_memory(pictures()[::-1], range(11, -1, -1))}, "images_sha256.cka"),
    "number of classes": (
        {"source": in_memory(pictures(), classes=5)},
        "sources.accuracy.m.classes",
    ),
    "activation": ({"network": model(act=nn.relu)}, "models.m.computation.sha256"),
    "scale": ({"network": model(scale=2.0)}, "models.m.computation.sha256"),
    "meaning of a tap": ({"network": model(early=True)}, "models.m.computation.sha256"),
    "call": ({"network": model({"train": True})}, "models.m.computation.sha256"),
    "constant": ({"network": model({"constant": (1.0,)})}, "models.m.computation.sha256"),
    "interpolation": (
        {"network": model(preprocess=vitcnn.Preprocess(size=SIZE, interpolation="nearest"))},
        "models.m.preprocess.interpolation",
    ),
    "a weight": (
        {"network": model(variables=jax.tree.map(lambda x: x + 1e-6, VARIABLES))},
        "models.m.variables_sha256",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_changes_a_number_makes_another_run(finished, change):
    changes, entry = CHANGES[change]
    with pytest.raises(ValueError, match=f"holds another run(.|\n)*{entry}: "):
        run(finished, **{"source": in_memory(pictures()), **changes})


def test_the_same_run_is_read_back(finished, monkeypatch):
    from vitcnn.engine import analyze

    monkeypatch.setattr(analyze, "measure", None)  # would fail
    found = run(finished, source=in_memory(pictures().copy()))
    record = results.provenance(found["cka"])
    assert record["images_sha256"] == results.provenance(found["cka"])["images_sha256"]
    assert len(record["images_sha256"]) == 64


def test_two_constants_in_a_closure_are_two_computations():
    digests = {
        identity.computation_sha256(model({"constant": constant}))
        for constant in (np.arange(6.0), np.arange(1.0, 7.0), np.arange(6.0))
    }
    assert len(digests) == 2


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("VITCNN_CACHE", str(tmp_path / "cache"))
    for i, image in enumerate(pictures()):
        path = tmp_path / f"images/{i % 4}/{i}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return tmp_path / "images"


def from_folder(workdir, path, **fields):
    return run(workdir, data={"source": "folder", "path": str(path), **fields})


def test_replaced_images_make_another_run_and_a_copy_does_not(folder, tmp_path):
    first = from_folder(tmp_path / "run", folder)
    shutil.copytree(folder, tmp_path / "copy")  # another path and other times
    again = from_folder(tmp_path / "run", tmp_path / "copy")
    np.testing.assert_array_equal(first["cka"].cka, again["cka"].cka)
    Image.fromarray(pictures(1)[0]).save(folder / "0/0.bmp")  # of the same size
    with pytest.raises(ValueError, match=r"images_sha256.cka: "):
        from_folder(tmp_path / "run", folder)
    (tmp_path / "run/run.json").unlink()
    with pytest.raises(ValueError, match=r"accuracy.m.nc lies there without run.json"):
        from_folder(tmp_path / "run", folder)


def test_a_copy_of_weights_and_of_an_archive_is_the_same_run(tmp_path):
    fields = {"depth": 1, "width": 24, "mlp_dim": 24, "num_classes": 4}
    network = vitcnn.load("vit", "mini/4", **fields)
    settings = {"preprocess": network.preprocess.to_dict()}
    checkpoints.export(tmp_path / "a.npz", network.variables, settings)
    shutil.copy(tmp_path / "a.npz", tmp_path / "b.npz")
    shutil.copy(tmp_path / "a.vitcnn.json", tmp_path / "b.vitcnn.json")
    images = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), np.uint8)
    for name in ("x", "y", "z"):
        images[0, 0, 0, 0] = 7 if name == "z" else 0
        np.savez(tmp_path / f"{name}.npz", image=images, label=np.arange(6) % 4)

    def nll(weights, archive):
        config = {
            "models": {
                "v": {"family": "vit", "variant": "mini/4", "weights": str(weights), **fields}
            },
            "data": {"source": "npz", "path": str(archive)},
            "analyses": {"accuracy": {}},
            "group": 6,
        }
        return vitcnn.analyze(config, tmp_path / "run", progress=False)["accuracy.v"].nll.item()

    expected = nll(tmp_path / "a.npz", tmp_path / "x.npz")
    assert nll(tmp_path / "b.npz", tmp_path / "y.npz") == expected
    with pytest.raises(ValueError, match=r"images_sha256.accuracy.v: "):
        nll(tmp_path / "a.npz", tmp_path / "z.npz")
    network.variables = jax.tree.map(lambda x: x + 1, network.variables)
    checkpoints.export(tmp_path / "b.npz", network.variables, settings)
    with pytest.raises(ValueError, match=r"models.v.variables_sha256: "):
        nll(tmp_path / "b.npz", tmp_path / "x.npz")


def test_images_that_no_analysis_reads_may_change(folder, tmp_path):
    few = {"analyses": {"cka": {"taps": ("middle",), "images": 6}}}
    where = {"data": {"source": "folder", "path": str(folder)}}
    first = run(tmp_path / "run", **few, **where)["cka"]
    source = data.load("folder", path=str(folder))
    read = {source.files[i] for i in data.order(12, 6, 0)}
    unread = next(file for file in source.files if file not in read)
    Image.fromarray(pictures(1)[0]).save(folder / unread)
    again = run(tmp_path / "run", **few, **where)["cka"]
    np.testing.assert_array_equal(first.cka, again.cka)


def test_the_images_of_a_stage_belong_to_the_results_after_it(folder, tmp_path):
    where = {"source": "folder", "path": str(folder)}
    config = {
        "stages": {
            "fit": {"data": where, "analyses": {"probe": {"analysis": "probe_fit"}}},
        },
        "analyses": {"probe": {"penalties": (1.0,), "taps": ("middle",)}},
    }
    config["stages"]["fit"]["analyses"]["probe"]["taps"] = ("middle",)
    source = in_memory(pictures(2))
    run(tmp_path / "run", source=source, **config)
    Image.fromarray(pictures(1)[0]).save(folder / "0/0.bmp")
    with pytest.raises(ValueError, match=r"fit holds another run(.|\n)*images_sha256.probe.m"):
        run(tmp_path / "run", source=source, **config)
    shutil.rmtree(tmp_path / "run/fit")
    with pytest.raises(ValueError, match=r"stages.fit.images_sha256.probe.m"):
        run(tmp_path / "run", source=source, **config)


def test_sums_of_an_unknown_run_are_not_continued(tmp_path):
    (tmp_path / "sums.0of1.npz").write_bytes(b"")
    with pytest.raises(ValueError, match=r"sums.0of1.npz lies there without run.json"):
        run(tmp_path, source=in_memory(pictures()))


ANALYSIS = """
import dataclasses
import jax.numpy as jnp
import xarray
from vitcnn.analyses import Traits

TAPS = ("middle",)
TRAITS = Traits(one_model=True)

def measure(group, config, given):
    (view,) = group.models.values()
    return {"sum": jnp.sum(view.taps["middle"]) * FACTOR}

def finalize(sums, config):
    return xarray.Dataset({"sum": ((), sums["sum"])})
"""


def test_the_text_of_an_analysis_from_outside_counts(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    config = {"analyses": {"total": {"analysis": "outside.total"}}, "group": 12}
    (tmp_path / "outside").mkdir()
    source = in_memory(pictures())
    for factor in (1, 2):
        (tmp_path / "outside/total.py").write_text(ANALYSIS.replace("FACTOR", str(factor)))
        for name in ("outside.total", "outside"):
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        if factor == 1:
            run(tmp_path / "run", source=source, **config)
        else:
            with pytest.raises(ValueError, match=r"analyses_sha256.total.m"):
                run(tmp_path / "run", source=source, **config)
