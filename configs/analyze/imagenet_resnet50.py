"""CKA of all 125 layers of an ImageNet ResNet-50, and its accuracy, on a folder of images.

python scripts/analyze.py --config=configs/analyze/imagenet_resnet50.py --workdir=runs/resnet50 \
    --config.data.path=DIR/imagenet_samples \
    --config.models.resnet50.weights=DIR/weights/resnet50_imagenet_keras_f16.npz

The folder holds images, in class folders or with a labels.csv (columns file,label). The weights are
those of Keras' ResNet50 as one npz; they bring their preprocessing (short side 256, centre 224).
Expected on 1000 ImageNet images that it was partly trained on: top-1 90.0%, top-5 98.6%; about 5
minutes on 2 CPU cores. The argument "smallest" takes random weights, scenes and 64 px instead:
--config=.../imagenet_resnet50.py:smallest
"""

from ml_collections import ConfigDict

from vitcnn.engine import config as configuration


def get_config(size: str = "full") -> ConfigDict:
    smallest = size == "smallest"
    config = configuration.defaults()
    model = config.models.resnet50 = ConfigDict()
    model.family = "resnet"
    model.variant = "50-keras"
    model.weights = None if smallest else ""
    if smallest:
        model.image_size = 128  # the last stage is then 4 x 4

    config.data.source = "scenes" if smallest else "folder"
    if smallest:
        config.data.size = 8
        config.data.image_size = 128
    else:
        config.data.path = ""

    config.analyses.accuracy = configuration.job()
    config.analyses.cka = configuration.job()
    config.group = 4 if smallest else 100
    return config
