"""ResNets as in the paper, post-activation: GroupNorm with weight standardisation, or BatchNorm.

python scripts/train.py --config=configs/train/resnet.py:R50x1,i1k --workdir=runs/r50x1
python scripts/train.py --config=configs/train/resnet.py:50,batch_norm --workdir=runs/r50

Recipes, all 90 epochs of ImageNet at 224 pixels:

    VARIANT,i1k         big_vision's bit_i1k.py: batch 4096. Its source reports no accuracy.
    VARIANT,i1k_scenic  Scenic's BiTResNet50: batch 1024, sigmoid loss. Expected: R50x1 77.0%
    VARIANT,batch_norm  Scenic's ResNet50: batch 8192. Expected: 50 76.1%

VARIANT is R50x1, R101x1, ... with GroupNorm, and 18, 34, 50, 101 or 152 with BatchNorm; the sources
trained networks of 50 layers only. data=folder reads a folder in place of TFDS. "smallest" as the
last word tries a recipe out in seconds.

Time (an estimate: images x arithmetic of a training step / a quarter of the 989 TFLOP/s of an
H100): R50x1 needs 3 hours on one H100 with --config.compute=bfloat16, if its images come as fast:
10,000 a second, when a core decodes about 200. big_vision's file says 32 minutes on a TPU v3-128.

Weight decay here is decoupled and times the learning rate. big_vision's is not times the learning
rate: 1.6e-3 / 1.6 = 1e-3. Scenic's ResNet50 has an L2 term of 5e-5, which momentum accumulates:
5e-5 / (1 - 0.9) = 5e-4.

Sources: configs/bit_i1k.py of google-research/big_vision; projects/baselines of
google-research/scenic.
"""

from ml_collections import ConfigDict

from vitcnn.config import network, optimizer, recipes, schedule, training
from vitcnn.lookup import check_name
from vitcnn.models.resnet import VARIANTS

GROUP_NORM = [name for name in VARIANTS if name.startswith("R")]
BATCH_NORM = ("18", "34", "50", "101", "152")


def _i1k(variant: str, data: str, preprocess: dict, minival: bool = False) -> ConfigDict:
    config = training()
    config.model = network("resnet", variant, num_classes=1000, preprocess=preprocess)
    config.augment = ("inception_crop", "flip")
    config.optimizer = optimizer("sgd", momentum=0.9)
    config.steps = "90 epochs"
    return recipes.set_imagenet(config, data, minival)


def i1k(variant: str, data: str = "tfds") -> ConfigDict:
    check_name("variant of the recipe i1k:", variant, GROUP_NORM)
    config = _i1k(variant, data, recipes.GOOGLE, minival=True)
    config.optimizer.accumulator_dtype = "bfloat16"
    config.batch, config.learning_rate, config.weight_decay = 4096, 1.6, 1e-3
    config.schedule = schedule("cosine", warmup="1000 steps")
    config.clip = 1.0
    return config


def i1k_scenic(variant: str, data: str = "tfds") -> ConfigDict:
    check_name("variant of the recipe i1k_scenic:", variant, GROUP_NORM)
    config = _i1k(variant, data, recipes.GOOGLE)
    config.batch, config.learning_rate, config.weight_decay = 1024, 0.4, 1e-3
    config.schedule = schedule("cosine", warmup="5000 steps")
    config.loss, config.head_bias, config.clip = "sigmoid", -10.0, 0.0
    return config


def batch_norm(variant: str, data: str = "tfds") -> ConfigDict:
    check_name("variant of the recipe batch_norm:", variant, BATCH_NORM)
    config = _i1k(variant, data, {**recipes.GOOGLE, **recipes.IMAGENET})
    config.batch, config.learning_rate, config.weight_decay = 8192, 3.2, 5e-4
    config.schedule = schedule("cosine", warmup="7 epochs")
    config.clip = 0.0
    return config


RECIPES = {"i1k": i1k, "i1k_scenic": i1k_scenic, "batch_norm": batch_norm}


def get_config(argument: str = "R50x1,i1k") -> ConfigDict:
    """Returns the config of "VARIANT,RECIPE", perhaps with ",data=folder"."""
    return recipes.build(argument, RECIPES)
