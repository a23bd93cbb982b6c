"""What does more data change inside a network? (paper: Figs 4, 12, 13 and C.5, claims 4 and 8)

python scripts/ablate.py --config=configs/ablations/data.py:mini --workdir=runs/data
python scripts/report.py --workdir=runs/data

ViTs of two sizes are trained on 3, 10, 30 and 100% of the images, for the same number of steps with
the same settings. A larger share has all images of a smaller one, and of each class the same share.
Each run is compared with the run of its size on all images, of the same seed ("paired") and of
another seed ("other"). The CKA of two seeds on all images is the ceiling that the paper lacks.

Measured: the accuracy, the attention distance, the CKA of every block, and linear probes of every
block. Expected: with mini, the baseline (the smaller ViT, all images) reaches 91%.

Time (2 CPU cores): mini trains 24 networks, 3 seeds of 8 runs, in 1.5 hours; cifar10 takes 2000
steps a network, in some 8 hours. imagenet: ViT-B/32 and L/16 on a TPU slice, as in the paper, which
has JFT-300M in place of ImageNet. Sizes: smallest, mini, cifar10, imagenet; see
vitcnn/config/ablation_sizes.py.
"""

from ml_collections import ConfigDict

from vitcnn.config import ablation_sizes, analysis

FRACTIONS = (0.03, 0.1, 0.3, 1.0)
NETWORKS = {"small": "vit", "large": "vit_large"}
BLOCKS = ("block*/out",)


def get_config(argument: str = "mini") -> ConfigDict:
    """Returns the ablation in a size."""
    (size_name,) = ablation_sizes.parse(argument)
    config, size = ablation_sizes.start("data", "vit", size_name)
    fractions = (0.5, 1.0) if size_name == "smallest" else FRACTIONS
    for network, which in NETWORKS.items():
        larger = {} if network == "small" else {"model": ablation_sizes.baseline(size, which).model}
        for fraction in reversed(fractions):
            run = f"{network}_{round(100 * fraction):03d}"
            share = {} if fraction == 1 else {"data": {"fraction": fraction}}
            run = run if larger or share else "baseline"
            if run != "baseline":
                config.runs[run] = {**larger, **share}
            if larger:
                config.against[run] = f"{network}_100"
            config.factors[run] = {"fraction": fraction, "network": network}

    config.analyses.accuracy = analysis("accuracy")
    config.analyses.attention_distance = analysis("attention_distance", images=size.few)
    few = {"taps": BLOCKS, "images": size.few}
    for network in ("paired", "other"):
        config.analyses[f"cka_{network}"] = analysis("cka", models=("model", network), **few)
    ablation_sizes.add_probes(config, size, ("class", "spatial"))
    return config
