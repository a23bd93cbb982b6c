"""Does a ViT need local attention in its first blocks, or is it only a sign of much data?

python scripts/ablate.py --config=configs/ablations/locality.py:mini --workdir=runs/locality
python scripts/report.py --workdir=runs/locality

With little data, the lowest heads of a ViT do not learn to look locally, and its accuracy is worse
(paper: Fig. 4). Here the attention of the first two blocks is forced to be local, with 10% and 100%
of the images: a patch reads the patches around it only, and not the class token, through which it
would see the whole image. If early locality is a cause, the mask recovers accuracy at 10%.

Expected: with mini, the baseline (free attention, all images) reaches 91%.

Time (2 CPU cores): mini trains 12 networks, 3 seeds of 4 runs, in half an hour. imagenet: ViT-B/32
on a TPU slice. Sizes: smallest, mini, cifar10, imagenet; see vitcnn/config/ablation_sizes.py.
"""

from ml_collections import ConfigDict

from vitcnn.config import ablation_sizes, analysis


def get_config(argument: str = "mini") -> ConfigDict:
    """Returns the ablation in a size."""
    (size_name,) = ablation_sizes.parse(argument)
    config, size = ablation_sizes.start("locality", "vit", size_name)
    fraction = 0.5 if size_name == "smallest" else 0.1
    few, local = {"data": {"fraction": fraction}}, {"model": {"local_blocks": (0, 1)}}
    config.runs.local = local
    config.runs.few = few
    config.runs.few_local = {**few, **local}
    config.against.few_local = "few"
    for run, share, attention in (
        ("baseline", 1.0, "free"),
        ("local", 1.0, "local"),
        ("few", fraction, "free"),
        ("few_local", fraction, "local"),
    ):
        config.factors[run] = {"fraction": share, "attention": attention}
    config.analyses.accuracy = analysis("accuracy")
    config.analyses.attention_distance = analysis("attention_distance", images=size.few)
    return config
