"""DeiT and DeiT-III: ViTs on ImageNet alone.

python scripts/train.py --config=configs/train/deit.py:S/16,deit --workdir=runs/deit
python scripts/train.py --config=configs/train/deit.py:B/16,deit3_i1k --workdir=runs/deit3
python scripts/train.py --config=configs/train/deit.py:B/16,deit3_finish \
    --config.init_from=runs/deit3 --workdir=runs/deit3_224

Recipes, with the accuracy on ImageNet's validation images that their sources report:

    VARIANT,deit               300 epochs at 224 pixels. Expected: Ti/16 72.2%, S/16 79.9%, B/16
                               81.8%
    B/16,deit_384              30 more epochs at 384 pixels. Expected: 82.9%
    VARIANT,deit3_i1k          800 epochs: S/16 at 224 pixels, B/16 and L/16 at 192, H/14 at 154.
                               Expected: S/16 81.4%
    VARIANT,deit3_finish       20 more epochs at 224 pixels of B/16, L/16 and H/14. Expected: 83.8%,
                               84.9% and 85.2%
    S/16,deit3_384             20 more epochs at 384 pixels. Expected: 83.4%
    VARIANT,deit3_i21k         240 epochs of ImageNet-21k at 224 pixels, 90 of H/14 at 126
    VARIANT,deit3_i21k_to_i1k  50 epochs of ImageNet from there. Expected: S/16 83.1%, B/16 85.7%,
                               L/16 87.0%, H/14 87.2%

The recipes that go on from a network need its weights, config.init_from. ImageNet-21k is not in
TFDS: deit3_i21k reads a folder with a sub-folder for each class or, with data=tfds, a set that you
prepared; classes=... is the number of its classes. "smallest" as the last word tries a recipe out
in seconds.

Time (an estimate: images x arithmetic of a training step / half of the 989 TFLOP/s of an H100): on
one H100 in bfloat16, deit takes 6 hours for S/16 and 23 for B/16, and deit3_i1k 16 hours for S/16.
Its images must come as fast: 18,000 a second for S/16, when a core decodes and augments about 150.

What differs from the sources on purpose:

- The cosine begins at the end of the warm-up. In timm it begins at the first step, under the
  warm-up, and the rate changes once an epoch.
- DeiT-III's binary cross-entropy is a mean over the classes, and here a sum. Where gradients are so
  many times larger, the norm to which they are clipped (1 in the LAMB of the sources) and the
  epsilon of LAMB (1e-8) have to be as many times larger for the same updates.
- The head starts at 0, and the class token of DeiT-III has a position.
- DeiT's 10 epochs of cool-down are missing: they come after the 300 for which it trains.
- H/14 has 154 and 126 pixels, the multiples of its patches below the 160 and 128 of the commands,
  whose last pixels no patch reads.

Distillation is missing, and so are its variants. config.average = 0.99996 keeps DeiT's average of
the weights; the reported accuracies are those of the weights themselves.

Sources: Touvron et al. 2020 (arXiv 2012.12877) and 2022 (arXiv 2204.07118); main.py, augment.py,
README_deit.md and README_revenge.md of facebookresearch/deit.
"""

from ml_collections import ConfigDict

from vitcnn.config import mixing, network, optimizer, recipes, schedule, training
from vitcnn.lookup import check_name

CROP = "random_resized_crop(min_area=0.08)"
DEIT = (CROP, "flip", "randaugment_timm(layers=2, magnitude=9, deviation=0.5)")
THREE_AUGMENT = ("flip", "three_augment", "color_jitter(strength=0.3)")

# DeiT-III: variant -> (side in pixels, peak of the learning rate, stochastic depth).
DEIT3 = {
    "S/16": (224, 4e-3, 0.05),
    "B/16": (192, 3e-3, 0.2),
    "L/16": (192, 3e-3, 0.45),
    "H/14": (154, 3e-3, 0.6),
}
# Variant -> (side in pixels, epochs, stochastic depth, stochastic depth of the fine-tuning).
DEIT3_I21K = {
    "S/16": (224, 240, 0.05, 0.05),
    "B/16": (224, 240, 0.1, 0.15),
    "L/16": (224, 240, 0.3, 0.4),
    "H/14": (126, 90, 0.5, 0.45),
}
FINISH = {"B/16": 0.2, "L/16": 0.45, "H/14": 0.55}  # variant -> stochastic depth


def _preprocess(side: int, share: float) -> dict:
    """Returns the preprocessing of an evaluation: the centre, this share of the short side."""
    return {"resize": int(side / share), "interpolation": "bicubic", **recipes.IMAGENET}


def _cosine(peak: float, end: float = 1e-5, warmup: str = "5 epochs") -> ConfigDict:
    """Returns a schedule between rates that are not relative to the peak."""
    return schedule("cosine", warmup=warmup, warmup_start=1e-6 / peak, end=end / peak)


def _deit(variant: str, side: int, learning_rate: float, weight_decay: float) -> ConfigDict:
    config = training()
    config.model = network(
        *("vit", f"DeiT-{variant}"),
        num_classes=1000,
        image_size=side,
        stochastic_depth=0.1,
        preprocess=_preprocess(side, 0.875),
    )
    config.augment = DEIT
    config.mixing = mixing(mixup=0.8, cutmix=1.0, larger_share=False, erasing=0.25)
    config.repeats = 3
    config.label_smoothing = 0.1
    config.learning_rate, config.weight_decay = learning_rate, weight_decay
    config.clip, config.compute = 0.0, "bfloat16"
    return config


def deit(variant: str, data: str = "tfds") -> ConfigDict:
    check_name("variant of the recipe deit:", variant, ("Ti/16", "S/16", "B/16"))
    config = _deit(variant, 224, 1e-3, 0.05)
    config.batch, config.steps = 1024, "300 epochs"
    config.schedule = _cosine(1e-3)
    return recipes.set_imagenet(config, data, minival=False)


def deit_384(variant: str, data: str = "tfds") -> ConfigDict:
    check_name("variant of the recipe deit_384:", variant, ("B/16",))
    config = _deit(variant, 384, 5e-6, 1e-8)
    config.batch, config.steps = 512, "30 epochs"
    config.schedule = _cosine(5e-6, end=5e-6)
    config.init_from = ""
    return recipes.set_imagenet(config, data, minival=False)


def _deit3(variant: str, side: int, stochastic_depth: float, classes: int = 1000) -> ConfigDict:
    config = training()
    config.model = network(
        *("vit", variant),
        num_classes=classes,
        image_size=side,
        gelu="exact",
        layer_scale=1e-4,
        stochastic_depth=stochastic_depth,
        stochastic_depth_rule="uniform",
        preprocess=_preprocess(side, 1.0),
    )
    config.compute = "bfloat16"
    return config


def _lamb(config: ConfigDict, learning_rate: float, weight_decay: float, mean_over: int = 1):
    """Sets LAMB for a loss that is the sum over `mean_over` classes, where it was their mean."""
    config.optimizer = optimizer("lamb", eps=1e-8 * mean_over)
    config.clip = 1.0 * mean_over
    config.learning_rate, config.weight_decay = learning_rate, weight_decay
    config.schedule = _cosine(learning_rate)


def deit3_i1k(variant: str, epochs: int = 800, data: str = "tfds") -> ConfigDict:
    check_name("variant of the recipe deit3_i1k:", variant, DEIT3)
    side, learning_rate, stochastic_depth = DEIT3[variant]
    config = _deit3(variant, side, stochastic_depth)
    config.augment = (CROP, *THREE_AUGMENT)
    config.mixing = mixing(mixup=0.8, cutmix=1.0, larger_share=False, whole_targets=True)
    config.repeats = 3
    config.loss, config.batch, config.steps = "sigmoid", 2048, f"{epochs} epochs"
    _lamb(config, learning_rate, 0.05, mean_over=1000)
    return recipes.set_imagenet(config, data, minival=False)


def _finishing(config: ConfigDict, data: str) -> ConfigDict:
    # The command for 384 pixels has colour jitter too, which timm drops beside RandAugment.
    config.augment = DEIT
    config.mixing = mixing(mixup=0.8, cutmix=1.0, larger_share=False)
    config.label_smoothing = 0.1
    config.learning_rate, config.weight_decay, config.clip = 1e-5, 0.1, 0.0
    config.schedule = _cosine(1e-5)
    config.batch, config.steps = 512, "20 epochs"
    config.init_from = ""
    return recipes.set_imagenet(config, data, minival=False)


def deit3_finish(variant: str, data: str = "tfds") -> ConfigDict:
    check_name("variant of the recipe deit3_finish:", variant, FINISH)
    return _finishing(_deit3(variant, 224, FINISH[variant]), data)


def deit3_384(variant: str, data: str = "tfds") -> ConfigDict:
    check_name("variant of the recipe deit3_384:", variant, ("S/16",))
    return _finishing(_deit3(variant, 384, 0.0), data)


def _simple_crop(config: ConfigDict, learning_rate: float, epochs: int) -> ConfigDict:
    config.augment = ("simple_random_crop(pad=4)", *THREE_AUGMENT)
    config.mixing = mixing(cutmix=1.0)
    config.label_smoothing = 0.1
    config.batch, config.steps = 2048, f"{epochs} epochs"
    _lamb(config, learning_rate, 0.02)
    return config


def deit3_i21k(variant: str, classes: int = 21_843, data: str = "folder") -> ConfigDict:
    check_name("variant of the recipe deit3_i21k:", variant, DEIT3_I21K)
    side, epochs, stochastic_depth, _ = DEIT3_I21K[variant]
    config = _simple_crop(_deit3(variant, side, stochastic_depth, classes), 1e-3, epochs)
    return recipes.set_own(config, data)


def deit3_i21k_to_i1k(variant: str, data: str = "tfds") -> ConfigDict:
    check_name("variant of the recipe deit3_i21k_to_i1k:", variant, DEIT3_I21K)
    config = _simple_crop(_deit3(variant, 224, DEIT3_I21K[variant][-1]), 3e-4, 50)
    config.model.new_head = True
    config.init_from = ""
    return recipes.set_imagenet(config, data, minival=False)


RECIPES = {
    "deit": deit,
    "deit_384": deit_384,
    "deit3_i1k": deit3_i1k,
    "deit3_finish": deit3_finish,
    "deit3_384": deit3_384,
    "deit3_i21k": deit3_i21k,
    "deit3_i21k_to_i1k": deit3_i21k_to_i1k,
}


def get_config(argument: str = "S/16,deit") -> ConfigDict:
    """Returns the config of "VARIANT,RECIPE", perhaps with ",ARGUMENT=VALUE"."""
    return recipes.build(argument, RECIPES)
