"""Every published residual network has as many parameters as in timm 1.0.31."""

import functools

import jax
import pytest
from networks import shapes_of

from vitcnn import models
from vitcnn.checkpoints.sidecars import timm
from vitcnn.models import resnet

COUNTS = {  # timm's architecture -> sum(p.numel() for p in timm.create_model(name).parameters())
    "resnet26": 15_995_176,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnet200": 64_673_832,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet10t": 5_435_488,
    "resnet14t": 10_081_632,
    "resnet18d": 11_708_744,
    "resnet26d": 16_014_408,
    "resnet26t": 16_011_872,
    "resnet34d": 21_816_904,
    "resnet50c": 25_576_264,
    "resnet50d": 25_576_264,
    "resnet50s": 25_680_808,
    "resnet50t": 25_573_728,
    "resnet50_gn": 25_557_032,
    "resnet101c": 44_568_392,
    "resnet101d": 44_568_392,
    "resnet101s": 44_672_936,
    "resnet152c": 60_212_040,
    "resnet152d": 60_212_040,
    "resnet152s": 60_316_584,
    "resnet200d": 64_693_064,
    "wide_resnet50_2": 68_883_240,
    "wide_resnet101_2": 126_886_696,
    "resnext50_32x4d": 25_028_904,
    "resnext50d_32x4d": 25_048_136,
    "resnext101_32x4d": 44_177_704,
    "resnext101_32x8d": 88_791_336,
    "resnext101_32x16d": 194_026_792,
    "resnext101_32x32d": 468_530_472,
    "resnext101_64x4d": 83_455_272,
    "ecaresnet26t": 16_011_916,
    "ecaresnet50d": 25_576_350,
    "ecaresnet50t": 25_573_814,
    "ecaresnet101d": 44_568_563,
    "ecaresnet200d": 64_693_400,
    "ecaresnet269d": 102_093_077,
    "ecaresnetlight": 30_162_046,
    "ecaresnext26t_32x4d": 15_406_220,
    "ecaresnext50t_32x4d": 25_045_686,
    "seresnet18": 11_779_624,
    "seresnet34": 21_960_416,
    "seresnet50": 28_088_024,
    "seresnet50t": 28_104_720,
    "seresnet101": 49_326_872,
    "seresnet152": 66_821_848,
    "seresnet152d": 66_841_080,
    "seresnet200d": 71_855_096,
    "seresnet269d": 113_672_760,
    "seresnext26d_32x4d": 16_809_512,
    "seresnext26t_32x4d": 16_806_976,
    "seresnext50_32x4d": 27_559_896,
    "seresnext101_32x4d": 48_955_416,
    "seresnext101_32x8d": 93_569_048,
    "seresnext101d_32x8d": 93_588_280,
    "seresnext101_64x4d": 88_232_984,
    "resnetblur18": 11_689_512,
    "resnetblur50": 25_557_032,
    "resnetblur50d": 25_576_264,
    "resnetblur101d": 44_568_392,
    "resnetaa34d": 21_816_904,
    "resnetaa50": 25_557_032,
    "resnetaa50d": 25_576_264,
    "resnetaa101d": 44_568_392,
    "seresnetaa50d": 28_107_256,
    "seresnextaa101d_32x8d": 93_588_280,
    "seresnextaa201d_32x8d": 149_394_904,
    "resnetrs50": 35_691_912,
    "resnetrs101": 63_618_696,
    "resnetrs152": 86_621_576,
    "resnetrs200": 93_209_992,
    "resnetrs270": 129_861_448,
    "resnetrs350": 163_956_168,
    "resnetrs420": 191_891_656,
    "resnetv2_18": 11_687_720,
    "resnetv2_18d": 11_706_952,
    "resnetv2_34": 21_795_880,
    "resnetv2_34d": 21_815_112,
    "resnetv2_50": 25_549_352,
    "resnetv2_50d": 25_568_584,
    "resnetv2_50t": 25_566_048,
    "resnetv2_50d_gn": 25_568_584,
    "resnetv2_101": 44_541_480,
    "resnetv2_101d": 44_560_712,
    "resnetv2_152": 60_185_128,
    "resnetv2_152d": 60_204_360,
}


def size(shapes):
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


@functools.cache
def sizes(fields):
    """Returns the parameters of a network of two units a stage, and of each of the second units."""
    fields = {**dict(fields), "units": (2, 2, 2, 2), "image_size": 64}
    shapes = shapes_of(resnet.ResNet(**fields))[0]["params"]
    return size(shapes), [size(shapes[f"block{stage}"]["unit2"]) for stage in (1, 2, 3, 4)]


def parameters(variant):
    """Counts the parameters of a variant. All units of a stage but its first have as many."""
    fields = models.variant("resnet", variant)
    units = fields.pop("units")
    total, second = sizes(tuple(sorted(fields.items())))
    return total + sum((count - 2) * each for count, each in zip(units, second, strict=True))


def test_every_architecture_has_a_count_and_a_variant():
    assert COUNTS.keys() == resnet.ARCHITECTURES.keys()
    assert set(resnet.ARCHITECTURES.values()) <= resnet.VARIANTS.keys()


def test_the_table_of_timms_layers_says_the_same():
    """scripts/list_published.py wrote the table from the layers of timm's networks."""
    for name, variant in resnet.ARCHITECTURES.items():
        family, fields = timm.architecture(name)
        network = models.create("resnet", variant)
        own = {field: getattr(network, field) for field in fields}
        assert family == "resnet"
        assert own == {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}, name


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_counts_are_the_published_ones(name):
    assert parameters(resnet.ARCHITECTURES[name]) == COUNTS[name]
