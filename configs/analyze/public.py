"""CKA between all layers of any public network, by the name of its weights alone.

python scripts/analyze.py --config=configs/analyze/public.py --workdir=runs/public \
    --config.models.network.weights=hf:timm/vit_base_patch16_224.augreg_in21k \
    --config.data.path=DIR/images

Family, variant, fields and preprocessing follow from what lies beside the weights; DIR/images is a
folder of photographs, for example the validation images of ImageNet. Time: about ten minutes on 2
CPU cores for a ViT-B/16 and 1000 images. Expected: a square of 1 on the diagonal for a ViT, two
blocks for a ResNet (Raghu et al., figure 1).

The argument "smallest", as in --config=configs/analyze/public.py:smallest, takes random weights and
a few scenes instead, to check in seconds that everything runs.
"""

from ml_collections import ConfigDict

from vitcnn.config import analysis, measurement, model, source


def get_config(size: str = "full") -> ConfigDict:
    smallest = size == "smallest"
    config = measurement()
    if smallest:
        config.models.network = model("vit", "mini/4", weights="random")
    else:
        config.models.network = model(weights="")
    config.data = source("scenes", size=20) if smallest else source("folder", path="")
    config.analyses.cka = analysis("cka", images=16 if smallest else 1000)
    config.group = 8 if smallest else 128
    return config
