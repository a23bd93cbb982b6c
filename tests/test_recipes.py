"""Recipes of training against a table of what their sources say, and each of them tried out.

The table is written from papers and configs of the sources, in rates and weight decays times the
rate; it shares no code with the configs.
"""

import dataclasses
import functools
import json
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import running
from marks import slow
from running import load

import vitcnn
from vitcnn import config as configs
from vitcnn import models
from vitcnn.config import recipes
from vitcnn.recipe import durations, losses, optimizers, schedules

pytestmark = pytest.mark.filterwarnings("ignore:the load_module", "ignore:RandAugment of magnitude")

I1K, I1K_99, I21K, JFT = 1_281_167, 1_268_355, 14_197_122, 303_000_000
GOOGLE = ("inception_crop", "flip")
DEIT = (
    *("random_resized_crop(min_area=0.08)", "flip"),
    "randaugment_timm(layers=2, magnitude=9, deviation=0.5)",
)
THREE = ("flip", "three_augment", "color_jitter(strength=0.3)")
CIFAR = ("pad_crop(4, mode='zero')", "flip")
BOTH = {"mixup": 0.8, "cutmix": 1.0, "larger_share": False}
BFLOAT16 = {"mu_dtype": "bfloat16"}


def randaugment(magnitude):
    return (*GOOGLE, f"randaugment(layers=2, magnitude={magnitude})")


@dataclasses.dataclass(frozen=True)
class Row:
    """What the source of a recipe says.

    Attributes:
      images, batch, steps: images of an epoch and of a step, and number of steps.
      rate, warmup: peak of the learning rate, and the steps before it.
      decay: of the rate: "cosine" or "linear" to `end`, or boundaries and factors of stairs.
      end, start: learning rates of the last and the first step.
      weight_decay: times the learning rate.
      kernels: number of decayed parameters; 0 for large networks of a family that others show.
      loss: before the first step, of all classes.
      augment, mixing, smoothing, repeats, model: as in a config.
      optimizer: name and fields.
      clip: 0 for none.
    """

    images: int
    batch: int
    steps: int
    rate: float
    warmup: int
    decay: object
    weight_decay: float
    kernels: int
    loss: float
    augment: tuple = GOOGLE
    mixing: dict = dataclasses.field(default_factory=dict)
    model: dict = dataclasses.field(default_factory=dict)
    optimizer: tuple = ("adam", {})
    end: float = 0.0
    start: float = 0.0
    clip: float = 1.0
    smoothing: float = 0.0
    repeats: int = 1


def row(*values, **fields):
    return Row(*values, **fields)


SGD = ("sgd", {"momentum": 0.9})
SGD16 = ("sgd", {"momentum": 0.9, "accumulator_dtype": "bfloat16"})
DROP = {"dropout": 0.1, "pre_logits": 768}
NOT = {"dropout": 0.0, "stochastic_depth": 0.0}
FINE = {"new_head": True, "image_size": 384}
STAIR_BIT = ((9384, 18_767, 25_023), (0.1, 0.01, 0.001))  # 30, 60 and 80 epochs

TABLE = {
    # Dosovitskiy et al., table 3
    "vit:B/16,i1k": row(
        *(I1K_99, 4096, 92_897, 3e-3, 10_000, "cosine", 0.3, 75, 10.0454), model=DROP
    ),
    "vit:B/16,i1k,epochs=90": row(
        *(I1K_99, 4096, 27_869, 3e-3, 10_000, "cosine", 0.3, 75, 10.0454), model=DROP
    ),
    "vit:B/32,i21k": row(
        *(I21K, 4096, 311_948, 1e-3, 10_000, "linear", 0.03, 75, 10.9917), model=DROP, end=1e-5
    ),
    "vit:L/16,i21k,epochs=30": row(
        *(I21K, 4096, 103_983, 1e-3, 10_000, "linear", 0.03, 0, 10.9917),
        **{"model": {"dropout": 0.1, "pre_logits": 1024}, "end": 1e-5},
    ),
    "vit:B/16,jft": row(*(JFT, 4096, 517_822, 8e-4, 10_000, "linear", 0.1, 75, 10.8304), end=1e-5),
    "vit:L/32,jft": row(*(JFT, 4096, 517_822, 6e-4, 10_000, "linear", 0.1, 0, 10.8304), end=1e-5),
    "vit:L/16,jft,epochs=14": row(
        *(JFT, 4096, 1_035_645, 4e-4, 10_000, "linear", 0.1, 0, 10.8304), end=1e-5
    ),
    "vit:H/14,jft": row(
        *(JFT, 4096, 1_035_645, 3e-4, 10_000, "linear", 0.1, 195, 10.8304), end=1e-5
    ),
    "vit:R50x1,jft": row(*(JFT, 4096, 517_822, 1e-3, 10_000, "linear", 0.1, 54, 10.8304), end=1e-5),
    "vit:R101x1,jft": row(*(JFT, 4096, 517_822, 8e-4, 10_000, "linear", 0.1, 0, 10.8304), end=1e-5),
    "vit:R152x2,jft,classes=100": row(
        *(JFT, 4096, 517_822, 6e-4, 10_000, "linear", 0.1, 0, 10.0045), end=1e-5
    ),
    "vit:B/32,jft_gap": row(
        *(JFT, 4096, 517_822, 3e-4, 10_000, "linear", 0.1, 75, 10.8304),
        **{"model": {"pool": "gap"}, "end": 1e-5},
    ),
    # Steiner et al., and the configs of big_vision
    "vit:B/16,augreg_i1k": row(
        *(I1K_99, 4096, 92_897, 1e-3, 10_000, "cosine", 0.1, 75, 7.9073, randaugment(15)),
        **{"mixing": {"mixup": 0.5}, "model": NOT, "optimizer": ("adam", BFLOAT16)},
    ),
    "vit:Ti/16,augreg_i1k,wd=0.03,dropout=0.1": row(
        *(I1K_99, 4096, 92_897, 1e-3, 10_000, "cosine", 0.03, 75, 7.9073, randaugment(0)),
        model={"dropout": 0.1, "stochastic_depth": 0.1, "pre_logits": 192},
        optimizer=("adam", BFLOAT16),
    ),
    "vit:S/32,augreg_i21k,epochs=30": row(
        *(I21K, 4096, 103_983, 1e-3, 10_000, "cosine", 0.1, 74, 10.9917),
        **{"model": NOT, "optimizer": ("adam", BFLOAT16)},
    ),
    "vit:S/16,augreg_i21k_released": row(
        *(I21K, 4096, 1_039_828, 1e-3, 10_000, "cosine", 0.03, 74, 10.9917, randaugment(0)),
        **{"model": NOT, "optimizer": ("adam", BFLOAT16)},
    ),
    "vit:L/16,augreg_i21k_released": row(
        *(I21K, 4096, 1_039_828, 1e-3, 10_000, "cosine", 0.1, 0, 10.9917, randaugment(20)),
        **{"mixing": {"mixup": 0.5}, "model": NOT, "optimizer": ("adam", BFLOAT16)},
    ),
    # Beyer et al.
    "vit:S/16,better_plain": row(
        *(I1K_99, 1024, 111_477, 1e-3, 10_000, "cosine", 0.1, 75, 6.9078, randaugment(10)),
        mixing={"mixup": 0.2},
        model={"pool": "gap", "positions": "sincos2d", "pre_logits": 384},
        optimizer=("adam", BFLOAT16),
    ),
    "vit:S/16,better_plain,epochs=150,head=linear": row(
        *(I1K_99, 1024, 185_794, 1e-3, 10_000, "cosine", 0.1, 74, 6.9078, randaugment(10)),
        mixing={"mixup": 0.2},
        model={"pool": "gap", "positions": "sincos2d", "pre_logits": 0},
        optimizer=("adam", BFLOAT16),
    ),
    # big_vision: 1.6e-3 not times the rate; Scenic; L2 of 5e-5 with momentum 0.9
    "resnet:R50x1,i1k": row(
        *(I1K_99, 4096, 27_869, 1.6, 1000, "cosine", 1.6e-3 / 1.6, 54, 6.9078), optimizer=SGD16
    ),
    "resnet:R50x1,i1k_scenic": row(
        *(I1K, 1024, 112_603, 0.4, 5000, "cosine", 1e-3, 54, 10.0454), optimizer=SGD, clip=0
    ),
    "resnet:50,batch_norm": row(
        *(I1K, 8192, 14_075, 3.2, 1095, "cosine", 5e-5 / 0.1, 54, 6.9078), optimizer=SGD, clip=0
    ),
    # Kolesnikov et al.: L2 of 1e-4 with momentum 0.9; big_vision: 3e-5 x 16 not times the rate
    "bit:R50x1,i1k": row(
        *(I1K, 4096, 28_151, 0.48, 5000, STAIR_BIT, 1e-4 / 0.1, 54, 6.9078), optimizer=SGD, clip=0
    ),
    "bit:R50x1,i21k": row(
        *(I21K, 4096, 311_948, 0.48, 5000, "cosine", 4.8e-4 / 0.48, 54, 10.9917), optimizer=SGD16
    ),
    "bit:R101x3,jft": row(
        *(JFT, 4096, 2_958_984, 0.48, 5000),
        ((739_746, 1_701_416, 2_219_238, 2_737_061), (0.1, 0.01, 1e-3, 1e-4)),
        *(1e-3, 0, 10.8304),
        **{"optimizer": SGD, "clip": 0},
    ),
    # big_vision
    "mixer:B/16,i1k": row(
        *(I1K_99, 4096, 92_897, 1e-3, 10_000, "linear", 0.1, 50, 7.9073, randaugment(15)),
        mixing={"mixup": 0.5},
        model={"stochastic_depth": 0.1, "stochastic_depth_rescale": False},
        end=1e-8,
    ),
    # Touvron et al. 2020 and 2022; the mean over 1000 classes is a sum here
    "deit:S/16,deit": row(
        *(I1K, 1024, 375_342, 1e-3, 6256, "cosine", 0.05, 74, 6.9078, DEIT),
        **{"mixing": {**BOTH, "erasing": 0.25}, "model": {"stochastic_depth": 0.1}},
        **{"end": 1e-5, "start": 1e-6, "clip": 0, "smoothing": 0.1, "repeats": 3},
    ),
    "deit:B/16,deit_384": row(
        *(I1K, 512, 75_068, 5e-6, 12_511, "cosine", 1e-8, 74, 6.9078, DEIT),
        **{"mixing": {**BOTH, "erasing": 0.25}, "model": {"image_size": 384}},
        **{"end": 5e-6, "start": 1e-6, "clip": 0, "smoothing": 0.1, "repeats": 3},
    ),
    "deit:S/16,deit3_i1k": row(
        *(I1K, 2048, 500_456, 4e-3, 3128, "cosine", 0.05, 74, 1000 * math.log(2)),
        augment=("random_resized_crop(min_area=0.08)", *THREE),
        mixing={**BOTH, "whole_targets": True},
        model={"stochastic_depth": 0.05, "stochastic_depth_rule": "uniform", "image_size": 224},
        optimizer=("lamb", {"eps": 1e-5}),
        **{"end": 1e-5, "start": 1e-6, "clip": 1000, "repeats": 3},
    ),
    "deit:H/14,deit3_i1k": row(
        *(I1K, 2048, 500_456, 3e-3, 3128, "cosine", 0.05, 0, 1000 * math.log(2)),
        augment=("random_resized_crop(min_area=0.08)", *THREE),
        mixing={**BOTH, "whole_targets": True},
        model={"stochastic_depth": 0.6, "layer_scale": 1e-4, "image_size": 154},
        optimizer=("lamb", {"eps": 1e-5}),
        **{"end": 1e-5, "start": 1e-6, "clip": 1000, "repeats": 3},
    ),
    "deit:B/16,deit3_finish": row(
        *(I1K, 512, 50_046, 1e-5, 12_511, "cosine", 0.1, 74, 6.9078, DEIT),
        **{"mixing": BOTH, "model": {"stochastic_depth": 0.2, "image_size": 224}},
        **{"end": 1e-5, "start": 1e-6, "clip": 0, "smoothing": 0.1},
    ),
    "deit:S/16,deit3_384": row(
        *(I1K, 512, 50_046, 1e-5, 12_511, "cosine", 0.1, 74, 6.9078, DEIT),
        **{"mixing": BOTH, "model": {"stochastic_depth": 0.0, "image_size": 384}},
        **{"end": 1e-5, "start": 1e-6, "clip": 0, "smoothing": 0.1},
    ),
    "deit:L/16,deit3_i21k": row(
        *(I21K, 2048, 1_663_725, 1e-3, 34_661, "cosine", 0.02, 0, math.log(21_843)),
        augment=("simple_random_crop(pad=4)", *THREE),
        **{"mixing": {"cutmix": 1.0}, "model": {"stochastic_depth": 0.3, "image_size": 224}},
        **{"optimizer": ("lamb", {"eps": 1e-8}), "end": 1e-5, "start": 1e-6, "smoothing": 0.1},
    ),
    "deit:B/16,deit3_i21k_to_i1k": row(
        *(I1K, 2048, 31_278, 3e-4, 3128, "cosine", 0.02, 74, 6.9078),
        augment=("simple_random_crop(pad=4)", *THREE),
        **{"mixing": {"cutmix": 1.0}, "model": {"stochastic_depth": 0.15, "new_head": True}},
        **{"optimizer": ("lamb", {"eps": 1e-8}), "end": 1e-5, "start": 1e-6, "smoothing": 0.1},
    ),
    # vision_transformer, big_vision, big_transfer
    "finetune:B/16,cifar10,original": row(
        *(49_000, 512, 10_000, 0.03, 500, "cosine", 0, 74, 2.3026), optimizer=SGD16, model=FINE
    ),
    "finetune:B/16,imagenet,original": row(
        *(I1K_99, 512, 20_000, 0.03, 500, "cosine", 0, 74, 6.9078), optimizer=SGD16, model=FINE
    ),
    "finetune:B/16,cifar100,augreg,steps=500": row(
        *(49_000, 512, 500, 0.03, 100, "cosine", 0, 74, 4.6052),
        **{"optimizer": SGD16, "model": {**FINE, **NOT, "position_resize": "linear"}},
    ),
    "finetune:B/32,cifar10,transfer": row(
        *(49_000, 512, 10_000, 0.003, 500, "cosine", 0, 74, 2.3026),
        augment=("resize_small_crop(448, interpolation='box')", "flip"),
        **{"optimizer": SGD16, "model": {**FINE, **NOT}},
    ),
    "finetune:B/32,cifar100,transfer": row(
        *(49_000, 512, 10_000, 0.01, 500, "cosine", 0, 74, 4.6052),
        augment=("resize_small_crop(448, interpolation='box')", "flip"),
        **{"optimizer": SGD16, "model": FINE},
    ),
    "finetune:B/32,flowers,transfer": row(
        *(918, 512, 500, 0.003, 100, "cosine", 0, 74, 4.6250), optimizer=SGD16, model=FINE
    ),
    "finetune:B/32,imagenet,transfer": row(
        *(I1K_99, 512, 20_000, 0.03, 500, "cosine", 0, 74, 6.9078), optimizer=SGD16, model=FINE
    ),
    "finetune:R50x1,pets,hyperrule": row(
        *(3312, 512, 500, 0.003, 100, ((200, 300, 400), (0.1, 0.01, 0.001)), 0, 54, 3.6109),
        augment=("resize_crop(512)", "flip"),
        **{"optimizer": SGD, "model": {"image_size": 480}, "clip": 0},
    ),
    "finetune:R50x1,cifar10,hyperrule": row(
        *(49_000, 512, 10_000, 0.003, 500, ((3000, 6000, 9000), (0.1, 0.01, 0.001)), 0, 54, 2.3026),
        augment=("resize_crop(160)", "flip"),
        mixing={"mixup": 0.1, "larger_share": False},
        **{"optimizer": SGD, "model": {"image_size": 128}, "clip": 0},
    ),
    "finetune:R50x1,imagenet,hyperrule": row(
        *(I1K_99, 512, 20_000, 0.003, 500, ((6000, 12_000, 18_000), (0.1, 0.01, 0.001))),
        *(0, 54, 6.9078),
        augment=("resize_crop(512)", "flip"),
        mixing={"mixup": 0.1, "larger_share": False},
        **{"optimizer": SGD, "model": {"image_size": 480}, "clip": 0},
    ),
    "finetune:S/16,pets,linear_probe": row(
        *(3312, 512, 500, 0.003, 100, "cosine", 0, 74, 3.6109),
        **{"optimizer": SGD, "model": {"image_size": 224, **NOT}},
    ),
    # He et al.: L2 of 1e-4 with momentum 0.9; Hassani et al.; our own
    "cifar:resnet20": row(
        *(50_000, 128, 64_000, 0.1, 0, ((32_000, 48_000), (0.1, 0.01)), 1e-4 / 0.1, 20, 2.3026),
        **{"augment": CIFAR, "optimizer": SGD, "clip": 0, "model": {"last_norm_scale": 1.0}},
    ),
    "cifar:resnet": row(
        *(50_000, 128, 11_719, 0.1, 2344, "linear", 5e-4 / 0.1, 22, 2.3026),
        **{"augment": CIFAR, "optimizer": ("sgd", {"nesterov": True}), "clip": 0},
    ),
    "cifar:vit": row(
        *(50_000, 128, 39_063, 1e-3, 3906, "cosine", 0.05, 50, 2.3026),
        augment=(*CIFAR, "randaugment_relative(layers=2, magnitude=9)"),
        **{"model": {"stochastic_depth": 0.1}, "smoothing": 0.1},
    ),
    "cifar:7/4,vit_lite": row(
        *(50_000, 128, 78_125, 5e-4, 1953, "cosine", 0.03, 44, 2.3026),
        augment=(*CIFAR, "randaugment_relative(layers=2, magnitude=9)"),
        model={"attention_dropout": 0.1, "stochastic_depth": 0.1, "depth": 7, "width": 256},
        **{"clip": 0, "smoothing": 0.1},
    ),
}


@functools.cache
def module(file):
    return load(running.ROOT / f"configs/train/{file}.py")


def config_of(name, more=""):
    file, _, argument = name.partition(":")
    return module(file).get_config(argument + more)


@functools.cache
def checked(name):
    config = config_of(name)
    config.init_from = "random"
    for data in (config.data, *(test.data for test in config.evaluations.values())):
        for field in ("path", "name"):
            if data.get(field) == "":
                data[field] = "given"
    return configs.check_training(config)


@functools.cache
def shapes(fields):
    """Returns the shapes of the parameters of a network with these fields, as pairs."""
    network = models.create(**dict(fields))
    images = jax.ShapeDtypeStruct((1, network.image_size, network.image_size, 3), jnp.float32)
    return jax.eval_shape(network.init, jax.random.key(0), images)["params"]


def params_of(config):
    """Returns the shapes of the parameters of the network of a config."""
    chance = ("dropout", "attention_dropout", "stochastic_depth", "stochastic_depth_rule")
    others = ("preprocess", "new_head", "position_resize", "stochastic_depth_rescale")
    fields = {k: v for k, v in config.model.to_dict().items() if k not in (*chance, *others)}
    return shapes(tuple(sorted({**fields, "num_classes": 7}.items())))


def rates(row, steps):
    """Returns the learning rate of a row at some steps, in float64."""
    steps = np.asarray(steps, np.float64)
    progress = np.clip((steps - row.warmup) / (row.steps - row.warmup), 0, 1)
    if row.decay == "cosine":
        rate = row.end + (row.rate - row.end) * (1 + np.cos(np.pi * progress)) / 2
    elif row.decay == "linear":
        rate = row.rate + (row.end - row.rate) * progress
    else:
        rate = np.full_like(steps, row.rate)
        for boundary, factor in zip(*row.decay, strict=True):
            rate[steps >= boundary] = row.rate * factor
    if row.warmup:
        start = row.start / row.rate
        rate *= start + (1 - start) * np.minimum(1, steps / row.warmup)
    return rate


@pytest.mark.parametrize("name", TABLE)
def test_the_learning_rate_is_that_of_the_source(name):
    row, config = TABLE[name], checked(name)
    resolve = functools.partial(durations.steps, batch=config.batch, images=row.images)
    total = resolve(config.steps)
    assert (config.batch, total) == (row.batch, row.steps)
    resolve = functools.partial(durations.steps, batch=row.batch, images=row.images, total=total)
    schedule = schedules.make(config.schedule, total, lambda text, where: resolve(text))
    at = [0, row.warmup // 2, row.warmup, (row.warmup + total) // 2, total - 1]
    found = config.learning_rate * np.asarray(schedule(np.array(at)), np.float64)
    np.testing.assert_allclose(found, rates(row, at), rtol=1e-5, atol=1e-6 * row.rate)


@pytest.mark.parametrize("name", [name for name in TABLE if TABLE[name].kernels])
def test_what_decays_is_that_of_the_source(name):
    row, config = TABLE[name], checked(name)
    params = params_of(config)
    decayed = optimizers.decayed(params, config.decay)
    assert len(decayed) == row.kernels and set(decayed.values()) == {1.0}
    assert all(path.endswith("/kernel") for path in decayed) and "head/kernel" in decayed
    few = {
        "vit": ("embedding", "Transformer/encoderblock_0/MultiHeadDotProductAttention_1/query"),
        "mixer": ("stem", "MixerBlock_11/token_mixing/Dense_0"),
        "resnet": ("conv_root", "block2/unit1/conv2"),
        "bit": (
            "resnet/root_block/standardized_conv2d",
            "resnet/block1/unit01/a/proj/standardized_conv2d",
        ),
    }
    assert {f"{layer}/kernel" for layer in few[config.model.family]} <= set(decayed)


@pytest.mark.parametrize("name", TABLE)
def test_a_step_is_that_of_the_source(name):
    row, config = TABLE[name], checked(name)
    assert config.augment == row.augment
    assert config.mixing.to_dict() == row.mixing | {
        field: value
        for field, value in config.mixing.items()
        if field not in row.mixing and not value
    }
    assert (config.label_smoothing, config.repeats) == (row.smoothing, row.repeats)
    kind, fields = row.optimizer
    assert config.optimizer.optimizer == kind
    assert {field: config.optimizer.get(field) for field in fields} == pytest.approx(fields)
    assert ("accumulator_dtype" in config.optimizer) == ("accumulator_dtype" in fields)
    assert ("mu_dtype" in config.optimizer) == ("mu_dtype" in fields)
    assert config.clip == row.clip and config.average == 0
    assert config.decay == ("*kernel",)
    assert config.weight_decay == pytest.approx(row.weight_decay, rel=1e-9)
    assert {field: config.model.get(field, "unset") for field in row.model} == row.model


@pytest.mark.parametrize("name", TABLE)
def test_the_first_loss_is_that_of_the_source(name):
    """Of a head whose kernel is 0: all logits are its bias."""
    row, config = TABLE[name], checked(name)
    classes = config.model.num_classes
    targets = losses.targets(jnp.array([3]), classes, config.label_smoothing)
    logits = jnp.full((1, classes), config.head_bias)
    assert float(losses.LOSSES[config.loss](logits, targets)[0]) == pytest.approx(
        row.loss, abs=2e-3
    )


GRID = {
    "none": (None, 0),
    "light1": (0, 0),
    "light2": (10, 0.2),
    "medium1": (15, 0.2),
    "medium2": (15, 0.5),
    "strong1": (20, 0.5),
    "strong2": (20, 0.8),
}


@pytest.mark.parametrize("images", ["i1k", "i21k"])
@pytest.mark.parametrize("level", GRID)
def test_the_grid_of_augreg_is_whole(level, images):
    magnitude, mixup = GRID[level]
    for wd in (0.03, 0.1):
        for dropout in (0.0, 0.1):
            config = config_of(f"vit:B/16,augreg_{images}_{level},wd={wd},dropout={dropout}")
            assert config.augment == (GOOGLE if magnitude is None else randaugment(magnitude))
            assert config.mixing.mixup == mixup and config.weight_decay == wd
            assert config.model.dropout == config.model.stochastic_depth == dropout


@pytest.mark.parametrize(
    ("variant", "level", "wd"),
    [
        ("Ti/16", "none", 0.03),
        ("S/32", "none", 0.1),
        ("S/16", "light1", 0.03),
        ("B/32", "light1", 0.1),
        ("B/16", "medium1", 0.1),
        ("B/8", "medium2", 0.1),
        ("L/16", "strong1", 0.1),
    ],
)
def test_the_recommended_checkpoints_of_augreg(variant, level, wd):
    config = config_of(f"vit:{variant},augreg_i21k_released")
    assert config.to_dict() == config_of(f"vit:{variant},augreg_i21k_{level},wd={wd}").to_dict()


SIZES = {  # resize, crop, and how the short side is resized
    "vit:B/16,i1k": (256, 224, "box"),
    "deit:S/16,deit": (256, 224, "bicubic"),
    "deit:B/16,deit_384": (438, 384, "bicubic"),
    "deit:B/16,deit3_i1k": (192, 192, "bicubic"),
    "finetune:B/16,cifar10,original": (0, 384, None),
    "finetune:B/16,cifar10,transfer": (448, 384, "box"),
    "finetune:R50x1,cifar10,hyperrule": (0, 128, None),
}


@pytest.mark.parametrize("name", SIZES)
def test_an_evaluation_sees_the_pixels_of_the_source(name):
    config = config_of(name)
    side = config.model.image_size or 224
    preprocess = config.model.preprocess
    assert (preprocess.resize, side, preprocess.interpolation) == SIZES[name]


def test_only_the_head_of_a_linear_probe_is_trained():
    config = checked("finetune:S/16,pets,linear_probe")
    params = params_of(config)
    trained = optimizers.trainable(params, config.multipliers)
    flat = jax.tree_util.tree_leaves_with_path(trained)
    paths = {
        jax.tree_util.keystr(path, simple=True, separator="/") for path, moves in flat if moves
    }
    assert paths == {"head/kernel", "head/bias"}


WRONG = {
    "vit:B/16,augreg_i1k_medim2": "unknown recipe 'augreg_i1k_medim2': did you mean 'augreg_i1k_m",
    "vit:augreg_i1k": "'augreg_i1k': expected 'VARIANT,augreg_i1k'",
    "vit:S/16,S/16,better_plain": "expected 'VARIANT,better_plain'",
    "vit:B/17,i1k": "variant of the recipe i1k: 'B/17': did you mean 'B/16'",
    "vit:B/8,augreg_i1k": "unknown variant of the recipe augreg_i1k: 'B/8'",
    "vit:B/16,i1k,epoch=3": "argument of the recipe i1k: 'epoch': did you mean 'epochs'",
    "vit:B/16,i1k,epochs=few": "epochs = 'few': expected a whole number",
    "vit:B/16,i1k,epochs=3,epochs=4": "epochs=... twice",
    "vit:B/16,i1k,smalest": "unknown recipe 'smalest': did you mean 'smallest'",
    "vit:B/16,i1k,smallest,epochs=3": "expected words, then arguments",
    "vit:B/16,i1k,data=disk": "unknown source of images 'disk'",
    "vit:S/16,better_plain,head=mpl": "unknown head 'mpl': did you mean 'mlp'",
    "scenes:smallest": "names no recipe: the choices are 'vit', 'resnet'",
    "watch:smalest": "unknown recipe 'smalest': did you mean 'smallest'",
    "deit:B/16,deit3_384": "variant of the recipe deit3_384: 'B/16'",
    "finetune:B/16,cifar,augreg": "unknown images 'cifar': did you mean 'cifar10'",
    "finetune:B/16,folder,augreg": "expected classes=",
    "finetune:B/16,pets,augreg,classes=3": "pets has its own",
    "finetune:R50x1,folder,hyperrule,classes=3": "expected images=...",
    "finetune:50,pets,linear_probe,family=resnet": "50 has BatchNorm",
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_argument_is_a_sentence(name):
    with pytest.raises(ValueError, match=re.escape(WRONG[name])):
        config_of(name)


def test_images_of_the_user_and_weights_have_to_be_given():
    with pytest.raises(ValueError, match=r"config.data.path is not set"):
        configs.check_training(config_of("vit:B/16,i21k"))
    config = config_of("finetune:B/16,cifar10,augreg")
    with pytest.raises(
        ValueError, match=r"init_from is empty: give the weights .*--config.init_fr"
    ):
        configs.check_training(config)


CHANGED = {"model", "data", "evaluations", "batch", "steps", "accumulate", "init_from", "schedule"}


@pytest.mark.parametrize("name", TABLE)
def test_the_smallest_of_a_recipe_differs_in_size_alone(name):
    config = config_of(name)
    whole = config.to_dict()
    small = recipes.smallest(config).to_dict()
    assert {key for key in whole if whole[key] != small[key]} <= CHANGED
    assert small["steps"] == 2 and small["data"]["source"] == "scenes"
    ramps = {"warmup": 1, "cooldown": 1}
    schedule = {k: ramps.get(k, v) if v else v for k, v in whole["schedule"].items()}
    assert small["schedule"] == schedule
    sizes = {"image_size", "num_classes", "pre_logits", "preprocess", *recipes._TINY["mixer"]}
    sizes |= {*recipes._TINY["vit"], *recipes._TINY["resnet"]}
    changed = {k for k, v in whole["model"].items() if small["model"][k] != v}
    assert changed <= sizes and {"image_size", "num_classes"} <= changed
    configs.check_training(config)


# A few are tried out every time; the others are slow only because they are many.
TRIED = ("finetune:B/16,cifar10,original", "bit:R50x1,i1k")
SLOW = [name for name in TABLE if name not in TRIED]


@pytest.mark.parametrize("name", [*TRIED, *(slow(name) for name in SLOW)])
def test_the_smallest_of_a_recipe_runs(name, tmp_path):
    """Its first loss is that of the loss and the bias of the recipe with 8 classes."""
    config = config_of(name, ",smallest")
    config.log_every = 1
    vitcnn.train(config, tmp_path, progress=False)
    first, last = map(json.loads, (tmp_path / "train.jsonl").read_text().splitlines())
    bias = config.head_bias
    expected = math.log(8)
    if config.loss == "sigmoid":
        expected = 8 * math.log1p(math.exp(bias)) - bias * (1 if bias else 0)
    assert first["loss"] == pytest.approx(expected, abs=2e-3 * abs(expected))
    assert (first["step"], last["step"]) == (1, 2) and last["update_norm"] > 0
