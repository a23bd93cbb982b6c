"""How much of a measure is the training run? The same training over several seeds.

python scripts/ablate.py --config=configs/ablations/seeds.py:mini --workdir=runs/seeds
python scripts/report.py --workdir=runs/seeds

A ViT and a ResNet, five seeds of each, measured with the headline measures of the paper on the same
images. The deviation over seeds, beside the standard error over images, tells how far to trust a
figure of a single network.

Expected: with mini, the baseline (the ViT) reaches 91%.

Time (2 CPU cores): mini trains 10 networks in half an hour. imagenet: ViT-B/32 and ResNet-50 on a
TPU slice. Sizes: smallest, mini, cifar10, imagenet; see vitcnn/config/ablation_sizes.py.
"""

from ml_collections import ConfigDict

from vitcnn.config import ablation_sizes, analysis


def get_config(argument: str = "mini") -> ConfigDict:
    """Returns the ablation in a size."""
    (size_name,) = ablation_sizes.parse(argument)
    config, size = ablation_sizes.start("seeds", "vit", size_name)
    config.seeds = 2 if size_name == "smallest" else 5
    resnet = ablation_sizes.baseline(size, "resnet")
    changed = ("model", "learning_rate", "weight_decay", "optimizer")
    config.runs.resnet = {field: resnet[field] for field in changed}
    config.factors.baseline = {"family": "vit"}
    config.factors.resnet = {"family": "resnet"}

    config.analyses.accuracy = analysis("accuracy")
    return config
