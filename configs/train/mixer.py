"""MLP-Mixer on ImageNet.

python scripts/train.py --config=configs/train/mixer.py:B/16,i1k --workdir=runs/mixer

The recipe is i1k: 300 epochs, batch 4096. Expected: B/16 76.3%, and 70.5% with epochs=60, of the
validation images at 224 pixels. The source trained B/16 only; Scenic has a rate of 3e-3 up to B and
1e-3 for L and H. data=folder reads a folder in place of TFDS. "smallest" as the last word tries the
recipe out in seconds.

Time (an estimate: 381 million images x 6 x 12.6 GFLOP of multiplications / half of the 989 TFLOP/s
of an H100): 16 hours on one H100 for B/16, if its images come as fast: 6,500 a second, when a core
decodes and augments about 150.

Stochastic depth does not divide what stays by the probability of staying, as in the source. The
schedule ends at 1e-5 of its peak.

Source: configs/mlp_mixer_i1k.py of google-research/big_vision; Tolstikhin et al. 2021
(arXiv 2105.01601). The paper's recipe for ImageNet-21k is missing: its details are uncertain.
"""

from ml_collections import ConfigDict

from vitcnn.config import mixing, network, recipes, schedule, training


def i1k(variant: str, epochs: int = 300, data: str = "tfds") -> ConfigDict:
    config = training()
    config.model = network(
        *("mixer", variant),
        num_classes=1000,
        stochastic_depth=0.1,
        stochastic_depth_rescale=False,
        preprocess=recipes.GOOGLE,
    )
    config.augment = ("inception_crop", "flip", "randaugment(layers=2, magnitude=15)")
    config.mixing = mixing(mixup=0.5)
    config.learning_rate, config.weight_decay = 1e-3, 0.1
    config.schedule = schedule("linear", warmup="10000 steps", end=1e-5)
    config.steps = f"{epochs} epochs"
    config.loss, config.head_bias = "sigmoid", -6.9
    config.batch, config.clip, config.compute = 4096, 1.0, "bfloat16"
    return recipes.set_imagenet(config, data)


def get_config(argument: str = "B/16,i1k") -> ConfigDict:
    """Returns the config of "VARIANT,i1k", perhaps with ",ARGUMENT=VALUE"."""
    return recipes.build(argument, {"i1k": i1k})
