"""A small ViT and a small ResNet compared on scenes that neither has seen: the quickstart.

python scripts/analyze.py --config=configs/analyze/scenes.py --workdir=runs/scenes/pair

It takes the networks of configs/train/scenes.py from runs/scenes. Expected: 92% of the images right
for both, claims 1 to 3 hold; under a minute on 2 CPU cores. The argument "smallest" takes
random weights and few images instead, to see that all is well: --config=.../scenes.py:smallest
"""

from ml_collections import ConfigDict

from vitcnn.engine import config as configuration


def get_config(size: str = "full") -> ConfigDict:
    smallest = size == "smallest"
    config = configuration.defaults()
    for name, variant in (("vit", "mini/4"), ("resnet", "mini")):
        model = config.models[name] = ConfigDict()
        model.family = name
        model.variant = variant
        model.num_classes = 8
        model.weights = None if smallest else f"runs/scenes/{name}"
        if smallest:
            model.update({"depth": 2, "width": 48, "mlp_dim": 64} if name == "vit" else {})

    config.data.source = "scenes"
    config.data.split = "test"
    config.data.texture = 0.9
    config.data.arrangement = 0.9
    config.data.noise = 0.2
    config.data.size = 70 if smallest else 2000

    config.analyses.accuracy = configuration.job()
    config.analyses.cka = configuration.job(models=("vit", "resnet"))
    config.group = 8 if smallest else 100
    return config
