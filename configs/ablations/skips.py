"""How much does a network need the skip connections of one block? (paper: Fig. 8, claim 6)

python scripts/ablate.py --config=configs/ablations/skips.py:vit,mini --workdir=runs/skips_vit
python scripts/ablate.py --config=configs/ablations/skips.py:resnet,mini --workdir=runs/skips_resnet
python scripts/report.py --workdir=runs/skips_vit,runs/skips_resnet

Each run trains a network without the skip connections of one block: both of a block of a ViT, the
one of a unit of a ResNet (of a unit that changes the shape it is the projection). All else is that
of the baseline. The last norms of a ResNet start with scale 1 in all runs, the baseline included: a
unit without a skip connection would otherwise have no gradient.

Measured: the accuracy, which the paper saw fall by 4 points for blocks in the middle, and the CKA
of all blocks, which splits into the blocks before and after. Expected: with mini, the baseline
reaches 91%.

Time (2 CPU cores): mini trains 35 networks of each family, 5 seeds of 7 runs; some 1.5 hours for
the ViT and 1 hour for the ResNet. imagenet: ViT-B/32, 13 runs of 3 seeds on a TPU slice. Sizes:
smallest, mini, cifar10, imagenet; see vitcnn/config/ablation_sizes.py.
"""

from ml_collections import ConfigDict

from vitcnn.config import ablation_sizes, analysis

OUTPUTS = {"vit": ("block*/out",), "resnet": ("stage*/unit*/out",)}
BLOCKS = {
    "vit": {"smallest": 1, "mini": 6, "cifar10": 6, "imagenet": 12},
    "resnet": {"smallest": 1, "mini": 6, "cifar10": 9, "imagenet": 16},
}


def get_config(argument: str = "vit,mini") -> ConfigDict:
    """Returns the ablation of a family, "vit" or "resnet", in a size."""
    family, size_name = ablation_sizes.parse(argument, ("vit", "resnet"))
    config, size = ablation_sizes.start("skips", family, size_name)
    for block in range(BLOCKS[family][size_name]):
        name = f"{'block' if family == 'vit' else 'unit'}{block:02d}"
        config.runs[name] = {"model": {"no_skip": (block,)}}
        config.factors[name] = {"block": block}
    config.analyses.accuracy = analysis("accuracy")
    config.analyses.cka = analysis("cka", taps=OUTPUTS[family], images=size.few)
    if size_name == "mini":
        config.seeds = 5
    return config
