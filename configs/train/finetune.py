"""Fine-tuning of trained networks on other images.

python scripts/train.py --config=configs/train/finetune.py:B/16,cifar10,original \
    --config.init_from=WEIGHTS --workdir=runs/b16_cifar10
python scripts/train.py --config=configs/train/finetune.py:R50x1,pets,hyperrule \
    --config.init_from=WEIGHTS --workdir=runs/bit_pets
python scripts/train.py --config=configs/train/finetune.py:B/16,folder,augreg,classes=5,steps=500 \
    --config.init_from=WEIGHTS --workdir=runs/own \
    --config.data.path=DIR/train --config.evaluations.test.data.path=DIR/test

The words are the variant, the images, and the recipe. WEIGHTS is whatever `vitcnn.load` takes, such
as the workdir of a training. The head is replaced by a new one that starts at 0.

    original      the ViT paper. Expected: B/16 of ImageNet-21k, cifar10 99.0%, cifar100 92.1%
    augreg        vision_transformer's for AugReg: a warm-up of 100 steps, no dropout. Expected on
                  imagenet: L/16 85.6%, B/16 85.5%, S/16 83.7%, B/32 83.6%, S/32 79.6%, Ti/16 78.2%
    transfer      big_vision's, with the best crop and rate for each set of images. Expected of B/32
                  of AugReg: imagenet 83.3%, cifar10 98.6%, cifar100 91.4%, pets 93.8%, flowers
                  99.4%
    hyperrule     BiT-HyperRule, for the family bit. Expected of R50x1 of ImageNet-21k: cifar10
                  97.3%, cifar100 86.5%, imagenet 80.7%
    linear_probe  only the head is trained, on features without dropout; family=resnet, bit or mixer
                  for others than ViTs. No source: the settings are those of `transfer`. For the
                  best linear head, without steps, see the analysis "probe".

Images: imagenet, cifar10, cifar100, pets and flowers of TFDS; or folder, a folder of your own, with
classes=... and steps=...; for hyperrule with images=..., the number of training images, in place of
steps. The rate is always to be swept (--config.learning_rate): the papers took the best of 0.003,
0.01, 0.03 and 0.06 on imagenet, and of 0.001, 0.003, 0.01 and 0.03 on the others. "smallest" as the
last word tries a recipe out in seconds, with random weights.

Time (an estimate: 3.3 times the arithmetic at 224 pixels, at a quarter of the 989 TFLOP/s of an
H100, because it is in float32): on one H100, 10,000 steps of B/16 at 384 pixels take 2 hours, and
500 steps 6 minutes.

Position embeddings are resized linearly, as Google does. A network keeps the dropout of the run
that trained it; weights of other origin have none. Where the sources resize without antialiasing,
this package has it. The rate of hyperrule changes at its boundaries, in BiT's code one step later.

Sources: Dosovitskiy et al. 2020 (arXiv 2010.11929), table 4; configs/common.py and augreg.py of
google-research/vision_transformer; configs/transfer.py of google-research/big_vision;
bit_hyperrule.py of google-research/big_transfer.
"""

import dataclasses

from ml_collections import ConfigDict

from vitcnn import models
from vitcnn.config import mixing, network, optimizer, recipes, schedule, training
from vitcnn.lookup import check_name


@dataclasses.dataclass(frozen=True)
class Images:
    """Images to fine-tune on.

    Attributes:
      name: of the set in TFDS; "" for a folder.
      classes: number of classes.
      count: number of images of the training split.
      side: of the images, in pixels; those of larger sets differ.
      train, minival, test: splits: most training images, the others, and test images.
      steps: number of steps with which the ViT paper fine-tunes.
      transfer: the best (crop, peak of the learning rate) of B/32 in big_vision.
    """

    name: str
    classes: int
    count: int
    side: int = 500
    train: str = "train[:90%]"
    minival: str = "train[90%:]"
    test: str = "test"
    steps: int = 500
    transfer: tuple[str, float] = ("inception", 0.003)


_CIFAR = {"count": 50_000, "side": 32, "train": "train[:98%]", "minival": "train[98%:]"}
IMAGES = {
    "imagenet": Images(
        *("imagenet2012", 1000, 1_281_167),
        train="train[:99%]",
        minival="train[99%:]",
        test="validation",
        steps=20_000,
        transfer=("inception", 0.03),
    ),
    "cifar10": Images("cifar10", 10, **_CIFAR, steps=10_000, transfer=("resmall", 0.003)),
    "cifar100": Images("cifar100", 100, **_CIFAR, steps=10_000, transfer=("resmall", 0.01)),
    "pets": Images("oxford_iiit_pet", 37, 3_680),
    "flowers": Images("oxford_flowers102", 102, 1_020),
}
CROPS = {
    "inception": "inception_crop",
    "resmall": "resize_small_crop(448, interpolation='box')",
    "resize": "resize_crop(448)",
}
# BiT-HyperRule: boundaries of the schedule by number of training images. The first is the end of
# the warm-up, the last the end; at those in between the rate is divided by 10.
HYPERRULE = {
    20_000: (100, 200, 300, 400, 500),
    500_000: (500, 3000, 6000, 9000, 10_000),
    10**12: (500, 6000, 12_000, 18_000, 20_000),
}


def _images(data: str, classes: int = 0, images: int = 0, steps: int = 0) -> Images:
    """Returns the images of a name; the numbers describe a folder, or replace what is usual."""
    check_name("images", data, [*IMAGES, "folder"])
    if data == "folder":
        if not (classes and steps):
            raise ValueError("folder: expected classes=..., the number of classes, and steps=...")
        return Images("", classes, images, steps=steps)
    if classes or images:
        raise ValueError(f"classes and images describe a folder, and {data} has its own")
    return dataclasses.replace(IMAGES[data], steps=steps or IMAGES[data].steps)


def _finetune(family: str, variant: str, images: Images, side: int, **fields) -> ConfigDict:
    config = training()
    config.model = network(
        *(family, variant), num_classes=images.classes, image_size=side, new_head=True, **fields
    )
    config.init_from = ""
    config.optimizer = optimizer("sgd", momentum=0.9)
    config.batch, config.steps = 512, images.steps
    where, splits = "tfds" if images.name else "folder", {"minival": images.minival}
    return recipes.set_images(config, where, images.name, images.train, **splits, test=images.test)


def _google(variant: str, images: Images, crop: str, rate: float, warmup: int, **fields):
    check_name("crop", crop, CROPS)
    fields = {**fields, "pre_logits": 0, "position_resize": "linear"}
    config = _finetune("vit", variant, images, 384, **fields)
    config.augment = (CROPS[crop], "flip")
    config.optimizer.accumulator_dtype = "bfloat16"
    config.learning_rate, config.clip = rate, 1.0
    config.schedule = schedule("cosine", warmup=warmup)
    return config


def _warmup(images: Images) -> int:
    return 500 if images.steps > 500 else 100


def original(
    variant: str,
    data: str,
    classes: int = 0,
    steps: int = 0,
    crop: str = "inception",
) -> ConfigDict:
    images = _images(data, classes, steps=steps)
    config = _google(variant, images, crop, 0.03, _warmup(images), preprocess={"resize": 0})
    config.accumulate = 8
    return config


def augreg(
    variant: str,
    data: str,
    classes: int = 0,
    steps: int = 0,
    crop: str = "inception",
) -> ConfigDict:
    images = _images(data, classes, steps=steps)
    dropped = {"dropout": 0.0, "attention_dropout": 0.0, "stochastic_depth": 0.0}
    config = _google(variant, images, crop, 0.03, 100, preprocess={"resize": 0}, **dropped)
    config.accumulate = 8
    return config


def transfer(
    variant: str, data: str, classes: int = 0, steps: int = 0, crop: str = ""
) -> ConfigDict:
    images = _images(data, classes, steps=steps)
    best_crop, rate = images.transfer
    dropped = {"dropout": 0.0, "attention_dropout": 0.0, "stochastic_depth": 0.0}
    evaluation = {"resize": 448, "interpolation": "box"}
    return _google(
        *(variant, images, crop or best_crop, rate, _warmup(images)),
        preprocess=evaluation,
        **dropped,
    )


def hyperrule(
    variant: str, data: str, classes: int = 0, images: int = 0, side: int = 0
) -> ConfigDict:
    if data == "folder" and not images:
        raise ValueError("folder: expected images=..., the number of training images")
    boundaries = HYPERRULE[min(limit for limit in HYPERRULE if (images or _count(data)) < limit)]
    warmup, *inner, steps = boundaries
    target = _images(data, classes, images, steps)
    resize, crop = (160, 128) if (side or target.side) < 96 else (512, 480)
    config = _finetune("bit", variant, target, crop, preprocess={"resize": 0})
    config.augment = (f"resize_crop({resize})", "flip")
    config.mixing = mixing(mixup=0.1 if target.count >= 20_000 else 0.0, larger_share=False)
    config.learning_rate, config.clip = 0.003, 0.0
    config.schedule = schedule(
        "stair", warmup=warmup, boundaries=tuple(inner), factors=(0.1, 0.01, 0.001)
    )
    return config


def _count(data: str) -> int:
    check_name("images", data, [*IMAGES, "folder"])
    return IMAGES[data].count


def linear_probe(
    variant: str,
    data: str,
    family: str = "vit",
    classes: int = 0,
    steps: int = 0,
) -> ConfigDict:
    images = _images(data, classes, steps=steps)
    if models.variant(family, variant).get("norm") == "batch":
        raise ValueError(
            f"{variant} has BatchNorm, whose running means would change while the rest is frozen"
        )
    config = _finetune(family, variant, images, 224, preprocess={"resize": 256})
    for field in ("dropout", "attention_dropout", "stochastic_depth"):
        if field in config.model:
            config.model[field] = 0.0
    _, config.learning_rate = images.transfer
    config.augment = ("inception_crop", "flip")
    config.schedule = schedule("cosine", warmup=_warmup(images))
    config.multipliers = ("head*=1", "*=0")
    return config


RECIPES = {
    "original": original,
    "augreg": augreg,
    "transfer": transfer,
    "hyperrule": hyperrule,
    "linear_probe": linear_probe,
}


def get_config(argument: str = "B/16,cifar10,augreg") -> ConfigDict:
    """Returns the config of "VARIANT,IMAGES,RECIPE", perhaps with ",ARGUMENT=VALUE"."""
    return recipes.build(argument, RECIPES)
