"""vitcnn: how vision transformers and CNNs see, measured.

The measurements of Raghu et al. 2021 ("Do Vision Transformers See Like Convolutional Neural
Networks?", arXiv 2108.08810) for any trained model, in one streaming pass, with error bars:

    model = vitcnn.load("vit", "B/16", weights="ViT-B_16.npz")
    logits, taps = model.run(images, "block*/mlp")
    table = vitcnn.cka(taps)
    results = vitcnn.analyze(config, workdir)
"""

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for editors; `__getattr__` imports them when they are asked for
    from vitcnn.ablations import ablate
    from vitcnn.data.preprocess import Preprocess
    from vitcnn.engine.analyze import analyze
    from vitcnn.engine.compare import Comparison, cka, compare
    from vitcnn.model import Model, load
    from vitcnn.taps import TapInfo, TapTable, alias, skip_connection, tap
    from vitcnn.training import train

__version__ = "0.1.0"

_MODULES = {
    "Comparison": "engine.compare",
    "Model": "model",
    "Preprocess": "data.preprocess",
    "TapInfo": "taps",
    "TapTable": "taps",
    "ablate": "ablations",
    "alias": "taps",
    "analyze": "engine.analyze",
    "cka": "engine.compare",
    "compare": "engine.compare",
    "load": "model",
    "skip_connection": "taps",
    "tap": "taps",
    "train": "training",
}


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
    "skip_connection",
    "tap",
    "train",
]


def __getattr__(name: str) -> Any:
    """Imports a public name, or a part of the package, when it is asked for.

    Those who only look inside a model need not wait for pandas, SciPy and the input pipeline.
    """
    if name in _MODULES:
        value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
        globals()[name] = value  # found without this function from now on
        return value
    if importlib.util.find_spec(f"{__name__}.{name}"):
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
