"""A small ViT and a small ResNet compared on scenes that neither has seen: the quickstart.

python scripts/analyze.py --config=configs/analyze/scenes.py --workdir=runs/scenes/pair

Time: one or two minutes on 2 CPU cores. Expected: 92% of the images right for both networks; claims
1 to 3 hold. What the layers know of the images is measured too: the texture, the arrangement of the
discs, the class, and where the discs are. The weights are those that configs/train/scenes.py leaves
in runs/scenes.

--help after --config=... lists all fields. The argument "smallest", as in
--config=configs/analyze/scenes.py:smallest, takes random weights and few images instead, to check
that everything runs.
"""

from ml_collections import ConfigDict

from vitcnn.config import analysis, measurement, model, source


def get_config(size: str = "full") -> ConfigDict:
    smallest = size == "smallest"
    config = measurement()
    small = {"depth": 2, "width": 48, "mlp_dim": 64} if smallest else {}
    for name, variant, fields in (("vit", "mini/4", small), ("resnet", "mini", {})):
        weights = "random" if smallest else f"runs/scenes/{name}"
        config.models[name] = model(name, variant, num_classes=8, weights=weights, **fields)
    config.data = source(
        "scenes",
        split="test",
        size=70 if smallest else 2000,
        texture=0.9,
        arrangement=0.9,
        noise=0.2,
    )
    config.analyses.accuracy = analysis("accuracy")
    config.analyses.cka = analysis("cka", models=("vit", "resnet"))
    if not smallest:
        config.analyses.cues = analysis("cues")
        config.analyses.objects = analysis("objects")
    config.group = 8 if smallest else 100
    return config
