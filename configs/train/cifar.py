"""Small networks on CIFAR-10, from scratch.

python scripts/train.py --config=configs/train/cifar.py:resnet20 --workdir=runs/resnet20
python scripts/train.py --config=configs/train/cifar.py:vit --workdir=runs/vit

Recipes, with the accuracy on the test images:

    resnet20          ResNet-20, 0.27 million parameters, 64,000 steps. Expected: 91.25%
    resnet            a ResNet of 1.1 million parameters, 30 epochs. Expected: at least 92%
    vit               a ViT of 1.1 million parameters, 100 epochs. Expected: at least 85%
    7/4,vit_lite      ViT-Lite of 3.7 million parameters, 200 epochs. Expected: 91.4%
    6/4,vit_lite      ViT-Lite of 3.2 million parameters, 200 epochs. Expected: 90.9%

The accuracies of resnet and vit are aims, not measurements; those of ViT-Lite were reached with
AutoAugment, in whose place RandAugment stands here. The images come from TFDS, or with data=npz
from archives (--config.data.path=..., --config.evaluations.test.data.path=...). "smallest" as the
last word tries a recipe out in seconds.

Time (an estimate: images x arithmetic of a training step / 40 GFLOP/s of 2 CPU cores): 13 hours
for resnet20, 9 for resnet, 16 for vit and 107 for 7/4,vit_lite. A GPU takes minutes, and is then
limited by the host, of which a core augments about 3,000 images a second.

Weight decay here is decoupled and times the learning rate: an L2 term of 1e-4, which momentum
accumulates, is 1e-4 / (1 - 0.9) = 1e-3, and 5e-4 is 5e-3. RandAugment is relative to the size of
the images, because Google's has constants in pixels.

Sources: He et al. 2016 (arXiv 1512.03385), section 4.2; Hassani et al. 2021 (arXiv 2104.05704) and
SHI-Labs/Compact-Transformers; the other two are this package's own, from the habits of both.
"""

from ml_collections import ConfigDict

from vitcnn.config import network, optimizer, recipes, schedule, training
from vitcnn.lookup import check_name

# Mean and deviation of the training images.
CIFAR = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.247, 0.2435, 0.2616)}
RANDAUGMENT = "randaugment_relative(layers=2, magnitude=9)"


def _cifar(data: str, family: str, variant: str, **fields) -> ConfigDict:
    config = training()
    config.model = network(family, variant, num_classes=10, preprocess=CIFAR, **fields)
    config.augment = ("pad_crop(4, mode='zero')", "flip")
    config.batch, config.clip = 128, 0.0
    return recipes.set_images(config, data, "cifar10", "train", test="test")


def resnet20(data: str = "tfds") -> ConfigDict:
    config = _cifar(data, "resnet", "20", last_norm_scale=1.0)
    config.optimizer = optimizer("sgd", momentum=0.9)
    config.learning_rate, config.weight_decay = 0.1, 1e-3
    config.schedule = schedule("stair", boundaries=(32_000, 48_000), factors=(0.1, 0.01))
    config.steps = 64_000
    return config


def resnet(data: str = "tfds") -> ConfigDict:
    shape = {"units": (3, 3, 3), "widths": (32, 64, 128), "stem_stride": 1}
    config = _cifar(data, "resnet", "mini", **shape, norm="batch", epsilon=1e-5)
    config.optimizer = optimizer("sgd", momentum=0.9, nesterov=True)
    config.learning_rate, config.weight_decay = 0.1, 5e-3
    config.schedule = schedule("linear", warmup="20%")
    config.steps = "30 epochs"
    return config


def _vit(data: str, **fields) -> ConfigDict:
    config = _cifar(data, "vit", "mini/4", stochastic_depth=0.1, **fields)
    config.augment = (*config.augment, RANDAUGMENT)
    config.label_smoothing = 0.1
    return config


def vit(data: str = "tfds") -> ConfigDict:
    config = _vit(data, width=128, depth=8, mlp_dim=256, heads=4)
    config.learning_rate, config.weight_decay, config.clip = 1e-3, 0.05, 1.0
    config.schedule = schedule("cosine", warmup="10 epochs")
    config.steps = "100 epochs"
    return config


def vit_lite(variant: str, data: str = "tfds") -> ConfigDict:
    check_name("variant of the recipe vit_lite:", variant, ("6/4", "7/4"))
    shape = {"depth": int(variant[0]), "width": 256, "mlp_dim": 512, "heads": 4}
    config = _vit(data, **shape, attention_dropout=0.1, gelu="exact")
    config.learning_rate, config.weight_decay = 5e-4, 3e-2
    config.schedule = schedule("cosine", warmup="5 epochs")
    config.steps = "200 epochs"
    return config


RECIPES = {"resnet20": resnet20, "resnet": resnet, "vit": vit, "vit_lite": vit_lite}


def get_config(argument: str = "resnet20") -> ConfigDict:
    """Returns the config of "RECIPE" or "VARIANT,RECIPE", perhaps with ",data=npz"."""
    return recipes.build(argument, RECIPES)
