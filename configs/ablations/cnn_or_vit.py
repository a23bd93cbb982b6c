"""When is a CNN the better choice, and when a ViT?

python scripts/ablate.py --config=configs/ablations/cnn_or_vit.py:mini --workdir=runs/cnn_or_vit
python scripts/report.py --workdir=runs/cnn_or_vit

A ViT and a ResNet of about equal operations of training, in the same number of steps, learn from 3,
10, 30 and 100% of the scenes. The class shows in the local texture, in the global arrangement, or
in both.
Each ResNet is compared with the ViT of its images. `locality` is 1 for texture alone, 0.5 for both,
0 for the arrangement alone. Each run is tested on images with both cues, so its accuracy can reach
the strength of the cue that it could learn.

Expected: with mini, the baseline (the ViT, all images, both cues) reaches 91%.

Time (2 CPU cores): mini trains 72 networks, 3 seeds of 24 runs, in 2.5 hours. Sizes: smallest and
mini.
"""

from ml_collections import ConfigDict

from vitcnn.config import ablation_sizes, analysis
from vitcnn.lookup import check_name

FRACTIONS = (0.03, 0.1, 0.3, 1.0)
CUES = {
    "texture": (1.0, {"arrangement": 0.0}),
    "both": (0.5, {}),
    "arrangement": (0.0, {"texture": 0.0}),
}


def get_config(argument: str = "mini") -> ConfigDict:
    """Returns the ablation in a size."""
    (size_name,) = ablation_sizes.parse(argument)
    check_name("size of this ablation, which is on scenes:", size_name, ("smallest", "mini"))
    config, size = ablation_sizes.start("cnn_or_vit", "vit", size_name)
    smallest = size_name == "smallest"
    if not smallest:  # the operations of the ResNet
        config.baseline.model.mlp_dim = 160
    resnet = ablation_sizes.baseline(size, "resnet")
    cnn = {field: resnet[field] for field in ("model", "learning_rate")}
    for family, network in (("vit", {}), ("cnn", cnn)):
        for cue in ("both",) if smallest else CUES:
            locality, fields = CUES[cue]
            for fraction in (0.5, 1.0) if smallest else FRACTIONS:
                twin, run = (f"{f}_{cue}_{round(100 * fraction):03d}" for f in ("vit", family))
                if twin == "vit_both_100":
                    twin = "baseline"
                run = twin if family == "vit" else run
                if run != "baseline":
                    config.runs[run] = {**network, "data": {**fields, "fraction": fraction}}
                if family == "cnn":
                    config.against[run] = twin
                config.factors[run] = {
                    **{"family": family, "locality": locality, "fraction": fraction}
                }
    config.analyses.accuracy = analysis("accuracy")
    return config
