"""The engine against an oracle, and what it says of bad input."""

import json
import warnings

import numpy as np
import pytest
import running
import xarray
from ml_collections import ConfigDict
from oracles import minibatch_cka

import vitcnn
from vitcnn import config as configs
from vitcnn import data, results, storage
from vitcnn.engine import progress


def tiny_config(**changes):
    config = ConfigDict(
        {
            "models": {
                "v": {"family": "vit", "variant": "mini/4", "depth": 2, "width": 48, "mlp_dim": 64},
                "r": {"family": "resnet", "variant": "mini", "units": (1, 1), "widths": (32, 64)},
            },
            "data": {"source": "scenes", "size": 60},
            "analyses": {"cka": {"models": ("v", "r"), "taps": ("block*/out", "stage*/out")}},
            "group": 16,
        }
    )
    for key, value in changes.items():
        config[key] = ConfigDict(value) if isinstance(value, dict) else value
    return config


def test_equals_the_oracle_on_the_taps_themselves(tmp_path):
    """Groups follow the permutation, the tail of 60 = 3 * 16 + 12 has its own weight."""
    config = tiny_config()
    table = vitcnn.analyze(config, tmp_path, progress=False)["cka"]
    source = data.load("scenes", size=60)
    order = data.order(60, 60, 0, 0)
    images = np.stack([source[int(i)]["image"] for i in order])
    layers = {}
    for name, fields in config.models.items():
        fields = dict(fields.items())
        model = vitcnn.load(fields.pop("family"), fields.pop("variant"), **fields)
        _, taps = model.run(model.preprocess(images), ["*/out"])
        layers |= {f"{name}/{tap}": np.asarray(array) for tap, array in taps.items()}
    assert sorted(table.layer_x.values) == sorted(layers) and len(layers) == 4
    for x, y in [("v/block00/out", "r/stage1/unit01/out"), ("v/block00/out", "v/block01/out")]:
        expected = minibatch_cka(layers[x], layers[y], 16)
        assert abs(float(table.cka.sel(layer_x=x, layer_y=y)) - expected) < 1e-6
    record = results.provenance(table)
    assert record["models"]["v"]["family"] == "vit" and record["group"] == 16
    assert record["data"]["size"] == 60 and record["precision"] == "highest"
    run = json.loads((tmp_path / "run.json").read_text())
    assert 0 <= run["waiting"] < 1


def test_jackknife_is_that_of_the_formula(tmp_path):
    """Delete-one-group jackknife of CKA written from its definition, groups of equal size."""
    config = tiny_config(data={"source": "scenes", "size": 64})
    table = vitcnn.analyze(config, tmp_path, progress=False)["cka"]
    source = data.load("scenes", size=64)
    images = np.stack([source[int(i)]["image"] for i in data.order(64, 64, 0, 0)])
    fields = dict(config.models.v.items())
    model = vitcnn.load(fields.pop("family"), fields.pop("variant"), **fields)
    _, taps = model.run(model.preprocess(images), "block*/out")
    x, y = (np.asarray(a) for a in taps.values())
    left_out = []
    for g in range(4):
        keep = np.r_[0 : 16 * g, 16 * g + 16 : 64]
        left_out.append(minibatch_cka(x[keep], y[keep], 16))
    error = np.sqrt(3 / 4 * np.sum((left_out - np.mean(left_out)) ** 2))
    found = table.cka_standard_error.sel(layer_x="v/block00/out", layer_y="v/block01/out")
    assert abs(float(found) - error) < 1e-6 and error > 1e-5


def test_other_analyses_in_the_pass_change_nothing(tmp_path):
    alone = tiny_config()
    joint = tiny_config()
    joint.analyses.accuracy = {"images": 37}
    a = vitcnn.analyze(alone, tmp_path / "a", progress=False)["cka"]
    b = vitcnn.analyze(joint, tmp_path / "b", progress=False)
    np.testing.assert_allclose(a.cka.values, b["cka"].cka.values, atol=1e-6)
    assert int(b["accuracy.v"].images) == 37, "every image counted once, tails included"


def test_accuracy_does_not_depend_on_the_group_and_equals_numpy(tmp_path):
    model = vitcnn.load("vit", "mini/4", depth=1, num_classes=8)
    head = np.random.default_rng(0).normal(size=(96, 8)).astype(np.float32)  # zero at first
    model.variables["params"]["head"]["kernel"] = head
    config = tiny_config(analyses={"accuracy": {}}, models={})
    given = {"models": {"r": model}, "progress": False}
    a = vitcnn.analyze(config, tmp_path / "a", **given)["accuracy.r"]
    config.group = 7
    b = vitcnn.analyze(config, tmp_path / "b", **given)["accuracy.r"]
    source = data.load("scenes", size=60)
    examples = [source[i] for i in range(60)]
    logits, _ = model.run(model.preprocess([e["image"] for e in examples]))
    logits = np.asarray(logits, np.float64)
    labels = np.array([e["label"] for e in examples])
    expected = np.log(np.exp(logits).sum(1)) - logits[np.arange(60), labels]
    top5 = (np.argsort(-logits, 1)[:, :5] == labels[:, None]).any(1)
    for result in (a, b):
        assert int(result.images) == 60
        assert int(result.right) == (logits.argmax(1) == labels).sum()
        assert float(result.top5) == pytest.approx(top5.mean())
        assert float(result.nll) == pytest.approx(expected.mean(), rel=1e-5)


def test_repeats_pool_draws_and_errors_are_those_of_one(tmp_path):
    config = tiny_config()
    config.analyses.cka.images = 32
    one = vitcnn.analyze(config, tmp_path / "one", progress=False)["cka"]
    config.analyses.cka.repeats = 3
    three = vitcnn.analyze(config, tmp_path / "three", progress=False)["cka"]
    assert not np.array_equal(one.cka, three.cka)
    np.testing.assert_array_equal(one.cka_standard_error, three.cka_standard_error)
    source = data.load("scenes", size=60)
    fields = dict(config.models.v.items())
    model = vitcnn.load(fields.pop("family"), fields.pop("variant"), **fields)
    drawn = [data.order(60, 32, 0, r) for r in range(3)]
    images = np.stack([source[int(i)]["image"] for i in np.concatenate(drawn)])
    _, taps = model.run(model.preprocess(images), "block*/out")
    x, y = (np.asarray(a) for a in taps.values())
    found = three.cka.sel(layer_x="v/block00/out", layer_y="v/block01/out")
    assert abs(float(found) - minibatch_cka(x, y, 16)) < 1e-6


def test_a_finished_run_is_read_back_and_another_config_is_refused(tmp_path):
    config = tiny_config()
    first = vitcnn.analyze(config, tmp_path, progress=False)["cka"]
    stamp = (tmp_path / "cka.nc").stat().st_mtime_ns
    again = vitcnn.analyze(config, tmp_path, progress=False)["cka"]
    assert (tmp_path / "cka.nc").stat().st_mtime_ns == stamp
    xarray.testing.assert_identical(first, again)
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["images"] == {"cka": 60} and record["versions"]["jax"]
    config.group = 20
    with pytest.raises(ValueError, match=r"config.group: 16 there, 20 here"):
        vitcnn.analyze(config, tmp_path, progress=False)


def test_a_users_own_network_is_analysed_without_a_file(tmp_path):
    import flax.linen as nn
    import jax
    import jax.numpy as jnp

    class Mine(nn.Module):
        @nn.compact
        def __call__(self, images):
            x = nn.relu(nn.Conv(8, (3, 3), strides=2, name="first")(images))
            x = vitcnn.tap(self, "middle", nn.relu(nn.Conv(8, (3, 3), name="second")(x)))
            return nn.Dense(8, name="head")(x.mean((1, 2)))

    module = Mine()
    variables = module.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    model = vitcnn.Model(module, variables, vitcnn.Preprocess(size=32))
    assert list(model.taps) == ["middle"]
    config = tiny_config(models={})
    config.analyses.cka = ConfigDict({"taps": ("middle",)})
    source = data.load("scenes", size=40)
    result = vitcnn.analyze(config, tmp_path, models={"mine": model}, source=source, progress=False)
    assert abs(float(result["cka"].cka[0, 0]) - 1) < 1e-6


def test_a_nan_layer_is_named_and_the_rest_goes_on(tmp_path):
    import jax

    model = vitcnn.load("vit", "mini/4", depth=2, width=48, mlp_dim=64)
    broken = jax.tree.map(np.array, model.variables)
    block = broken["params"]["Transformer"]["encoderblock_1"]["LayerNorm_2"]
    block["scale"][:] = np.nan
    model.variables = broken
    config = tiny_config(models={}, analyses={"cka": {"taps": ("block*/ln1", "block01/ln2")}})
    with pytest.warns(UserWarning, match="NaN or infinite activations.*: v/block01/ln2$"):
        table = vitcnn.analyze(config, tmp_path, models={"v": model}, progress=False)["cka"]
    assert np.isnan(table.cka.sel(layer_x="v/block01/ln2")).all()
    assert np.isfinite(table.cka.sel(layer_x="v/block00/ln1", layer_y="v/block01/ln1"))
    assert "NaN" in results.provenance(table)["warnings"][0]


def test_tail_of_three_images_is_dropped_for_cka_only(tmp_path):
    config = tiny_config(data={"source": "scenes", "size": 35})
    config.analyses.accuracy = {}
    with pytest.warns(UserWarning, match="cka: the last 3 of 35 images are left out"):
        found = vitcnn.analyze(config, tmp_path, progress=False)
    assert int(found["accuracy.v"].images) == 35


def test_unlabelled_data_leave_out_accuracy_only(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), np.uint8)
    np.savez(tmp_path / "images.npz", image=images)
    path = str(tmp_path / "images.npz")
    config = tiny_config(data={"source": "npz", "path": path, "label": ""})
    config.analyses.accuracy = {}
    with pytest.warns(UserWarning, match="accuracy needs labels"):
        found = vitcnn.analyze(config, tmp_path / "w", progress=False)
    assert list(found) == ["cka"]


class Counting:
    """A source that notes which images are read, and can stop the run."""

    def __init__(self, source, stop_after=None):
        self.source, self.read, self.stop_after = source, [], stop_after
        self.labelled, self.classes = source.labelled, source.classes
        self.provenance, self.digests = source.provenance, source.digests

    def __len__(self):
        return len(self.source)

    def __getitem__(self, i):
        if self.stop_after is not None and len(self.read) >= self.stop_after:
            raise KeyboardInterrupt
        self.read.append(i)
        return self.source[i]


def test_a_resumed_run_reads_only_what_is_left(tmp_path):
    config = tiny_config(models={}, save_every_s=0.0, group=8)
    config.analyses.cka = ConfigDict({"taps": ("block*/out",)})
    models = {"v": vitcnn.load("vit", "mini/4", depth=2, width=48, mlp_dim=64)}
    given = {"models": models, "progress": False}
    whole = Counting(data.load("scenes", size=64))
    expected = vitcnn.analyze(config, tmp_path / "whole", source=whole, **given)["cka"]
    stopped = Counting(whole.source, stop_after=50)
    with pytest.raises(KeyboardInterrupt):
        vitcnn.analyze(config, tmp_path / "parts", source=stopped, **given)
    done = running.groups_saved(tmp_path / "parts" / "sums.0of1.npz")
    assert 0 < done < 8
    rest = Counting(whole.source)
    found = vitcnn.analyze(config, tmp_path / "parts", source=rest, **given)["cka"]
    order = data.order(64, 64, 0, 0)
    assert sorted(rest.read) == sorted(order[8 * done :])
    np.testing.assert_array_equal(found.cka, expected.cka)
    np.testing.assert_array_equal(found.cka_standard_error, expected.cka_standard_error)


def test_a_run_killed_between_its_last_group_and_its_results_goes_on(tmp_path, monkeypatch):
    config = tiny_config(models={}, analyses={"cka": {"taps": ("block*/out",)}})
    models = {"v": vitcnn.load("vit", "mini/4", depth=2, width=48, mlp_dim=64)}
    expected = vitcnn.analyze(config, tmp_path / "whole", models=models, progress=False)["cka"]
    real = results.save

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(results, "save", full)
    with pytest.raises(OSError, match="No space left"):
        vitcnn.analyze(config, tmp_path / "full", models=models, progress=False)
    assert running.groups_saved(tmp_path / "full" / "sums.0of1.npz") == 4
    monkeypatch.setattr(results, "save", real)
    source = Counting(data.load("scenes", size=60))
    found = vitcnn.analyze(config, tmp_path / "full", models=models, source=source, progress=False)
    assert source.read == []
    np.testing.assert_array_equal(found["cka"].cka, expected.cka)


def test_another_network_under_the_same_name_is_refused(tmp_path):
    config = tiny_config(models={}, analyses={"cka": {"taps": ("block*/out",)}})
    a, b = (
        vitcnn.load("vit", "mini/4", depth=2, width=48, mlp_dim=64, seed=seed) for seed in (0, 1)
    )
    a, b = (vitcnn.Model(m.module, m.variables, m.preprocess) for m in (a, b))
    vitcnn.analyze(config, tmp_path, models={"m": a}, progress=False)
    with pytest.raises(ValueError, match=r"models.m.variables_sha256"):
        vitcnn.analyze(config, tmp_path, models={"m": b}, progress=False)


def test_a_model_that_no_analysis_names_is_not_run(tmp_path):
    models = {"v": vitcnn.load("vit", "mini/4", depth=1), "unused": vitcnn.load("vit", "mini/4")}
    models["unused"].forward = None  # would fail
    config = tiny_config(models={})
    config.analyses.cka = ConfigDict({"models": "v", "taps": "block*/out"})
    found = vitcnn.analyze(config, tmp_path, models=models, progress=False)
    assert list(found["cka"].model_x.values) == ["v"]


def test_images_without_a_label_do_not_count(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), np.uint8)

    class Source(list):
        labelled, classes, provenance = True, 8, {"source": "list"}

    source = Source({"image": image, "label": i % 4 - 1} for i, image in enumerate(images))
    model = vitcnn.load("vit", "mini/4", depth=1, num_classes=8)
    head = np.random.default_rng(0).normal(size=(96, 8)).astype(np.float32)
    model.variables["params"]["head"]["kernel"] = head
    config = tiny_config(models={}, analyses={"accuracy": {}}, group=4)
    with pytest.warns(UserWarning, match="accuracy.v: 3 images have no label"):
        found = vitcnn.analyze(
            config, tmp_path, models={"v": model}, source=source, progress=False
        )["accuracy.v"]
    logits, _ = model.run(model.preprocess(images))
    right = np.asarray(logits).argmax(1) == np.arange(12) % 4 - 1
    assert int(found.images) == 9 and int(found.right) == right.sum()


BAD = {
    "group of 3": ({"group": 3}, "at least 4"),
    "group above data": (
        {"group": 61},
        "config.group = 61, but there are only 60 images for the run",
    ),
    "group below the least": (
        {"analyses": {"similarity": {"taps": ("*/out",)}}, "group": 8},
        "config.analyses.similarity needs groups of at least 16 images, but config.group = 8",
    ),
    "too few images": (
        {"analyses": {"similarity": {"taps": ("*/out",), "images": 12}}},
        "at least 16 images, but config.group = 16 and there are 12 images",
    ),
    "too many images": ({"analyses": {"cka": {"images": 61}}}, "have 60 images"),
    "unknown analysis": ({"analyses": {"ckaa": {}}}, "unknown analysis 'ckaa': did you mean 'cka'"),
    "unknown analysis field": ({"analyses": {"cka": {"tap": ()}}}, "did you mean 'taps'"),
    "unknown model of analysis": ({"analyses": {"cka": {"models": ("w",)}}}, "unknown model"),
    "misspelt tap": ({"analyses": {"cka": {"taps": ("block00/atn",)}}}, "'block00/attn'"),
    "unknown source": ({"data": {"source": "scene"}}, "did you mean 'scenes'"),
    "unknown source field": ({"data": {"source": "scenes", "sise": 3}}, "did you mean 'size'"),
    "empty path": ({"data": {"source": "npz", "path": ""}}, "config.data.path is not set"),
    "no source": ({"data": {}}, "config.data.source is not set"),
    "no analyses": ({"analyses": {}}, "config.analyses is empty"),
    "unknown family": ({"models": {"v": {"family": "vitt", "variant": "B/16"}}}, "mean 'vit'"),
    "unknown variant": ({"models": {"v": {"family": "vit", "variant": "B/61"}}}, "'B/16'"),
    "no variant": ({"models": {"v": {"family": "vit"}}}, "config.models.v.variant is not set"),
    "no weights": (
        {"models": {"v": {"family": "vit", "variant": "B/16", "weights": ""}}},
        "config.models.v.weights is empty",
    ),
    "unknown module field": (
        {"models": {"v": {"family": "vit", "variant": "B/16", "widht": 3}}},
        "did you mean 'width'",
    ),
    "too few logits": (
        {
            "models": {"v": {"family": "vit", "variant": "mini/4", "num_classes": 3}},
            "analyses": {"accuracy": {}},
        },
        "the labels have 8 classes",
    ),
    "model twice": ({"analyses": {"cka": {"models": ("v", "v")}}}, "names a model twice"),
    "slash in a name": ({"analyses": {"a/b": {"analysis": "cka"}}}, "'a/b' cannot name"),
    "no repeats": ({"analyses": {"cka": {"repeats": 0}}}, "repeats = 0 must be at least 1"),
    "unknown precision": ({"precision": "hihgest"}, "did you mean 'highest'"),
    "weights from a hub": (
        {"models": {"v": {"family": "vit", "variant": "B/16", "weights": "hf:vit_b16"}}},
        "expected hf:<owner>/<repo>",
    ),
    "sums too large": ({"max_sums_gb": 1e-6}, "more than config.max_sums_gb"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_config_is_named_before_any_work(tmp_path, case):
    changes, message = BAD[case]
    config = tiny_config(**changes)
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        vitcnn.analyze(config, tmp_path, progress=False)


def test_unknown_config_key():
    with pytest.raises(
        ValueError, match="unknown field of the config 'grup': did you mean 'group'"
    ):
        configs.check_measurement({"grup": 3})


def test_workdir_that_cannot_be_written(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(OSError, match="cannot be written"):
        vitcnn.analyze(tiny_config(), blocked / "work", progress=False)


def test_disk_full_while_saving_leaves_the_previous_file(tmp_path, monkeypatch):
    path = tmp_path / "sums.npz"
    with storage.atomic(path) as partial:
        partial.write_bytes(b"before")

    def full(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(progress.np, "savez", full)
    with pytest.raises(OSError, match="No space left"):
        progress.Progress({"cka": 64}, path).save()
    assert path.read_bytes() == b"before" and list(tmp_path.iterdir()) == [path]


def test_sums_of_another_number_of_hosts_is_refused(tmp_path):
    (tmp_path / "sums.0of3.npz").write_bytes(b"")
    with pytest.raises(ValueError, match="another number of hosts"):
        vitcnn.analyze(tiny_config(), tmp_path, progress=False)


def test_no_warnings_for_good_input(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        vitcnn.analyze(tiny_config(), tmp_path, progress=False)
