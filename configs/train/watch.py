"""A small ViT on procedural scenes, watched while it learns: CKA and attention distance by step.

python scripts/train.py --config=configs/train/watch.py --workdir=runs/watch
python scripts/report.py --workdir=runs/watch

Time: about three minutes on 2 CPU cores. Expected: the accuracy is that of configs/train/scenes.py.
The second command draws, over the steps, the CKA of every block with the same block of the network
before the first step and after the last one, and the mean attention distance of every block.

--help after --config=... lists all fields. The argument "smallest" takes two steps only.
"""

from ml_collections import ConfigDict

from vitcnn.config import analysis, evaluation, network, recipes, schedule, source, training

STEPS = (0, 5, 10, 20, 30, 40, 60, 80, 120, 160, 200)
BLOCKS = ("embed", "block*/out")


def _watch() -> ConfigDict:
    config = training()
    config.model = network("vit", "mini/4", num_classes=8)
    cues = {"texture": 0.9, "arrangement": 0.9, "noise": 0.2}
    config.data = source("scenes", size=20_000, **cues)
    config.batch, config.steps = 128, 200
    config.weight_decay = 0.05
    config.schedule = schedule("cosine", warmup=50)
    config.checkpoint_every = 50

    test = source("scenes", split="test", size=512, **cues)
    start = {
        "accuracy": analysis("accuracy"),
        "attention_distance": analysis("attention_distance"),
        "cka": analysis("cka", models=("model", "initial"), taps=BLOCKS),
    }
    config.evaluations.start = evaluation(data=test, every=STEPS, analyses=start)
    end = {"cka": analysis("cka", models=("model", "final"), taps=BLOCKS)}
    config.evaluations.end = evaluation(data=test, every=STEPS, analyses=end)
    return config


def get_config(argument: str = "") -> ConfigDict:
    """Returns the config, or with "smallest" that of a test."""
    return recipes.build(argument, {"watch": _watch})
