"""vitcnn: how vision transformers and CNNs see, measured.

The measurements of Raghu et al. 2021 ("Do Vision Transformers See Like Convolutional Neural
Networks?", arXiv 2108.08810) for any trained model, in one streaming pass, with error bars:

    model = vitcnn.load("vit", "B/16", weights="ViT-B_16.npz")
    logits, taps = model.run(images, "block*/mlp")
    table = vitcnn.cka(taps)
    results = vitcnn.analyze(config, workdir)
"""

from typing import Any

from vitcnn.data.preprocess import Preprocess
from vitcnn.engine.analyze import analyze
from vitcnn.engine.compare import Comparison, cka, compare
from vitcnn.model import Model, load
from vitcnn.taps import TapInfo, TapTable, alias, tap

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Imports `train` and `ablate` when they are asked for: most who measure do not train."""
    if name == "train":
        from vitcnn.training import train

        return train
    if name == "ablate":
        from vitcnn.ablations import ablate

        return ablate
    raise AttributeError(f"module 'vitcnn' has no attribute {name!r}")


__all__ = [
    "Comparison",
    "Model",
    "Preprocess",
    "TapInfo",
    "TapTable",
    "ablate",
    "alias",
    "analyze",
    "cka",
    "compare",
    "load",
    "tap",
    "train",
]
