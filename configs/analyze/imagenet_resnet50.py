"""CKA of all 125 layers of an ImageNet ResNet-50, and its accuracy, on a folder of images.

python scripts/analyze.py --config=configs/analyze/imagenet_resnet50.py --workdir=runs/resnet50 \
    --config.data.path=DIR/imagenet_samples \
    --config.models.resnet50.weights=DIR/weights/resnet50_imagenet_keras_f16.npz

Time: about 5 minutes on 2 CPU cores. Expected on 1000 ImageNet images, some of which the network
was trained on: top-1 90.0%, top-5 98.6%. The folder holds images, in class folders or with a
labels.csv (columns file,label). The weights are those of Keras' ResNet50 as one npz; they bring
their own preprocessing (short side 256, centre 224).

--help after --config=... lists all fields. The argument "smallest", as in
--config=configs/analyze/imagenet_resnet50.py:smallest, takes random weights and scenes of 128
pixels instead, to check that everything runs.
"""

from ml_collections import ConfigDict

from vitcnn.config import analysis, measurement, model, source


def get_config(size: str = "full") -> ConfigDict:
    config = measurement()
    if size == "smallest":  # at 128 pixels the last stage is 4 x 4
        config.models.resnet50 = model("resnet", "50-keras", weights="random", image_size=128)
        config.data = source("scenes", size=8, image_size=128)
    else:
        config.models.resnet50 = model("resnet", "50-keras", weights="")
        config.data = source("folder", path="")
    config.analyses.accuracy = analysis("accuracy")
    config.analyses.cka = analysis("cka")
    config.group = 4 if size == "smallest" else 100
    return config
