"""CKA of all layers of a ViT and of a ResNet, both of ImageNet-21k (paper: Figs 1, 2 and B.1).

python scripts/analyze.py --config=configs/analyze/fig01.py --workdir=runs/fig01
python scripts/report.py --workdir=runs/fig01

ViT-B/32 (AugReg) and BiT-R50x1, public weights of one laboratory, on the 10,000 images of
ImageNet-V2. "paper", as in --config=configs/analyze/fig01.py:paper, takes the four networks nearest
to the paper's: ViT-L/16, ViT-H/14, BiT-R50x1 and BiT-R152x2. The paper's ResNets are
post-activation, BiT's are pre-activation, so the layers of the ResNets are not the same 125.

It needs the extra hub for the weights (0.7 GB; paper: 5.4 GB), and images that TFDS has prepared,
once, with the extra tfds (1.3 GB):

python -c "import tensorflow_datasets as tfds; tfds.data_source('imagenet_v2/matched-frequency')"

Time, by arithmetic: an hour and a half on 2 CPU cores; on an accelerator mostly downloads and
compilation. Expected, from the paper: lower and upper layers of the ViT are more alike than those
of the ResNet (claim 1), lower layers of the ResNet match still lower layers of the ViT (2), and
the last layers of the ViT match none of the ResNet (3).

--help after --config=... lists all fields. The argument "smallest" takes random weights, small
networks and scenes instead, to check that everything runs.
"""

from ml_collections import ConfigDict

from vitcnn.config import analysis, measurement, model, source

HUB = "hf:timm/"
SMALL = {
    "vit_b32": ("vit", "B/32", "vit_base_patch32_224.augreg_in21k"),
    "bit_r50x1": ("bit", "R50x1", "resnetv2_50x1_bit.goog_in21k"),
}
PAPER = {
    "vit_l16": ("vit", "L/16", "vit_large_patch16_224.augreg_in21k"),
    "vit_h14": ("vit", "H/14", "vit_huge_patch14_224.orig_in21k"),
    "bit_r50x1": SMALL["bit_r50x1"],
    "bit_r152x2": ("bit", "R152x2", "resnetv2_152x2_bit.goog_in21k"),
}


def get_config(size: str = "small") -> ConfigDict:
    config = measurement()
    if size == "smallest":
        small = {"num_classes": 8, "weights": "random", "image_size": 32}
        config.models.vit = model("vit", "mini/4", depth=1, width=48, mlp_dim=64, **small)
        config.models.bit = model("bit", "R50x1", units=(1,), widths=(32,), **small)
        config.data = source("scenes", size=20)
    else:
        for name, (family, variant, weights) in {"small": SMALL, "paper": PAPER}[size].items():
            config.models[name] = model(family, variant, weights=HUB + weights)
        config.data = source("tfds", name="imagenet_v2/matched-frequency", split="test")
    config.analyses.cka = analysis("cka", models=tuple(config.models))
    config.group = 8 if size == "smallest" else 128
    return config
