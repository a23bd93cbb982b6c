"""Every measurement, in one pass over the images.

python scripts/analyze.py --config=configs/analyze/everything.py --workdir=runs/everything \
    --config.data.path=DIR/cifar10_test.npz --config.stages.fit.data.path=DIR/cifar10.npz \
    --config.stages.fit_all.data.path=DIR/cifar10.npz \
    --config.stages.held_out.data.path=DIR/cifar10.npz \
    --config.models.vit.weights=DIR/weights/vit_cifar10_d128_l4.pth \
    --config.models.resnet20.weights=DIR/weights/resnet20-12fca82f.th

Time: about 15 minutes on 2 CPU cores. Expected: the numbers in the README, for a CIFAR-10 ViT and a
CIFAR-10 ResNet-20. Two stages fit linear probes: `fit` on 10 images of each class (5 draws),
`fit_all` on 45,000 images. The stage `held_out` chooses their penalties on the other 5,000 images.
cifar10.npz holds those 50,000 images as image_train and label_train. Reading .pth files needs the
extra torch: pip install -e ".[torch]".

The argument "resnet50" measures everything that a single CNN allows, except probes, on an ImageNet
ResNet-50, in about 13 minutes on 2 CPU cores:

python scripts/analyze.py --config=configs/analyze/everything.py:resnet50 \
    --workdir=runs/everything_resnet50 --config.data.path=DIR/imagenet_samples \
    --config.models.resnet50.weights=DIR/weights/resnet50_imagenet_keras_f16.npz

--help after --config=... lists all fields. The argument "smallest", as in
--config=configs/analyze/everything.py:smallest, takes random weights and a few scenes instead, to
check that everything runs.
"""

from ml_collections import ConfigDict

from vitcnn.config import analysis, measurement, model, source, stage

MEASURES = ("cka", "procrustes", "rsa_spearman", "neighbours", "cknna")
CNN = ("stem/*", "stage*/unit*/out", "pooled", "logits")
OUTPUTS = ("embed", "block*/out", "norm", *CNN)


def get_config(which: str = "cifar10_pair") -> ConfigDict:
    config = measurement()
    if which == "resnet50":
        return _resnet50(config)
    smallest = which == "smallest"
    if smallest:
        vit = {"weights": "random", "depth": 2, "width": 32, "mlp_dim": 48, "heads": 4}
        resnet = {"weights": "random", "units": (1, 1, 1)}
    else:
        vit = resnet = {"weights": ""}
    config.models.vit = model("vit", "cifar/4", **vit)
    config.models.resnet20 = model("resnet", "20", **resnet)
    config.data = _images(smallest, size=40, split="test") if smallest else source("npz", path="")
    config.group = 20 if smallest else 250

    both = {"models": ("vit", "resnet20")}
    few = 40 if smallest else 1000
    config.analyses.accuracy = analysis("accuracy", **both)
    config.analyses.cka = analysis("cka", **both)
    config.analyses.cka_class = analysis("cka", tokens="class", **both)
    config.analyses.cka_spatial = analysis("cka", tokens="spatial", **both)
    config.analyses.cka_rbf = analysis("cka", kernel="rbf", **both)
    # The taps that both networks have.
    config.analyses.layer_cka = analysis("layer_cka", taps=("pooled", "logits"), **both)
    config.analyses.extremes = analysis("extremes", **both)
    config.analyses.similarity = analysis(
        "similarity", taps=OUTPUTS, images=few, measures=MEASURES, **both
    )
    # Canonical correlations need 20 images for each component, so features are averaged over
    # positions and have few components.
    config.analyses.similarity_pooled = analysis(
        "similarity",
        taps=OUTPUTS,
        pool="mean",
        components=1 if smallest else 10,
        images=few,
        measures=("cka", "svcca", "pwcca", "cca"),
        **both,
    )
    config.analyses.attention_distance = analysis("attention_distance", models=("vit",))
    config.analyses.head_cka = analysis("head_cka", subset=2, **both)
    config.analyses.receptive_field = analysis(
        "receptive_field",
        channels=2 if smallest else 16,
        images=4 if smallest else 32,
        **both,
    )
    # The branches alone, before they are added.
    config.analyses.receptive_field_before = analysis(
        "receptive_field",
        residual="before",
        channels=2 if smallest else 16,
        images=4 if smallest else 32,
        models=("vit",),
    )
    config.analyses.skip_ratio = analysis("skip_ratio", **both)
    config.analyses.lesion = analysis("lesion", images=few, **both)
    config.analyses.localization = analysis("localization", max_positions=64, **both)
    config.analyses.decoding = analysis("decoding", **both)
    config.analyses.norms = analysis("norms", **both)
    if smallest:  # CIFAR-10 has neither boxes nor cues
        config.analyses.objects = analysis("objects", **both)
        config.analyses.cues = analysis("cues", **both)
    # Probes on few and on all images. A probe has the same job name in its three passes: the stage
    # that fits it, the stage that chooses its penalty, and the main analyses.
    if smallest:
        fit, all_images = {"size": 200, "shots": 5, "draws": 2}, {"size": 60}
        held_out = {"size": 100, "start": 60}
    else:
        fit, all_images = {"stop": 45_000, "shots": 10, "draws": 5}, {"stop": 45_000}
        held_out = {"start": 45_000}
    config.stages.fit = stage(data=_images(smallest, **fit))
    config.stages.fit_all = stage(data=_images(smallest, **all_images))
    config.stages.held_out = stage(data=_images(smallest, **held_out))
    pooled = ("class", "spatial")
    probes = {
        "probe": ("fit", (*pooled, "all", "first", "tokens")),
        "probe_all": ("fit_all", pooled),
    }
    for name, (fit_stage, features) in probes.items():
        config.stages[fit_stage].analyses[name] = analysis("probe_fit", features=features, **both)
        for scored in (config.stages.held_out, config):
            scored.analyses[name] = analysis("probe", fit=fit_stage, **both)
    return config


def _images(smallest: bool, **fields) -> ConfigDict:
    """Returns the source of scenes, or of CIFAR-10's training images."""
    if smallest:
        return source("scenes", classes=4, **fields)
    return source("npz", path="", image="image_train", label="label_train", **fields)


def _resnet50(config: ConfigDict) -> ConfigDict:
    config.models.resnet50 = model("resnet", "50-keras", weights="")
    config.data = source("folder", path="")
    config.group = 100
    config.analyses.accuracy = analysis("accuracy")
    config.analyses.cka = analysis("cka")
    config.analyses.similarity = analysis("similarity", taps=CNN, measures=MEASURES)
    # The layers of the paper's Fig. 6. 64 channels take eight times as long and are less noisy.
    units = ("stage1/unit03", "stage2/unit04", "stage3/unit05", "stage4/unit03")
    taps = ("stem/conv", *(f"{unit}/out" for unit in units))
    config.analyses.receptive_field = analysis("receptive_field", taps=taps, channels=8)
    config.analyses.skip_ratio = analysis("skip_ratio")
    config.analyses.localization = analysis("localization", max_positions=49)
    config.analyses.decoding = analysis(
        "decoding",
        taps=("stage3/unit*/out", "stage4/unit*/out"),
        targets=("position", "colour"),
    )
    return config
