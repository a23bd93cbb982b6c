"""CKA of a CIFAR-10 ViT with a CIFAR-10 ResNet-20, and the accuracy of both, on the test images.

python scripts/analyze.py --config=configs/analyze/cifar10_pair.py --workdir=runs/cifar10_pair \
    --config.data.path=DIR/cifar10_test.npz \
    --config.models.vit.weights=DIR/weights/vit_cifar10_d128_l4.pth \
    --config.models.resnet20.weights=DIR/weights/resnet20-12fca82f.th

Time: about a minute on 2 CPU cores. Expected: 7193 (ViT) and 9173 (ResNet-20) of the 10,000 test
images are right. Reading .pth files needs the extra torch: pip install -e ".[torch]".

--help after --config=... lists all fields. The argument "smallest", as in
--config=configs/analyze/cifar10_pair.py:smallest, takes random weights and a few scenes instead, to
check in seconds that everything runs.
"""

from ml_collections import ConfigDict

from vitcnn.config import analysis, measurement, model, source


def get_config(size: str = "full") -> ConfigDict:
    smallest = size == "smallest"
    weights = "random" if smallest else ""
    config = measurement()
    config.models.vit = model("vit", "cifar/4", weights=weights)
    config.models.resnet20 = model("resnet", "20", weights=weights)
    config.data = source("scenes", size=20, classes=10) if smallest else source("npz", path="")
    config.analyses.accuracy = analysis("accuracy")
    config.analyses.cka = analysis("cka", models=("vit", "resnet20"))
    config.group = 8 if smallest else 250
    return config
