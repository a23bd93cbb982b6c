"""Training: resumes to the same weights, spreads over devices, starts from other weights."""

import json
import pathlib
import socket
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
import running
from tiny_training import assert_same, constant, tiny, validation, weights

import vitcnn
from vitcnn import config as configs
from vitcnn import data, training
from vitcnn.data import resident
from vitcnn.training import loop

ROOT = pathlib.Path(__file__).parents[2]


def tiny_fields():
    return {"num_classes": 8, "depth": 1, "width": 48, "mlp_dim": 64}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("trained")
    config = tiny(evaluations=validation())
    return training.train(config, workdir, progress=False), workdir


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
    assert again.module.depth == 1 and again.module.num_classes == 8
    assert again.provenance["weights"]["sha256"] == model.provenance["weights"]["sha256"]
    with pytest.raises(ValueError, match="holds vit mini/4, not vit B/16"):
        vitcnn.load("vit", "B/16", weights=workdir)


def test_stopped_and_resumed_it_does_the_same_steps(trained, tmp_path, monkeypatch):
    """Stopped in step 6, with the log of step 5 but only the checkpoint of step 4."""
    config = tiny(evaluations=validation(), checkpoint_every=4, log_every=1)
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


def test_images_on_the_devices_give_the_same_bits(tmp_path, monkeypatch):
    """A run is stopped while they are on the host, and goes on with them on the devices."""
    options = {"augment": ("pad_crop(2)", "flip"), "checkpoint_every": 3}
    reads, read = [], resident.read
    monkeypatch.setattr(resident, "read", lambda *a, **k: reads.append(a) or read(*a, **k))
    plain = training.train(tiny(**options, on_device="never"), tmp_path / "a", progress=False)
    real, calls = data.batches, iter(range(5))
    monkeypatch.setattr(
        loop.data,
        "batches",
        lambda *args, **kwargs: ((next(calls), batch)[1] for batch in real(*args, **kwargs)),
    )
    with pytest.raises(RuntimeError):
        training.train(tiny(**options, on_device="never"), tmp_path / "b", progress=False)
    assert not reads
    monkeypatch.setattr(loop.data, "batches", real)
    resumed = training.train(tiny(**options), tmp_path / "b", progress=False)
    assert len(reads) == 1
    assert_same(weights(plain), weights(resumed), rtol=0)
    with pytest.raises(ValueError, match=r"'always': the augmentation 'cutout' runs on the host"):
        changed = tiny(augment=("cutout(4)",), on_device="always")
        training.train(changed, tmp_path / "c", progress=False)


def test_evaluation_smaller_than_a_batch(tmp_path):
    """Three images: too few for a group of HSIC, which an accuracy does not need."""
    config = tiny(evaluations=validation(3), steps=1)
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
    config = tiny(steps=1, batch=12)
    config.model.num_classes = 3
    config.data = class_folders(tmp_path / "train", ("ant", "bee", "cow"))
    test = class_folders(tmp_path / "test", ("cow", "bee"))
    config.evaluations.val = configs.evaluation(data=test)
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
    config.evaluations.val.data = class_folders(tmp_path / "other", ("cow", "bea"))
    with pytest.raises(ValueError, match=r"1 of the 2 classes .*: 'bea'; did you mean 'bee'"):
        training.train(config, tmp_path / "b", progress=False)
    config.model.num_classes = 8
    with pytest.raises(ValueError, match=r"labels have 3 classes but .* has 8 logits; set num_cl"):
        training.train(config, tmp_path / "c", progress=False)


@pytest.mark.slow
def test_four_devices_train_as_one(trained, tmp_path):
    """The same batch over a mesh: the same gradient but for the order of its sum."""
    code = (
        "import sys; sys.path.insert(0, 'tests'); from tiny_training import tiny, validation;"
        "from vitcnn import parallel, training; import jax; assert jax.device_count() == 4;"
        "train = lambda config, name: training.train(config, name, progress=False);"
        f"train(tiny(evaluations=validation()), {str(tmp_path / 'plain')!r});"
        "parallel._WORTH_DIVIDING = 100;"
        f"train(tiny(shard_parameters=True), {str(tmp_path / 'divided')!r})"
    )
    environment = running.environment(devices=4)
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True, timeout=300)
    spread = vitcnn.load("vit", "mini/4", weights=tmp_path / "plain")
    assert_same(weights(trained[0]), weights(spread), atol=2e-4)
    divided = vitcnn.load("vit", "mini/4", weights=tmp_path / "divided")
    assert_same(weights(spread), weights(divided), atol=1e-5)
    one, four = (
        json.loads((path / "run.json").read_text())["accuracy"]
        for path in (trained[1], tmp_path / "plain")
    )
    assert four["nll"] == pytest.approx(one["nll"], abs=1e-4)


@pytest.mark.slow
def test_two_hosts_train_as_one(trained, tmp_path):
    """Parameters are divided over devices that no host has all of; an evaluation gathers them."""
    code = (
        "import sys; sys.path.insert(0, 'tests'); from tiny_training import tiny, validation;"
        "from vitcnn import parallel, training; host = int(sys.argv[2]);"
        "parallel.start(f'localhost:{sys.argv[1]}', 2, host); parallel._WORTH_DIVIDING = 100;"
        "config = tiny(shard_parameters=True, evaluations=validation());"
        f"training.train(config, {str(tmp_path)!r}, progress=False)"
    )
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    environment = running.environment()
    hosts = [
        subprocess.Popen(
            [sys.executable, "-c", code, port, str(i)],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(2)
    ]
    outputs = [host.communicate(timeout=300)[0] for host in hosts]
    assert [host.returncode for host in hosts] == [0, 0], outputs
    spread = vitcnn.load("vit", "mini/4", weights=tmp_path)
    assert_same(weights(trained[0]), weights(spread), atol=2e-4)
    lines = (tmp_path / "evaluations.jsonl").read_text().splitlines()
    assert [json.loads(line)["accuracy/images"] for line in lines] == [40]


def test_training_starts_from_other_weights(trained, tmp_path):
    _, workdir = trained
    alone = vitcnn.load("vit", "mini/4", workdir / "weights.npz", **tiny_fields())
    assert alone.preprocess == vitcnn.Preprocess(size=32), "whole images, as it was trained"
    config = tiny(init_from=str(workdir / "weights.npz"), learning_rate=1e-12, steps=1)
    started = training.train(config, tmp_path, progress=False)
    assert_same(weights(trained[0]), weights(started), atol=1e-6)


def test_batch_norm_statistics_are_trained_and_a_step_traced(tmp_path):
    config = tiny(steps=2, schedule=constant(), profile="2:2")
    config.model = configs.network("resnet", "mini", norm="batch", num_classes=8)
    model = training.train(config, tmp_path, progress=False)
    fresh = vitcnn.load("resnet", "mini", norm="batch", num_classes=8)
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))
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


BAD = {
    "unknown field": ({"stepps": 3}, "unknown field of the config 'stepps': did you mean 'steps'"),
    "no data": ({"data": {}}, "config.data.source is not set"),
    "no family": ({"model": {"variant": "B/16"}}, "config.model.family is not set"),
    "adamw": (
        {"optimizer": {"optimizer": "adamw"}},
        "use 'adam'; config.weight_decay is",
    ),
    "argument": ({"optimizer": {"optimizer": "sgd", "b2": 0.9}}, "unknown field .* 'b2'"),
    "schedule": ({"schedule": {"schedule": "cosin"}}, "did you mean 'cosine'"),
    "negative rate": ({"learning_rate": -0.1}, "learning_rate = -0.1: expected a number from 0"),
    "negative decay": ({"weight_decay": -0.1}, "weight_decay = -0.1: expected a number from 0"),
    "no log": ({"log_every": 0}, "config.log_every = 0: expected a duration"),
    "no checkpoint": ({"checkpoint_every": 0}, "config.checkpoint_every = 0: expected a duration"),
    "compute": ({"compute": "float16"}, "unknown compute 'float16'"),
    "mixing": ({"mixing": {"mixup": -1.0}}, "config.mixing.mixup = -1.0"),
    "on_device": ({"on_device": "yes"}, "unknown on_device 'yes': .*always"),
    "profile": ({"profile": "3"}, "config.profile = '3': expected two steps"),
    "no weights": ({"init_from": ""}, "config.init_from is empty: give the weights"),
    "whole targets": ({"mixing": {"whole_targets": True}}, "whole_targets: expected config.loss"),
    "two starts": ({"init_from": "a", "resume_from": "b"}, "both set"),
    "evaluation": ({"evaluations": {"a": {"data": {}}}}, "config.evaluations.a.data.source is not"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_config_is_named(case):
    changes, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        configs.check_training({**tiny().to_dict(), **changes})


def evaluated(**fields):
    return {"evaluations": validation(8, **fields)}


UNFIT = {
    "no steps": ({"steps": 0}, "config.steps = 0: expected at least one step"),
    "percent": ({"steps": "5%"}, "a percentage is a part of the training"),
    "long warm-up": (
        {"schedule": {"schedule": "cosine", "warmup": 6}},
        "warmup is 6 steps, but the whole training is 6",
    ),
    "accumulate": ({"accumulate": 3}, "batch = 16 is not a multiple of 3: 1 devices times"),
    "repeats": ({"repeats": 3}, "batch = 16 is not a multiple of config.repeats = 3"),
    "few images": (
        {"data": {"source": "scenes", "size": 9}},
        "9 images, fewer than the 16 of one batch",
    ),
    "profile": ({"profile": "5:9"}, "two of the steps 1 to 6"),
    "decay": ({"decay": ("*kernl",)}, "config.decay: '\\*kernl' matches no parameter"),
    "late evaluation": (evaluated(every=(3, 9)), "evaluations.val.every .* only 6 steps"),
    "unit": ({"log_every": "2 epoch s"}, "config.log_every = '2 epoch s'"),
    "unknown network": (
        evaluated(analyses={"a": {"analysis": "accuracy", "models": ("fnal",)}}),
        "unknown model 'fnal' in config.evaluations.val.analyses.a.models: did you mean 'final'",
    ),
}


@pytest.mark.parametrize("case", UNFIT)
def test_what_does_not_fit_is_named_before_any_step(case, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "_fit", lambda *_: pytest.fail("it has begun"))
    changes, message = UNFIT[case]
    with pytest.raises(ValueError, match=message):
        training.train({**tiny().to_dict(), **changes}, tmp_path, progress=False)


def test_data_without_labels_and_another_head_are_named(tmp_path):
    few = tiny()
    few.model.num_classes = 5
    with pytest.raises(ValueError, match=r"the labels have 8 classes but .* has 5 logits"):
        training.train(few, tmp_path / "a", progress=False)
    images = np.zeros((8, 32, 32, 3), np.uint8)
    np.savez(tmp_path / "unlabelled.npz", image=images)
    unlabelled = {"source": "npz", "path": str(tmp_path / "unlabelled.npz"), "label": ""}
    with pytest.raises(ValueError, match="no labels"):
        training.train(tiny(data=unlabelled), tmp_path / "c", progress=False)


def test_a_foreign_folder_is_refused(tmp_path):
    (tmp_path / "weights.npz").write_bytes(b"")
    with pytest.raises(ValueError, match=r"weights.npz lies there without run.json"):
        training.train(tiny(), tmp_path, progress=False)


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
