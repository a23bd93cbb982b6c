"""ViT: pre-training as in the ViT paper, in AugReg, and in "Better plain ViT baselines".

python scripts/train.py --config=configs/train/vit.py:S/16,better_plain --workdir=runs/s16
python scripts/train.py --config=configs/train/vit.py:B/16,augreg_i1k_medium2,wd=0.1,dropout=0.1 \
    --workdir=runs/b16
python scripts/train.py --config=configs/train/vit.py:B/16,i21k --workdir=runs/b16_i21k \
    --config.data.path=DIR/train --config.evaluations.val.data.path=DIR/val

Recipes, with the accuracy on ImageNet's validation images at 224 pixels that their sources report:

    VARIANT,i1k                   300 epochs of ImageNet. Expected: B/16 72.2% (a user's run); with
                                  epochs=90, 73.7% (Scenic's run).
    VARIANT,i21k                  90 epochs of ImageNet-21k (L: also epochs=30)
    VARIANT,jft                   7 epochs of JFT-300M, 14 of H/14 (L/16 and R152x2: also epochs=14)
    B/32,jft_gap                  the same with the mean of all tokens, at its own learning rate
    VARIANT,augreg_i1k            300 epochs at the level that is best on average. Expected: B/16
                                  about 79%; 79.7% with dropout=0.1 (Scenic's run).
    VARIANT,augreg_i1k_LEVEL      a cell of AugReg's grid: LEVEL is none, light1, light2, medium1,
                                  medium2, strong1 or strong2; wd=0.03 or 0.1; dropout=0 or 0.1,
                                  which sets stochastic depth too
    VARIANT,augreg_i21k           300 epochs of ImageNet-21k at the level that is best on average
    VARIANT,augreg_i21k_LEVEL     a cell of the grid; epochs=30 or 300
    VARIANT,augreg_i21k_released  the settings of the checkpoints that AugReg recommends. Expected
                                  after fine-tuning at 384 pixels: B/16 85.5%, S/16 83.7%, L/16
                                  85.6%, B/32 83.6%, S/32 79.6%, Ti/16 78.2%.
    S/16,better_plain             Expected: 76.5%; epochs=150: 78.5%, epochs=300: 80.0%;
                                  head=linear: 76.7% after 90 epochs

Networks of ImageNet-21k and JFT are judged after fine-tuning, see finetune.py. These sets are not
in TFDS: the recipes read a folder with a sub-folder for each class or, with data=tfds, a set that
you prepared (--config.data.name=..., --config.evaluations.val.data.name=...); classes=... is the
number of its classes. Such a source has one label an image, where JFT has several. The recipes of
ImageNet read TFDS, or a folder with data=folder. "smallest" as the last word tries a recipe out in
seconds.

Time (an estimate: images x arithmetic of a training step / half of the 989 TFLOP/s of an H100): on
one H100 in bfloat16, S/16 needs 1.8 hours for 90 epochs of ImageNet, B/32 5.6, B/16 22 and L/16 79
hours for 300, B/16 76 hours for 90 of ImageNet-21k and 126 hours for 7 of JFT. Its images must come
as fast: 18,000 a second for S/16, 4,700 for B/16, when a core decodes and augments about 150. The
memory of a v5e-8 is enough for B/16 with --config.remat=True, and not without it (predicted by
scripts/predict.py, which tells the same of other recipes and slices).

Sources: Dosovitskiy et al. 2020 (arXiv 2010.11929), table 3, and its authors in the issues 2 and 34
of google-research/vision_transformer; Steiner et al. 2021 (arXiv 2106.10270) with the configs
vit_i1k.py and vit_i21k.py of google-research/big_vision; Beyer et al. 2022 (arXiv 2205.01580) with
vit_s16_i1k.py there; google-research/scenic, projects/baselines. The paper does not print the loss,
the bias of the head and the end of the schedule for JFT: they are those of ImageNet-21k. AugReg's
hybrids (R26+S/32 and others) are missing, because the package has no such family, and so are ViTs
with an attention-pooling head (ViT-g/14).
"""

import functools

from ml_collections import ConfigDict

from vitcnn.config import mixing, network, optimizer, recipes, schedule, training
from vitcnn.lookup import check_name
from vitcnn.models import variant as fields_of_variant

# Table 3 of the ViT paper: variant -> (epochs, peak of the learning rate).
JFT = {
    "B/16": (7, 8e-4),
    "B/32": (7, 8e-4),
    "L/16": (7, 4e-4),
    "L/32": (7, 6e-4),
    "H/14": (14, 3e-4),
    "R50x1": (7, 1e-3),
    "R50x2": (7, 1e-3),
    "R101x1": (7, 8e-4),
    "R152x1": (7, 6e-4),
    "R152x2": (7, 6e-4),
}
PAPER = ("B/16", "B/32", "L/16", "L/32")

# AugReg: level -> (layers and magnitude of RandAugment, strength of mixup).
LEVELS = {
    "none": (None, 0.0),
    "light1": ((2, 0), 0.0),  # of magnitude 0, and yet it changes images
    "light2": ((2, 10), 0.2),
    "medium1": ((2, 15), 0.2),
    "medium2": ((2, 15), 0.5),
    "strong1": ((2, 20), 0.5),
    "strong2": ((2, 20), 0.8),
}
# Variant -> the level that is best on average over short and long trainings on i1k and on i21k.
AVERAGE = {
    "Ti/16": {"i1k": "light1", "i21k": "none"},
    "S/32": {"i1k": "medium1", "i21k": "none"},
    "S/16": {"i1k": "medium2", "i21k": "light1"},
    "B/32": {"i1k": "medium2", "i21k": "light2"},
    "B/16": {"i1k": "medium2", "i21k": "light2"},
    "L/16": {"i1k": "medium2", "i21k": "medium2"},
}
# Checkpoints that AugReg recommends: variant -> (level, weight decay).
RELEASED = {
    "Ti/16": ("none", 0.03),
    "S/32": ("none", 0.1),
    "S/16": ("light1", 0.03),
    "B/32": ("light1", 0.1),
    "B/16": ("medium1", 0.1),
    "B/8": ("medium2", 0.1),
    "L/16": ("strong1", 0.1),
}


def _vit(variant: str, *, classes: int = 1000, rep_size: bool = True, **fields) -> ConfigDict:
    """Returns what all recipes share; `rep_size`: a hidden layer in the head, as wide as tokens."""
    config = training()
    pre_logits = fields_of_variant("vit", variant)["width"] if rep_size else 0
    config.model = network(
        *("vit", variant),
        num_classes=classes,
        pre_logits=pre_logits,
        preprocess=recipes.GOOGLE,
        **fields,
    )
    config.augment = ("inception_crop", "flip")
    config.batch, config.clip, config.compute = 4096, 1.0, "bfloat16"
    return config


def _paper(config: ConfigDict, learning_rate: float, weight_decay: float) -> ConfigDict:
    """Sets what table 3 of the ViT paper has for all its trainings."""
    config.learning_rate, config.weight_decay = learning_rate, weight_decay
    config.loss, config.head_bias = "sigmoid", -10.0
    # To an absolute rate of 1e-5, as vision_transformer counts it.
    config.schedule = schedule("linear", warmup="10000 steps", end=1e-5 / learning_rate)
    return config


def i1k(variant: str, epochs: int = 300, data: str = "tfds") -> ConfigDict:
    check_name("variant of the recipe i1k:", variant, PAPER)
    config = _paper(_vit(variant, dropout=0.1), 3e-3, 0.3)
    config.schedule = schedule("cosine", warmup="10000 steps")
    config.steps = f"{epochs} epochs"
    return recipes.set_imagenet(config, data)


def i21k(variant: str, epochs: int = 90, classes: int = 21_843, data: str = "folder") -> ConfigDict:
    check_name("variant of the recipe i21k:", variant, PAPER)
    config = _paper(_vit(variant, classes=classes, dropout=0.1), 1e-3, 0.03)
    config.steps = f"{epochs} epochs"
    return recipes.set_own(config, data)


def jft(variant: str, epochs: int = 0, classes: int = 18_291, data: str = "folder") -> ConfigDict:
    check_name("variant of the recipe jft:", variant, JFT)
    usual_epochs, learning_rate = JFT[variant]
    if variant.startswith("R"):
        config = training()
        config.model = network("resnet", variant, num_classes=classes, preprocess=recipes.GOOGLE)
        config.augment = ("inception_crop", "flip")
        config.batch = 4096
    else:
        config = _vit(variant, classes=classes)
    config = _paper(config, learning_rate, 0.1)
    config.steps = f"{epochs or usual_epochs} epochs"
    return recipes.set_own(config, data)


def jft_gap(variant: str, epochs: int = 0, classes: int = 18_291, data: str = "folder"):
    """At the rate of the class token, 8e-4, the mean of tokens is clearly worse (figure 9)."""
    check_name("variant of the recipe jft_gap:", variant, ("B/32",))
    config = jft(variant, epochs, classes, data)
    config.model.pool = "gap"
    return _paper(config, 3e-4, 0.1)


def _augreg(
    config: ConfigDict, level: str, epochs: int, wd: float, dropout: float, head_bias: float
) -> ConfigDict:
    randaugment, mixup = LEVELS[level]
    if randaugment:
        layers, magnitude = randaugment
        text = f"randaugment(layers={layers}, magnitude={magnitude})"
        config.augment = (*config.augment, text)
    config.mixing = mixing(mixup=mixup)
    config.model.dropout = config.model.stochastic_depth = dropout
    config.optimizer = optimizer("adam", mu_dtype="bfloat16")
    config.learning_rate, config.weight_decay = 1e-3, wd
    config.schedule = schedule("cosine", warmup="10000 steps")
    config.steps = f"{epochs} epochs"
    config.loss, config.head_bias = "sigmoid", head_bias
    return config


def _level(level: str, images: str, variant: str) -> str:
    """Returns a level; "average" is the one that is best on average for a variant."""
    check_name("variant of AugReg:", variant, RELEASED)
    if level != "average":
        return level
    check_name(f"variant of the recipe augreg_{images}:", variant, AVERAGE)
    return AVERAGE[variant][images]


def augreg_i1k(
    level: str,
    variant: str,
    epochs: int = 300,
    wd: float = 0.1,
    dropout: float = 0.0,
    data: str = "tfds",
) -> ConfigDict:
    level = _level(level, "i1k", variant)
    config = _augreg(_vit(variant), level, epochs, wd, dropout, -6.9)
    return recipes.set_imagenet(config, data)


def augreg_i21k(
    level: str,
    variant: str,
    epochs: int = 300,
    wd: float = 0.1,
    dropout: float = 0.0,
    classes: int = 21_843,
    data: str = "folder",
) -> ConfigDict:
    level = _level(level, "i21k", variant)
    # The checkpoints have a class token; the config that big_vision has today takes the mean.
    config = _vit(variant, classes=classes, rep_size=False)
    config = _augreg(config, level, epochs, wd, dropout, -10.0)
    return recipes.set_own(config, data)


def released(variant: str, classes: int = 21_843, data: str = "folder") -> ConfigDict:
    check_name("variant of the recipe augreg_i21k_released:", variant, RELEASED)
    level, wd = RELEASED[variant]
    return augreg_i21k(level, variant, wd=wd, classes=classes, data=data)


def better_plain(
    variant: str, epochs: int = 90, head: str = "mlp", data: str = "tfds"
) -> ConfigDict:
    check_name("head", head, ("mlp", "linear"))
    config = _vit(variant, rep_size=head == "mlp", pool="gap", positions="sincos2d")
    config = _augreg(config, "light2", epochs, wd=0.1, dropout=0.0, head_bias=0.0)
    config.loss, config.batch = "softmax", 1024
    return recipes.set_imagenet(config, data)


RECIPES = {
    "i1k": i1k,
    "i21k": i21k,
    "jft": jft,
    "jft_gap": jft_gap,
    "augreg_i1k": functools.partial(augreg_i1k, "average"),
    "augreg_i21k": functools.partial(augreg_i21k, "average"),
    **{f"augreg_i1k_{level}": functools.partial(augreg_i1k, level) for level in LEVELS},
    **{f"augreg_i21k_{level}": functools.partial(augreg_i21k, level) for level in LEVELS},
    "augreg_i21k_released": released,
    "better_plain": better_plain,
}


def get_config(argument: str = "S/16,better_plain") -> ConfigDict:
    """Returns the config of "VARIANT,RECIPE", perhaps with ",ARGUMENT=VALUE"."""
    return recipes.build(argument, RECIPES)
