"""Training: resumes to the same weights, spreads over devices, starts from other weights."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import PIL.Image
import pytest

import vitcnn
from vitcnn import config as configs
from vitcnn import data, training
from vitcnn.training import loop, optimizer

ROOT = pathlib.Path(__file__).parents[2]


def tiny(**changes):
    config = configs.training()
    config.model = configs.network("vit", "mini/4", num_classes=8, depth=2, width=48, mlp_dim=64)
    config.data = configs.source("scenes", size=64, texture=1.0)
    config.batch, config.steps, config.warmup, config.log_every = 16, 6, 2, 2
    for name, value in changes.items():
        setattr(config, name, value)
    return config


def tiny_fields():
    return {"num_classes": 8, "depth": 2, "width": 48, "mlp_dim": 64}


def weights(model):
    return {
        jax.tree_util.keystr(k): v for k, v in jax.tree_util.tree_leaves_with_path(model.variables)
    }


def assert_same(a, b, **tolerance):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_allclose(a[name], b[name], err_msg=name, **tolerance)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("trained")
    config = tiny(eval_data={"source": "scenes", "size": 40, "split": "test"})
    return training.train(config, workdir, progress=False), workdir


def test_first_step_is_that_of_the_formula():
    """Softmax cross-entropy, its gradient by finite differences, one SGD step."""
    config = configs.check_training(
        tiny(optimizer="sgd", learning_rate=0.5, warmup=0, steps=100, clip=0.0)
    )
    source = data.load("scenes", size=64, texture=1.0)
    fields = dict(config.model.items())
    model = vitcnn.load(fields.pop("family"), fields.pop("variant"), **fields)
    batch = next(data.batches(source, model.preprocess, 16, 0))
    chain = optimizer.make_optimizer(config)
    params = dict(model.variables)["params"]
    state = loop.TrainState(jnp.zeros((), jnp.int32), params, {}, chain.init(params))
    new, metrics = loop._step(model, chain, config, state, batch)

    images = jnp.asarray(model.preprocess.normalise(batch["images"]))
    forward = jax.jit(lambda params: model.forward({"params": params}, images, ())[0])

    def loss(bias):
        changed = {**params, "head": {**params["head"], "bias": jnp.asarray(bias)}}
        logits = np.asarray(forward(changed), np.float64)
        picked = logits[np.arange(16), batch["label"]]
        return np.mean(np.log(np.exp(logits).sum(1)) - picked)

    assert float(metrics["loss"]) == pytest.approx(loss(params["head"]["bias"]), rel=1e-5)
    gradient = np.array([(loss(h) - loss(-h)) / 0.2 for h in 0.1 * np.eye(8, dtype=np.float32)])
    moved = np.asarray(new.params["head"]["bias"] - params["head"]["bias"])
    np.testing.assert_allclose(moved, -0.5 * gradient, rtol=0.02, atol=1e-4)
    assert int(new.step) == 1


def test_it_learns_and_is_judged_on_other_images(trained):
    model, workdir = trained
    lines = [json.loads(line) for line in (workdir / "train.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6]
    assert lines[-1]["loss"] < lines[0]["loss"] < 2.2
    record = json.loads((workdir / "run.json").read_text())
    assert record["accuracy"]["images"] == 40
    source = data.load("scenes", size=40, split="test")
    logits, _ = model.run(model.preprocess([source[i]["image"] for i in range(40)]))
    right = np.mean(np.asarray(logits).argmax(1) == [source[i]["label"] for i in range(40)])
    assert record["accuracy"]["top1"] == pytest.approx(right)


def test_the_folder_is_weights_that_know_their_network(trained):
    model, workdir = trained
    again = vitcnn.load("vit", "mini/4", weights=workdir)
    assert_same(weights(model), weights(again), rtol=0)
    assert again.module.depth == 2 and again.module.num_classes == 8
    assert again.provenance["weights"]["sha256"] == model.provenance["weights"]["sha256"]
    with pytest.raises(ValueError, match="holds vit mini/4, not vit B/16"):
        vitcnn.load("vit", "B/16", weights=workdir)


def test_stopped_and_resumed_it_does_the_same_steps(trained, tmp_path, monkeypatch):
    """Stopped in step 6, with the log of step 5 but only the checkpoint of step 4."""
    evaluation = {"source": "scenes", "size": 40, "split": "test"}
    config = tiny(eval_data=evaluation, checkpoint_every=4, log_every=1)
    real, calls = data.batches, []

    def failing(*args, **kwargs):
        for k, batch in enumerate(real(*args, **kwargs)):
            if k == 5:
                raise KeyboardInterrupt
            calls.append(k)
            yield batch

    monkeypatch.setattr(loop.data, "batches", failing)
    with pytest.raises(KeyboardInterrupt):
        training.train(config, tmp_path, progress=False)
    sofar = vitcnn.load("vit", "mini/4", tmp_path / "checkpoints")
    assert sofar.provenance["weights"]["path"] == "4"
    monkeypatch.setattr(loop.data, "batches", real)
    resumed = training.train(config, tmp_path, progress=False)
    assert len(calls) == 5
    assert_same(weights(trained[0]), weights(resumed), rtol=0)
    lines = (tmp_path / "train.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4, 5, 6]


def test_evaluation_smaller_than_a_batch(tmp_path):
    """Three images: too few for a group of HSIC, which an accuracy does not need."""
    config = tiny(eval_data={"source": "scenes", "size": 3, "split": "test"}, steps=1, warmup=0)
    training.train(config, tmp_path, progress=False)
    assert json.loads((tmp_path / "run.json").read_text())["accuracy"]["images"] == 3


def class_folders(root, names):
    for name in names:
        (root / name).mkdir(parents=True)
        for i in range(4):
            pixels = np.full((32, 32, 3), 20 * i + len(name), np.uint8)
            PIL.Image.fromarray(pixels).save(root / name / f"{i}.bmp")
    return configs.source("folder", path=str(root))


def test_training_belongs_to_its_images_and_names_its_classes(tmp_path, monkeypatch):
    """The evaluation has two of the three classes, under the numbers of the training images."""
    monkeypatch.setenv("VITCNN_CACHE", str(tmp_path / "cache"))
    config = tiny(steps=1, warmup=0, batch=12)
    config.model.num_classes = 3
    config.data = class_folders(tmp_path / "train", ("ant", "bee", "cow"))
    config.eval_data = class_folders(tmp_path / "test", ("cow", "bee"))
    training.train(config, tmp_path / "run", progress=False)
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert record["data"]["class_names"] == record["model"]["class_names"] == ["ant", "bee", "cow"]
    assert record["accuracy"]["images"] == 8
    model = vitcnn.load("vit", "mini/4", tmp_path / "run")
    tested = data.load("folder", path=str(tmp_path / "test"))
    assert tested.class_names == ["bee", "cow"] and model.check_classes(tested).numbers == (1, 2)
    fresh = vitcnn.load("vit", "mini/4", tmp_path / "run", new_head=True, num_classes=2)
    assert fresh.check_classes(tested).numbers is None
    file = tmp_path / "train/ant/0.bmp"
    PIL.Image.fromarray(np.full((32, 32, 3), 9, np.uint8)).save(file)  # of the same size
    with pytest.raises(ValueError, match=r"holds another run(.|\n)*images_sha256: "):
        training.train(config, tmp_path / "run", progress=False)
    config.eval_data = class_folders(tmp_path / "other", ("cow", "bea"))
    with pytest.raises(ValueError, match=r"1 of the 2 classes .*: 'bea'; did you mean 'bee'"):
        training.train(config, tmp_path / "b", progress=False)
    config.model.num_classes = 8
    with pytest.raises(ValueError, match=r"labels have 3 classes but .* has 8 logits; set num_cl"):
        training.train(config, tmp_path / "c", progress=False)


def test_four_devices_train_as_one(trained, tmp_path):
    """The same batch over a mesh: the same gradient but for the order of its sum."""
    code = (
        "import sys; sys.path.insert(0, 'tests/training'); import test_loop as t;"
        "from vitcnn import training; import jax; assert jax.device_count() == 4;"
        f"training.train(t.tiny(), {str(tmp_path)!r}, progress=False)"
    )
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "4", "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True, timeout=300)
    spread = vitcnn.load("vit", "mini/4", weights=tmp_path)
    assert_same(weights(trained[0]), weights(spread), atol=2e-4)


def test_training_starts_from_other_weights(trained, tmp_path):
    _, workdir = trained
    alone = vitcnn.load("vit", "mini/4", workdir / "weights.npz", **tiny_fields())
    assert alone.preprocess == vitcnn.Preprocess(size=32), "whole images, as it was trained"
    config = tiny(init_from=str(workdir / "weights.npz"), learning_rate=1e-12, steps=1, warmup=0)
    started = training.train(config, tmp_path, progress=False)
    assert_same(weights(trained[0]), weights(started), atol=1e-6)


def test_batch_norm_statistics_are_trained(tmp_path):
    config = tiny(steps=2, warmup=1)
    config.model = {"family": "resnet", "variant": "mini", "norm": "batch", "num_classes": 8}
    model = training.train(config, tmp_path, progress=False)
    fresh = vitcnn.load("resnet", "mini", norm="batch", num_classes=8)
    mean = model.variables["batch_stats"]["bn_root"]["mean"]
    assert np.abs(mean - fresh.variables["batch_stats"]["bn_root"]["mean"]).max() > 1e-3
    assert np.isfinite(mean).all()
    last = vitcnn.load("resnet", "mini", tmp_path / "checkpoints")
    assert last.provenance["weights"]["format"] == "vitcnn"
    assert last.digest() == model.digest() and last.preprocess == model.preprocess
    alone = vitcnn.load("resnet", "mini", tmp_path / "weights.npz", norm="batch", num_classes=8)
    assert alone.preprocess == model.preprocess
    (tmp_path / "checkpoints/2/default/_METADATA").write_text("{")
    with pytest.raises(ValueError, match="checkpoints/2 is damaged"):
        vitcnn.load("resnet", "mini", tmp_path / "checkpoints")


def test_weight_decay_spares_biases_and_norms():
    config = configs.check_training(
        tiny(optimizer_fields={"weight_decay": 0.5}, clip=0.0, warmup=0)
    )
    params = {"kernel": jnp.ones((3, 3)), "bias": jnp.ones(3)}
    chain = optimizer.make_optimizer(config)
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = chain.update(zero, chain.init(params), params)
    new = optax.apply_updates(params, updates)
    np.testing.assert_allclose(new["kernel"], 1 - 0.5 * config.learning_rate, rtol=1e-6)
    np.testing.assert_array_equal(new["bias"], np.ones(3))


BAD = {
    "unknown field": ({"stepps": 3}, "unknown field of the config 'stepps': did you mean 'steps'"),
    "no data": ({"data": {}}, "config.data.source is not set"),
    "no family": ({"model": {"variant": "B/16"}}, "config.model.family is not set"),
    "no steps": ({"steps": 0}, "must be at least 1"),
    "long warm-up": ({"warmup": 6}, "warmup = 6 must be at least 0 and below config.steps = 6"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_config_is_named(case):
    changes, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        configs.check_training({**tiny().to_dict(), **changes})


def test_bad_fits_are_named_before_any_step(tmp_path):
    few = tiny()
    few.model.num_classes = 5
    with pytest.raises(ValueError, match=r"the labels have 8 classes but .* has 5 logits"):
        training.train(few, tmp_path / "a", progress=False)
    with pytest.raises(
        ValueError, match=r"unknown optimizer of optax 'adamW': did you mean .*'adamw'"
    ):
        training.train(tiny(optimizer="adamW"), tmp_path / "b", progress=False)
    images = np.zeros((8, 32, 32, 3), np.uint8)
    np.savez(tmp_path / "unlabelled.npz", image=images)
    unlabelled = {"source": "npz", "path": str(tmp_path / "unlabelled.npz"), "label": ""}
    with pytest.raises(ValueError, match="no labels"):
        training.train(tiny(data=unlabelled), tmp_path / "c", progress=False)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    config = tiny(learning_rate=1e30, warmup=0, clip=0.0, optimizer="sgd")
    with pytest.raises(FloatingPointError, match="lower learning_rate"):
        training.train(config, tmp_path, progress=False)


def test_an_unfinished_folder_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="not a training run"):
        vitcnn.load("vit", "mini/4", weights=tmp_path)
    run = {"model": {"family": "vit", "variant": "mini/4", "fields": {}, "preprocess": {}}}
    (tmp_path / "run.json").write_text(json.dumps(run))
    with pytest.raises(
        FileNotFoundError, match=r"has not finished.*checkpoints for the weights so"
    ):
        vitcnn.load("vit", "mini/4", weights=tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no checkpoint yet"):
        vitcnn.load("vit", "mini/4", weights=tmp_path / "checkpoints")
