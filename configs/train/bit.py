"""BiT: pre-activation ResNets, pre-trained as in the BiT paper.

python scripts/train.py --config=configs/train/bit.py:R50x1,i1k --workdir=runs/bit
python scripts/train.py --config=configs/train/bit.py:R50x1,i21k --workdir=runs/bit_i21k \
    --config.data.path=DIR/train --config.evaluations.val.data.path=DIR/val

Recipes, all at 224 pixels and batch 4096:

    VARIANT,i1k   BiT-S: 90 epochs of ImageNet, the rate divided by 10 at 30, 60 and 80
    VARIANT,i21k  BiT-M as in big_vision's bit_i21k.py: 90 epochs, cosine
    VARIANT,jft   BiT-L: 40 epochs of JFT-300M, the rate divided by 10 at 10, 23, 30 and 37

Expected after fine-tuning by the BiT-HyperRule (finetune.py): of R50x1 with ImageNet-21k, 80.68% on
ImageNet and 97.3% on CIFAR-10; the sources report no accuracy before it. ImageNet-21k and JFT are
not in TFDS: these recipes read a folder with a sub-folder for each class or, with data=tfds, a set
that you prepared (--config.data.name=..., --config.evaluations.val.data.name=...); classes=... is
the number of its classes. "smallest" as the last word tries a recipe out in seconds.

Time (an estimate: images x arithmetic of a training step / a quarter of the 989 TFLOP/s of an
H100): R50x1 needs 3 hours on one H100 for ImageNet and 34 hours for ImageNet-21k, with
--config.compute=bfloat16 and 10,000 images a second, when a core decodes about 200.

Weight decay here is decoupled and times the learning rate. The paper's L2 term of 1e-4, which
momentum accumulates, is 1e-4 / (1 - 0.9) = 1e-3; big_vision's 4.8e-4, which is not times the rate
of 0.48, is the same.

Sources: Kolesnikov et al. 2019 (arXiv 1912.11370), section 3; configs/bit_i21k.py of
google-research/big_vision.
"""

from ml_collections import ConfigDict

from vitcnn.config import network, optimizer, recipes, schedule, training


def _bit(variant: str, classes: int) -> ConfigDict:
    config = training()
    config.model = network("bit", variant, num_classes=classes, preprocess=recipes.GOOGLE)
    config.augment = ("inception_crop", "flip")
    config.batch = 4096
    config.optimizer = optimizer("sgd", momentum=0.9)
    config.learning_rate, config.weight_decay = 0.03 * 4096 / 256, 1e-3
    config.clip = 0.0
    return config


def _stairs(config: ConfigDict, epochs: int, boundaries: tuple[int, ...]) -> ConfigDict:
    config.steps = f"{epochs} epochs"
    config.schedule = schedule(
        "stair",
        warmup="5000 steps",
        boundaries=tuple(f"{epoch} epochs" for epoch in boundaries),
        factors=tuple(10.0**-i for i in range(1, len(boundaries) + 1)),
    )
    return config


def i1k(variant: str, data: str = "tfds") -> ConfigDict:
    config = _stairs(_bit(variant, 1000), 90, (30, 60, 80))
    return recipes.set_imagenet(config, data, minival=False)


def i21k(variant: str, classes: int = 21_843, data: str = "folder") -> ConfigDict:
    config = _bit(variant, classes)
    config.optimizer.accumulator_dtype = "bfloat16"
    config.steps = "90 epochs"
    config.schedule = schedule("cosine", warmup="5000 steps")
    config.loss, config.head_bias, config.clip = "sigmoid", -10.0, 1.0
    return recipes.set_own(config, data)


def jft(variant: str, classes: int = 18_291, data: str = "folder") -> ConfigDict:
    config = _stairs(_bit(variant, classes), 40, (10, 23, 30, 37))
    config.loss, config.head_bias = "sigmoid", -10.0
    return recipes.set_own(config, data)


RECIPES = {"i1k": i1k, "i21k": i21k, "jft": jft}


def get_config(argument: str = "R50x1,i1k") -> ConfigDict:
    """Returns the config of "VARIANT,RECIPE", perhaps with ",ARGUMENT=VALUE"."""
    return recipes.build(argument, RECIPES)
