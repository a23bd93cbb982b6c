"""A small ViT or ResNet on procedural scenes, for the quickstart.

python scripts/train.py --config=configs/train/scenes.py:vit --workdir=runs/scenes/vit
python scripts/train.py --config=configs/train/scenes.py:resnet --workdir=runs/scenes/resnet

Expected: both reach 92% of 2000 unseen scenes, what the better cue allows (0.9 + 0.1 / 8 = 91% in
the mean), in about a minute each on 2 CPU cores.
"""

from ml_collections import ConfigDict

from vitcnn.config import network, source, training


def get_config(argument: str = "vit") -> ConfigDict:
    """The argument is "vit" or "resnet"; "vit,smallest" is two steps, to see that all is well."""
    name, _, size = argument.partition(",")
    smallest = size == "smallest"
    config = training("adamw", weight_decay=0.05)
    config.model = network(name, {"vit": "mini/4", "resnet": "mini"}[name], num_classes=8)
    # How often the texture and the arrangement tell the class.
    cues = {"texture": 0.9, "arrangement": 0.9, "noise": 0.2}
    config.data = source("scenes", size=20_000, **cues)
    config.eval_data = source("scenes", split="test", size=16 if smallest else 2000, **cues)
    config.batch = 8 if smallest else 128
    config.steps = 2 if smallest else 200
    config.learning_rate = {"vit": 1e-3, "resnet": 3e-3}[name]
    config.warmup = 1 if smallest else 50
    config.checkpoint_every = 50
    return config
