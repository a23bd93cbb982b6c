"""A small ViT or ResNet on procedural scenes, for the quickstart.

python scripts/train.py --config=configs/train/scenes.py:vit --workdir=runs/scenes/vit
python scripts/train.py --config=configs/train/scenes.py:resnet --workdir=runs/scenes/resnet

Expected: both reach 92% of 2000 unseen scenes, what the better cue allows (0.9 + 0.1 / 8 = 91% in
the mean), in about a minute each on 2 CPU cores.
"""

from vitcnn import training


def get_config(argument: str = "vit") -> training.ConfigDict:
    """The argument is "vit" or "resnet"; "vit,smallest" is two steps, to see that all is well."""
    network, _, size = argument.partition(",")
    smallest = size == "smallest"
    config = training.defaults()
    config.model.family = network
    config.model.variant = {"vit": "mini/4", "resnet": "mini"}[network]
    config.model.num_classes = 8

    config.data.source = "scenes"
    config.data.size = 20_000
    config.eval_data.source = "scenes"
    for data in (config.data, config.eval_data):
        data.texture = 0.9  # how often the texture tells the class
        data.arrangement = 0.9  # how often the arrangement does
        data.noise = 0.2
    config.eval_data.split = "test"
    config.eval_data.size = 16 if smallest else 2000

    config.batch = 8 if smallest else 128
    config.steps = 2 if smallest else 200
    config.learning_rate = {"vit": 1e-3, "resnet": 3e-3}[network]
    config.optimizer_fields.weight_decay = 0.05
    config.warmup = 1 if smallest else 50
    config.checkpoint_every = 50
    return config
