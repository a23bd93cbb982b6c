"""Which blocks does fine-tuning change? (paper: Fig. G.1)

python scripts/ablate.py --config=configs/ablations/finetune.py:mini --workdir=runs/finetune
python scripts/report.py --workdir=runs/finetune

The baseline is trained, and every other run starts from its weights of the same seed, with a new
head, on other images: another noise, the texture alone, the arrangement alone, more classes. It
takes half the steps at a third of the learning rate.

Measured on the images of the baseline: the CKA of every block before and after ("paired"), and with
the baseline of another seed ("other") for comparison. Expected: with mini, the baseline reaches
91%, and upper blocks change most.

Time (2 CPU cores): mini trains 15 networks, 3 seeds of 5 runs, in half an hour. Sizes: smallest and
mini; other images of one's own are set by --config.runs.NAME.data.
"""

from ml_collections import ConfigDict

from vitcnn.config import ablation_sizes, analysis, evaluation
from vitcnn.lookup import check_name

TARGETS = {
    "noise": {"noise": 0.4},
    "texture": {"arrangement": 0.0},
    "arrangement": {"texture": 0.0},
    "classes": {"classes": 16},
}


def get_config(argument: str = "mini") -> ConfigDict:
    """Returns the ablation in a size."""
    (size_name,) = ablation_sizes.parse(argument)
    check_name("size of this ablation, which is on scenes:", size_name, ("smallest", "mini"))
    config, size = ablation_sizes.start("finetune", "vit", size_name)
    config.baseline.evaluations.val = evaluation(data=ablation_sizes.images(size, test=True))
    config.baseline.evaluations.val.group = size.group
    targets = ["classes"] if size_name == "smallest" else list(TARGETS)
    for run in targets:
        config.runs[run] = {
            "evaluations": {"val": {"data": TARGETS[run]}},
            "data": {"seed": 1, **TARGETS[run]},
            "model": {"new_head": True, "num_classes": TARGETS[run].get("classes", size.classes)},
            "learning_rate": config.baseline.learning_rate / 3,
            "steps": size.steps // 2,
            "schedule": {"warmup": size.warmup // 2},
        }
        config.start[run] = "baseline"
        config.factors[run] = {"target": run}
    # Heads of other classes cannot be compared on the images of the baseline.
    config.least_accuracy = 0.0
    few = {"taps": ("block*/out",), "images": size.few}
    for network in ("paired", "other"):
        config.analyses[f"cka_{network}"] = analysis("cka", models=("model", network), **few)
    return config
