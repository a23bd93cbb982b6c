"""Networks by their usual names."""

import math

import numpy as np
import pytest
from networks import flat, shapes_of

from vitcnn import models
from vitcnn.models import resnet, vit
from vitcnn.numerics import random_weights


def test_create_makes_the_variant_with_the_overrides():
    module = models.create("vit", "L/16", num_classes=10, image_size=(64, 96))
    assert isinstance(module, vit.ViT)
    assert (module.depth, module.heads, module.patch) == (24, 16, 16)
    assert (module.num_classes, module.image_size) == (10, (64, 96))
    module = models.create("resnet", "R152x2")
    assert isinstance(module, resnet.ResNet)
    assert (module.units, module.widths) == ((3, 8, 36, 3), (128, 256, 512, 1024))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_classes": -1}, "num_classes is -1: expected an integer, 0 for no head"),
        ({"num_classes": "10"}, "num_classes is '10': expected an integer"),
        ({"image_size": "224"}, "image_size is '224': expected pixels"),
        ({"image_size": 0}, "image_size is 0: expected pixels"),
        ({"image_size": [32, 32, 3]}, r"image_size is \(32, 32, 3\): expected pixels"),
        ({"pretrained": True}, "unknown field of vit 'pretrained': did you mean 'weights'"),
        ({"img_size": 32}, "unknown field of vit 'img_size': did you mean 'image_size'"),
        ({"embed_dim": 32}, "unknown field of vit 'embed_dim': did you mean 'width'"),
    ],
)
def test_fields_that_no_network_can_have(fields, message):
    with pytest.raises(ValueError, match=message):
        models.create("vit", "mini/4", **fields)


@pytest.mark.parametrize(
    ("family", "variant", "name"),
    [
        ("vit", "B/16", "ViT"),
        ("resnet", "20", "ResNet"),
        ("bit", "R50x1", "BiT"),
        ("mixer", "S/16", "Mixer"),
    ],
)
def test_a_network_is_called_by_its_name(family, variant, name):
    assert type(models.create(family, variant)).__name__ == name


@pytest.mark.parametrize(
    ("family", "variant", "fields"),
    [
        ("vit", "mini/4", {"pre_logits": 300}),
        ("vit", "mini/4", {"distilled": True}),
        ("mixer", "S/32", {"depth": 1}),
        ("resnet", "mini", {}),
        ("bit", "R50x1", {"units": (1,), "widths": (64,)}),
    ],
)
def test_every_head_starts_at_zero(family, variant, fields):
    module = models.create(family, variant, **fields)
    image = np.zeros(shapes_of(module)[1].shape, np.float32)
    init = lambda key: {k: v for k, v in module.init(key, image)["params"].items() if k in LAST}  # noqa: E731
    last = flat(random_weights.draw(init, 0))
    heads = [name for name in last if name.startswith("head")]
    assert len(heads) == (4 if fields.get("distilled") else 2)
    assert not any(np.any(last[name]) for name in heads)
    if "pre_logits" in fields:  # each of its units starts at a deviation near 1
        kernel = last["pre_logits/kernel"]
        assert abs(kernel.std() * math.sqrt(len(kernel)) - 1) < 0.05
        assert not np.any(last["pre_logits/bias"])


LAST = ("head", "head_dist", "pre_logits")


def test_lists_become_tuples_so_that_networks_can_be_compared_and_hashed():
    module = models.create("vit", "mini/4", image_size=[32, 64], no_skip=[1])
    same = models.create("vit", "mini/4", image_size=(32, 64), no_skip=(1,))
    assert module == same and hash(module) == hash(same)


def test_usual_names_are_there():
    assert {"Ti/16", "S/32", "S/16", "B/32", "B/16", "B/8", "L/32", "L/16", "H/14"} <= set(
        vit.VARIANTS
    )
    assert {"R50x1", "R50x2", "R101x1", "R152x1", "R152x2", "50", "101", "152"} <= set(
        resnet.VARIANTS
    )
    assert {"20", "32", "44", "56", "110", "50-keras", "mini"} <= set(resnet.VARIANTS)


@pytest.mark.parametrize(
    ("family", "variant", "overrides", "message"),
    [
        ("vitt", "B/16", {}, "unknown model family 'vitt': did you mean 'vit'"),
        ("images", "B/16", {}, "unknown model family 'images'"),
        ("vit", "B16", {}, "unknown variant of vit 'B16': did you mean 'B/16'"),
        ("resnet", "R50", {}, "unknown variant of resnet 'R50': did you mean .*'R50x1'"),
        ("vit", "B/16", {"classes": 3}, "unknown field of vit 'classes': did you mean 'num_class"),
        ("vit", "B/16", {"parent": None}, "unknown field of vit 'parent'"),
        ("vit", "B/16", {"pre_logits": None}, "pre_logits=None: None is not.*write pre_logits=0,"),
        ("vit", "DINOv2-S/14", {"layer_scale": None}, "write layer_scale=1e-05, which is the def"),
    ],
)
def test_wrong_names_are_answered_with_the_nearest(family, variant, overrides, message):
    with pytest.raises(ValueError, match=message):
        models.create(family, variant, **overrides)
