"""Does a class token keep places apart that averaging mixes? (paper: Figs 10, 11, claim 7)

python scripts/ablate.py --config=configs/ablations/pooling.py:mini --workdir=runs/pooling
python scripts/report.py --workdir=runs/pooling

Twins: a ViT with a class token, and a ViT whose head reads the mean of all tokens (GAP). GAP needs
a lower learning rate (3e-4 where the class token has 8e-4, in the ViT paper), so both are trained
at both rates. The baseline is the class token at its own rate; it is compared with GAP at its own.

Measured: the accuracy, the localization of tokens (CKA with the patches), and the accuracy of
linear probes of single tokens, by block. Expected: with mini, the baseline reaches 91%.

Time (2 CPU cores): mini trains 20 networks, 5 seeds of 4 runs, in an hour. imagenet: ViT-B/32, 4
runs of 3 seeds on a TPU slice. Sizes: smallest, mini, cifar10, imagenet; see
vitcnn/config/ablation_sizes.py.
"""

from ml_collections import ConfigDict

from vitcnn.config import ablation_sizes, analysis

LOWER = 3 / 8  # learning rate of GAP over that of the class token


def get_config(argument: str = "mini") -> ConfigDict:
    """Returns the ablation in a size."""
    (size_name,) = ablation_sizes.parse(argument)
    config, size = ablation_sizes.start("pooling", "vit", size_name)
    rate = config.baseline.learning_rate
    gap = {"model": {"pool": "gap"}}
    config.runs.gap = {**gap, "learning_rate": LOWER * rate}
    config.runs.gap_high_rate = gap
    config.runs.token_low_rate = {"learning_rate": LOWER * rate}
    for run, pool, level in (
        ("baseline", "token", "high"),
        ("gap", "gap", "low"),
        ("gap_high_rate", "gap", "high"),
        ("token_low_rate", "token", "low"),
    ):
        config.factors[run] = {"pool": pool, "rate": level}

    config.analyses.accuracy = analysis("accuracy")
    config.analyses.localization = analysis("localization", images=size.few)
    ablation_sizes.add_probes(config, size, ("spatial", "first", "tokens"))
    if size_name == "mini":
        config.seeds = 5
    return config
