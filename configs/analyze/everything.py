"""Every measurement, in one pass over the images.

python scripts/analyze.py --config=configs/analyze/everything.py --workdir=runs/everything \
    --config.data.path=DIR/cifar10_test.npz --config.stages.fit.data.path=DIR/cifar10.npz \
    --config.stages.fit_all.data.path=DIR/cifar10.npz \
    --config.stages.held_out.data.path=DIR/cifar10.npz \
    --config.models.vit.weights=DIR/weights/vit_cifar10_d128_l4.pth \
    --config.models.resnet20.weights=DIR/weights/resnet20-12fca82f.th

A CIFAR-10 ViT and a CIFAR-10 ResNet-20: the README has the numbers to expect. The three stages fit
linear probes, on 10 images of each class (5 draws) and on 45,000, and choose their penalties on the
other 5,000; cifar10.npz holds those 50,000 as image_train and label_train. Reading .pth files needs
the extra torch. It takes about 14 minutes on 2 CPU cores.

    --config=configs/analyze/everything.py:resnet50 \
        --config.data.path=DIR/imagenet_samples \
        --config.models.resnet50.weights=DIR/weights/resnet50_imagenet_keras_f16.npz

measures what a single CNN allows, probes apart, on an ImageNet ResNet-50 (about 13 minutes);
and the argument "smallest" takes random weights and a few scenes, to see that all is well.
"""

from ml_collections import ConfigDict

from vitcnn.engine import config as configuration

SCENES = {"source": "scenes", "classes": 4}
CIFAR_TRAIN = {"source": "npz", "path": "", "image": "image_train", "label": "label_train"}
MEASURES = ("cka", "procrustes", "rsa_spearman", "neighbours")
CNN = ("stem/*", "stage*/unit*/out", "pooled", "logits")
OUTPUTS = ("embed", "block*/out", "norm", *CNN)


def get_config(which: str = "cifar10_pair") -> ConfigDict:
    config = configuration.defaults()
    if which == "resnet50":
        return _resnet50(config)
    smallest = which == "smallest"
    for name, family, variant in (("vit", "vit", "cifar/4"), ("resnet20", "resnet", "20")):
        model = config.models[name] = ConfigDict()
        model.family = family
        model.variant = variant
        model.weights = None if smallest else ""
        if smallest:
            model.update(
                {"depth": 2, "width": 32, "mlp_dim": 48, "heads": 4}
                if family == "vit"
                else {"units": (1, 1, 1)}
            )
    config.data = (
        {**SCENES, "size": 40, "split": "test"} if smallest else {"source": "npz", "path": ""}
    )
    config.group = 20 if smallest else 250

    both = {"models": ("vit", "resnet20")}
    config.analyses.accuracy = configuration.job(analysis="accuracy", **both)
    config.analyses.cka = configuration.job(analysis="cka", **both)
    config.analyses.cka_class = configuration.job(analysis="cka", tokens="class", **both)
    config.analyses.cka_spatial = configuration.job(analysis="cka", tokens="spatial", **both)
    config.analyses.cka_rbf = configuration.job(analysis="cka", kernel="rbf", **both)
    config.analyses.similarity = configuration.job(
        analysis="similarity",
        taps=OUTPUTS,
        images=40 if smallest else 1000,
        measures=MEASURES,
        **both,
    )
    # Canonical correlations need 20 images a component: of what is averaged over positions.
    config.analyses.similarity_pooled = configuration.job(
        analysis="similarity",
        taps=OUTPUTS,
        pool="mean",
        components=1 if smallest else 10,
        images=40 if smallest else 1000,
        measures=("cka", "svcca", "pwcca", "cca"),
        **both,
    )
    config.analyses.attention_distance = configuration.job(
        analysis="attention_distance", models=("vit",)
    )
    config.analyses.head_cka = configuration.job(analysis="head_cka", subset=2, **both)
    config.analyses.receptive_field = configuration.job(
        analysis="receptive_field",
        channels=2 if smallest else 16,
        images=4 if smallest else 32,
        **both,
    )
    config.analyses.skip_ratio = configuration.job(analysis="skip_ratio", **both)
    config.analyses.localization = configuration.job(
        analysis="localization", max_positions=64, **both
    )
    config.analyses.decoding = configuration.job(analysis="decoding", **both)
    # Probes on few and on all images: one job name in each of their three legs.
    config.stages.fit = configuration.stage(
        data={**SCENES, "size": 200, "shots": 5, "draws": 2}
        if smallest
        else {**CIFAR_TRAIN, "stop": 45_000, "shots": 10, "draws": 5}
    )
    config.stages.fit_all = configuration.stage(
        data={**SCENES, "size": 60} if smallest else {**CIFAR_TRAIN, "stop": 45_000}
    )
    config.stages.held_out = configuration.stage(
        data={**SCENES, "size": 100, "start": 60} if smallest else {**CIFAR_TRAIN, "start": 45_000}
    )
    pooled = ("class", "spatial")
    asked = {
        "probe": ("fit", (*pooled, "all", "first", "tokens")),
        "probe_all": ("fit_all", pooled),
    }
    for name, (fit, features) in asked.items():
        config.stages[fit].analyses[name] = configuration.job(
            analysis="probe_fit", features=features, **both
        )
        for leg in (config.stages.held_out, config):
            leg.analyses[name] = configuration.job(analysis="probe", fit=fit, **both)
    return config


def _resnet50(config: ConfigDict) -> ConfigDict:
    model = config.models.resnet50 = ConfigDict()
    model.family = "resnet"
    model.variant = "50-keras"
    model.weights = ""
    config.data.source = "folder"
    config.data.path = ""
    config.group = 100
    config.analyses.accuracy = configuration.job(
        analysis="accuracy",
    )
    config.analyses.cka = configuration.job(
        analysis="cka",
    )
    config.analyses.similarity = configuration.job(
        analysis="similarity", taps=CNN, measures=MEASURES
    )
    # The layers of the paper's Fig. 6; 64 channels take eight times as long, for less noise.
    units = ("stage1/unit03", "stage2/unit04", "stage3/unit05", "stage4/unit03")
    taps = ("stem/conv", *(f"{unit}/out" for unit in units))
    config.analyses.receptive_field = configuration.job(
        analysis="receptive_field", taps=taps, channels=8
    )
    config.analyses.skip_ratio = configuration.job(
        analysis="skip_ratio",
    )
    config.analyses.localization = configuration.job(analysis="localization", max_positions=49)
    config.analyses.decoding = configuration.job(
        analysis="decoding",
        taps=("stage3/unit*/out", "stage4/unit*/out"),
        targets=("position", "colour"),
    )
    return config
