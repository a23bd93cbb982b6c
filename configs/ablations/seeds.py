"""How much of a measure is the training run? The same training over several seeds.

python scripts/ablate.py --config=configs/ablations/seeds.py:vit,mini --workdir=runs/seeds_vit
python scripts/ablate.py --config=configs/ablations/seeds.py:resnet,mini --workdir=runs/seeds_resnet
python scripts/report.py --workdir=runs/seeds_vit,runs/seeds_resnet

Five seeds of one training are measured with headline measures of the paper, on the same images. The
deviation over seeds, beside the standard error over images, tells how far to trust a figure of a
single network. The first command prints both.

Expected: with mini, the baseline reaches 91%.

Time (2 CPU cores): mini trains 5 networks of each family in a quarter of an hour. imagenet:
ViT-B/32 and ResNet-50 on a TPU slice. Sizes: smallest, mini, cifar10, imagenet; see
vitcnn/config/ablation_sizes.py.
"""

from ml_collections import ConfigDict

from vitcnn.config import ablation_sizes, analysis

OUTPUTS = {"vit": ("block*/out",), "resnet": ("stage*/unit*/out",)}


def get_config(argument: str = "vit,mini") -> ConfigDict:
    """Returns the ablation of a family, "vit" or "resnet", in a size."""
    family, size_name = ablation_sizes.parse(argument, ("vit", "resnet"))
    config, size = ablation_sizes.start("seeds", family, size_name)
    config.seeds = 2 if size_name == "smallest" else 5
    few = {"images": size.few}
    config.analyses.accuracy = analysis("accuracy")
    config.analyses.cka = analysis("cka", taps=OUTPUTS[family], **few)
    pair = {"models": ("model", "other"), "taps": OUTPUTS[family]}
    config.analyses.cka_other = analysis("cka", **pair, **few)
    config.analyses.localization = analysis("localization", max_positions=64, **few)
    config.analyses.decoding = analysis("decoding", taps=OUTPUTS[family], **few)
    config.analyses.skip_ratio = analysis("skip_ratio", **few)
    config.analyses.receptive_field = analysis("receptive_field", channels=16)
    if family == "vit":
        config.analyses.attention_distance = analysis("attention_distance", **few)
    return config
