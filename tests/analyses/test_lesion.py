"""Lesions against the network with arrays in the place of parts, and where the answer is known."""

import flax.linen as nn
import jax
import numpy as np
import oracles
import pytest
from networks import randomised

import vitcnn
from vitcnn import data
from vitcnn.analyses import lesion

SOURCE = data.load("scenes", size=24)


def analyze(models, workdir, group=24, source=SOURCE, progress=False, **fields):
    config = {"analyses": {"lesion": fields}, "group": group}
    return vitcnn.analyze(config, workdir, models=models, source=source, progress=progress)


def small(family, variant, **fields):
    return randomised(vitcnn.load(family, variant, num_classes=8, **fields))


@pytest.fixture(scope="module")
def vit():
    return small("vit", "mini/4", depth=2, width=24, mlp_dim=32)


@pytest.fixture(scope="module")
def measured(vit, tmp_path_factory):
    """The default lesions of a ViT, and single heads of its first block."""
    taps = (*lesion.TAPS[:5], "block00/heads")
    return analyze({"v": vit}, tmp_path_factory.mktemp("lesion"), taps=taps)["lesion.v"]


def of_the_network(model):
    images = model.preprocess([SOURCE[i]["image"] for i in range(len(SOURCE))])
    labels = np.array([SOURCE[i]["label"] for i in range(len(SOURCE))])
    return images, labels


def probabilities(logits):
    z = np.float64(logits)
    z = z - z.max(1, keepdims=True)
    return np.exp(z) / np.exp(z).sum(1, keepdims=True)


def assert_loses(result, name, intact, lesioned, labels):
    """Compares one lesion with logits and residual streams: (logits, {layer: array}) of each."""
    row = result.sel(lesion=name)
    (before, layers), (after, others) = intact, lesioned
    right, still_right = (np.mean(np.asarray(x).argmax(1) == labels) for x in (before, after))
    np.testing.assert_allclose(result.top1, right)
    np.testing.assert_allclose(row.top1_loss, right - still_right, atol=1e-12)
    p, q = probabilities(before), probabilities(after)
    np.testing.assert_allclose(row.kl, (p * np.log(p / q)).sum(1).mean(), rtol=1e-3, atol=1e-6)
    for layer, x in layers.items():
        expected = float(oracles.minibatch_cka(x, others[layer]))
        np.testing.assert_allclose(row.cka.sel(layer=layer), expected, atol=1e-5)


def test_lesions_equal_networks_with_means_in_the_place_of_parts(vit, measured):
    parts = ["attn", "skip_attn", "mlp", "skip_mlp"]
    heads = [f"block00/heads:{head}" for head in range(3)]
    others = [f"block{i:02d}/{part}" for i in range(2) for part in parts]
    assert list(measured.lesion.values) == heads + others
    assert list(measured.layer.values) == ["block00/out", "block01/out"]
    assert measured.part.values.tolist() == ["heads"] * 3 + parts * 2
    assert measured.number.values.tolist() == [0] * 7 + [1] * 4
    images, labels = of_the_network(vit)
    names = ("block00/attn", "block01/skip_mlp", "block00/heads", "block00/out", "block01/out")
    logits, taps = vit.run(images, names)
    mean = {name: np.float64(x).mean(0) for name, x in taps.items()}
    heads = np.array(taps["block00/heads"])
    heads[:, :, 1] = mean["block00/heads"][:, 1]
    layers = ("block00/out", "block01/out")
    intact = logits, {name: taps[name] for name in layers}
    for name, tap, array in (
        ("block00/attn", "block00/attn", mean["block00/attn"]),
        ("block01/skip_mlp", "block01/skip_mlp", mean["block01/skip_mlp"]),
        ("block00/heads:1", "block00/heads", heads),
    ):
        lesioned = vit.run(images, layers, edit={tap: array})
        assert_loses(measured, name, intact, lesioned, labels)
    before = measured.sel(layer="block00/out", lesion=[n for n in others if "block01" in n])
    np.testing.assert_allclose(before.cka, 1, atol=1e-12)
    assert (measured.kl > 1e-6).all()


@pytest.fixture(scope="module")
def resnet():
    return small("resnet", "mini", units=(1, 2), widths=(32, 32))


def test_a_resnet_loses_the_branches_and_skips_of_its_units(resnet, tmp_path, monkeypatch):
    monkeypatch.setattr(lesion, "at_once", lambda config, images: 4)
    result = analyze({"r": resnet}, tmp_path, replacement="other")["lesion.r"]
    units = [f"stage{s}/unit{u:02d}" for s, u in ((1, 1), (2, 1), (2, 2))]
    assert list(result.lesion.values) == [f"{u}/{p}" for u in units for p in ("norm2", "skip")]
    assert result.part.values.tolist() == ["branch", "skip"] * 3
    assert result.number.values.tolist() == [0, 0, 1, 1, 2, 2]
    # Another image's branch and skip in the last unit is another image's logits: not the same as
    # one of them, which is what is measured.
    images, labels = of_the_network(resnet)
    order = data.order(len(SOURCE), len(SOURCE), 0, 0)
    images, labels = images[order], labels[order]
    layers = [f"{unit}/out" for unit in units]
    logits, taps = resnet.run(images, [*layers, "stage2/unit01/skip"])
    other = np.roll(taps["stage2/unit01/skip"], -1, axis=0)
    lesioned = resnet.run(images, layers, edit={"stage2/unit01/skip": other})
    intact = logits, {name: taps[name] for name in layers}
    assert_loses(result, "stage2/unit01/skip", intact, lesioned, labels)


def test_the_last_block_needs_its_class_token_only(vit, tmp_path):
    """Nothing reads the positions of the last residual stream."""
    taps = ("block01/mlp", "block01/skip_mlp", "block01/out")
    spatial = analyze({"v": vit}, tmp_path / "s", taps=taps, tokens="spatial")["lesion.v"]
    np.testing.assert_allclose(spatial.kl, 0, atol=1e-6)
    assert (spatial.top1_loss == 0).all() and (spatial.cka < 0.995).all()
    of_class = analyze({"v": vit}, tmp_path / "c", taps=taps, tokens="class")["lesion.v"]
    images, labels = of_the_network(vit)
    logits, mlp = vit.run(images, ("block01/mlp", "block01/out"))
    edited = np.array(mlp["block01/mlp"])
    edited[:, 0] = edited[:, 0].mean(0)
    lesioned = vit.run(images, "block01/out", edit={"block01/mlp": edited})
    intact = logits, {"block01/out": mlp["block01/out"]}
    assert_loses(of_class, "block01/mlp", intact, lesioned, labels)


class Unlabelled:
    """Images without labels."""

    labelled, classes, provenance = False, None, {"source": "unlabelled"}

    def __len__(self):
        return 24

    def __getitem__(self, i):
        return {"image": SOURCE[i]["image"], "label": -1}


def test_without_labels_it_measures_the_output_and_the_layers(vit, measured, tmp_path, capsys):
    taps = ("block01/mlp", "block01/out")
    fields = {"taps": taps, "source": Unlabelled(), "progress": True, "replacement": "zero"}
    result = analyze({"v": vit}, tmp_path, 12, **fields)["lesion.v"]
    assert "lesion.v: 1 more forward passes of 24 images" in capsys.readouterr().out
    assert np.isnan(result.top1) and np.isnan(result.top1_loss).all()
    images, _ = of_the_network(vit)
    p = probabilities(vit.run(images)[0])
    q = probabilities(vit.run(images, edit={"block01/mlp": 0})[0])
    np.testing.assert_allclose(result.kl, (p * np.log(p / q)).sum(1).mean(), rtol=1e-3)
    assert result.kl_standard_error[0] > 0
    assert lesion.draw([result]) is None
    for draw in (lesion.draw_divergence, lesion.draw_last_layer):
        assert draw([result, measured]).axes
    assert lesion.draw([measured]).axes[0].get_ylabel() == "loss of top-1 accuracy"


def test_errors(vit, tmp_path):
    with pytest.raises(ValueError, match="none of the taps is a branch"):
        analyze({"v": vit}, tmp_path / "a", taps=("block*/out",))
    with pytest.raises(ValueError, match="unknown replacement 'men': did you mean 'mean'"):
        analyze({"v": vit}, tmp_path / "b", replacement="men")


class Idle(nn.Module):
    """A block whose branch adds nothing."""

    @nn.compact
    def __call__(self, images):
        x = nn.Conv(6, (8, 8), strides=8)(images)
        x = vitcnn.tap(self, "block00/in", x, role="embed", grid=x.shape[1:3])
        y = vitcnn.tap(self, "block00/mlp", 0 * x, role="mlp", skip="block00/in")
        x = vitcnn.skip_connection(self, "block00/skip_mlp", x, "block00/in") + y
        x = vitcnn.tap(self, "block00/out", x, role="residual", grid=x.shape[1:3])
        return nn.Dense(8)(x.mean((1, 2)))


def test_a_branch_that_adds_nothing_is_not_missed_and_its_skip_is_all_there_is(tmp_path):
    module = Idle()
    variables = module.init(jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
    model = vitcnn.Model(module, variables, vitcnn.Preprocess(size=32))
    message = "CKA is not defined: block00/out without block00/skip_mlp"
    with pytest.warns(UserWarning, match=message):
        result = analyze({"m": model}, tmp_path)["lesion.m"]
    assert list(result.lesion.values) == ["block00/mlp", "block00/skip_mlp"]
    np.testing.assert_allclose(result.kl[0], 0, atol=1e-7)
    assert result.kl[1] > 1e-6 and result.top1_loss[0] == 0
    np.testing.assert_allclose(result.cka.squeeze(), [1, np.nan], atol=1e-6)
