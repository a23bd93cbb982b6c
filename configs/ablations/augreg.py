"""Augmentation, regularisation, or more data: which helps a ViT most?

python scripts/ablate.py --config=configs/ablations/augreg.py:mini --workdir=runs/augreg
python scripts/report.py --workdir=runs/augreg

Augmentation (mixup, and random crops of the images after padding), regularisation (dropout and
stochastic depth of 0.1) and 10% or 100% of the images, all combinations. Steiner et al. 2021 (How
to train your ViT, arXiv 2106.10270) found that on small data augmentation helps more than
regularisation. Scenes are not mirrored, because a mirror image has another class.

Expected: with mini, the baseline (neither, all images) reaches 91%.

Time (2 CPU cores): mini trains 24 networks, 3 seeds of 8 runs, in an hour. imagenet: ViT-B/32 on a
TPU slice. Sizes: smallest, mini, cifar10, imagenet; see vitcnn/config/ablation_sizes.py.
"""

from ml_collections import ConfigDict

from vitcnn.config import ablation_sizes, analysis

REGULARISED = {"dropout": 0.1, "stochastic_depth": 0.1}
PLAIN = {"dropout": 0.0, "stochastic_depth": 0.0}
AUGMENT = {
    "cifar10": ("pad_crop(4, mode='zero')", "flip", "randaugment_relative(layers=2, magnitude=9)"),
    "imagenet": ("inception_crop", "flip", "randaugment(layers=2, magnitude=15)"),
}


def get_config(argument: str = "mini") -> ConfigDict:
    """Returns the ablation in a size."""
    (size_name,) = ablation_sizes.parse(argument)
    config, _size = ablation_sizes.start("augreg", "vit", size_name, **PLAIN)
    share = 0.5 if size_name == "smallest" else 0.1
    augment = AUGMENT.get(size_name, ("pad_crop(2, mode='zero')",))
    augmentation = {"augment": augment, "mixing": {"mixup": 0.2}}
    for fraction in (1.0, share):
        for augmented in (0, 1):
            for regularised in (0, 1):
                run = f"{round(100 * fraction):03d}" + "_aug" * augmented + "_reg" * regularised
                run = "baseline" if run == "100" else run
                differences = dict(augmentation) if augmented else {}
                if regularised:
                    differences["model"] = REGULARISED
                if fraction < 1:
                    differences["data"] = {"fraction": fraction}
                    config.against[run] = (
                        "baseline"
                        if run == f"{round(100 * share):03d}"
                        else (f"{round(100 * share):03d}")
                    )
                if run != "baseline":
                    config.runs[run] = differences
                config.factors[run] = {
                    **{"fraction": fraction, "augmentation": augmented},
                    "regularisation": regularised,
                }
    config.analyses.accuracy = analysis("accuracy")
    return config
