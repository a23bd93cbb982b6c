"""CKA of a CIFAR-10 ViT and a CIFAR-10 ResNet-20, and the accuracy of both, on the test images.

python scripts/analyze.py --config=configs/analyze/cifar10_pair.py --workdir=runs/cifar10_pair \
    --config.data.path=DIR/cifar10_test.npz \
    --config.models.vit.weights=DIR/weights/vit_cifar10_d128_l4.pth \
    --config.models.resnet20.weights=DIR/weights/resnet20-12fca82f.th

Reading .pth files needs the extra: pip install -e ".[torch]". Expected: 7193 (ViT) and 9173
(ResNet-20) of the 10,000 test images right; about a minute on 2 CPU cores. The argument "smallest"
takes random weights and a few scenes instead: --config=.../cifar10_pair.py:smallest
"""

from ml_collections import ConfigDict

from vitcnn.engine import config as configuration


def get_config(size: str = "full") -> ConfigDict:
    smallest = size == "smallest"
    config = configuration.defaults()
    for name, family, variant in (("vit", "vit", "cifar/4"), ("resnet20", "resnet", "20")):
        model = config.models[name] = ConfigDict()
        model.family = family
        model.variant = variant
        model.weights = None if smallest else ""

    config.data.source = "scenes" if smallest else "npz"
    if smallest:
        config.data.size = 20
        config.data.classes = 10
    else:
        config.data.path = ""

    config.analyses.accuracy = configuration.job()
    config.analyses.cka = configuration.job(models=("vit", "resnet20"))
    config.group = 8 if smallest else 250
    return config
