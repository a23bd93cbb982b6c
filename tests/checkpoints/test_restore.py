"""Formats, and the strict merge into a network."""

import hashlib
import json

import jax
import numpy as np
import pytest
from networks import flat, shapes_of

from vitcnn import checkpoints, models

TINY = {"width": 12, "depth": 2, "mlp_dim": 20, "heads": 3, "num_classes": 5}


def random_like(shapes, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)


def assert_same(got, expected):
    got, expected = flat(got), flat(expected)
    assert got.keys() == expected.keys()
    for key, value in expected.items():
        assert got[key].dtype == np.float32
        np.testing.assert_array_equal(got[key], value, err_msg=key)


@pytest.fixture
def vit():
    module = models.create("vit", "mini/4", **TINY)
    return module, shapes_of(module)[0]


@pytest.mark.parametrize(
    ("family", "variant", "fields"),
    [
        ("vit", "mini/4", TINY),
        ("vit", "mini/4", {**TINY, "pool": "gap", "pre_logits": 6}),
        ("vit", "mini/4", {**TINY, "distilled": True, "registers": 2, "layer_scale": 0.1}),
        ("vit", "mini/4", {**TINY, "pool": "gap", "norm_pooled": True}),
        ("resnet", "mini", {}),
        ("resnet", "20", {}),
    ],
)
def test_exported_file_is_restored_bit_for_bit(tmp_path, family, variant, fields):
    module = models.create(family, variant, **fields)
    variables = random_like(shapes_of(module)[0])
    checkpoints.export(tmp_path / "a.npz", variables)
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]
    restored = checkpoints.restore(tmp_path / "a.npz", family, module, shapes_of(module)[0])
    assert_same(restored.variables, variables)
    count = len(flat(variables))
    assert restored.provenance == {
        "path": "a.npz",
        "sha256": hashlib.sha256((tmp_path / "a.npz").read_bytes()).hexdigest(),
        "format": {"vit": "google_vit_npz", "resnet": "google_resnet_npz"}[family],
        "arrays": {"in_file": count, "in_network": count, "renamed": 0},
        **({"preprocess": "the format 'google_vit_npz'"} if family == "vit" else {}),
    }
    json.dumps(restored.provenance)


def test_what_differs_behind_the_last_block_has_a_way_out(tmp_path):
    path = tmp_path / "a.npz"
    kinds = {
        "plain": ({}, ()),
        "hidden": ({"pre_logits": 6}, ("pre_logits=6 is how",)),
        "bare": (
            {"pre_logits": 6, "num_classes": 0},
            ("pre_logits=6", "has no head: num_classes=0"),
        ),
    }
    networks = {}
    for kind, (fields, _) in kinds.items():
        module = models.create("vit", "mini/4", **{**TINY, **fields})
        networks[kind] = module, shapes_of(module)[0]
    for kind, (_, hints) in kinds.items():
        checkpoints.export(path, random_like(networks[kind][1]))
        checkpoints.restore(path, "vit", *networks[kind])
        if hints:
            with pytest.raises(ValueError, match=r"(?s)does not fit.*" + ".*".join(hints)):
                checkpoints.restore(path, "vit", *networks["plain"])
    checkpoints.export(path, random_like(networks["plain"][1]))
    with pytest.raises(ValueError, match=r"(?s)pre_logits=0 is how.*new_head=True drops"):
        checkpoints.restore(path, "vit", *networks["bare"])


@pytest.mark.parametrize("prefix", ["params/", "opt/target/"])
def test_resnet_of_google_has_a_prefix_and_its_norms_four_axes(tmp_path, prefix):
    module = models.create("resnet", "R50x1", units=(1, 1), widths=(32, 64), num_classes=5)
    shapes, _ = shapes_of(module)
    variables = random_like(shapes)
    raw = {}
    for key, value in flat(variables).items():
        norm = "gn" in key.split("/")[-2]
        raw[prefix + key.removeprefix("params/")] = value[None, None, None] if norm else value
    np.savez(tmp_path / "a.npz", **raw)
    restored = checkpoints.restore(tmp_path / "a.npz", "resnet", module, shapes)
    assert sum(value.ndim == 4 and value.shape[:3] == (1, 1, 1) for value in raw.values()) == 18
    assert_same(restored.variables, variables)


def test_exported_vit_has_googles_names(tmp_path, shared_data):
    module = models.create("vit", "Ti/16")
    shapes = shapes_of(module)[0]
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    checkpoints.export(tmp_path / "a.npz", zeros)
    published = json.loads((shared_data / "weights/checkpoint_key_shapes.json").read_text())
    with np.load(tmp_path / "a.npz") as file:
        assert {k: list(file[k].shape) for k in file.files} == published["AugReg Ti_16 i1k 224"]
    with pytest.raises(ValueError, match=r"a.ckpt: an exported checkpoint ends in .npz"):
        checkpoints.export(tmp_path / "a.ckpt", zeros)


@pytest.mark.parametrize("prefix", ["", "params/", "opt/target/", "opt/target/params/"])
def test_google_files_with_any_prefix(tmp_path, vit, prefix):
    module, shapes = vit
    variables = random_like(shapes)
    arrays = {prefix + k: v for k, v in flat(variables["params"]).items()}
    if prefix.startswith("opt/"):  # the optimiser's own state lies beside its target
        arrays |= {"opt/state/step": np.int32(7), "opt/state/cls/grad_ema": np.zeros(3)}
    np.savez(tmp_path / "a.npz", **arrays)
    restored = checkpoints.restore(tmp_path / "a.npz", "vit", module, shapes)
    assert_same(restored.variables, variables)
    assert restored.preprocess["mean"] == restored.preprocess["std"] == (0.5, 0.5, 0.5)


def test_one_error_lists_both_sides_with_the_nearest_names(tmp_path, vit):
    module, shapes = vit
    arrays = flat(random_like(shapes)["params"])
    arrays["head/kernle"] = arrays.pop("head/kernel")
    arrays["extra/thing"] = np.zeros(3)
    arrays["cls"] = np.zeros((1, 1, 13), np.float32)
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match="does not fit") as error:
        checkpoints.restore(tmp_path / "a.npz", "vit", module, shapes)
    assert str(error.value).splitlines() == [
        "a.npz (format 'google_vit_npz') does not fit the network:",
        "  missing from the checkpoint (1):",
        "    params/head/kernel (did you mean 'head/kernle'?)",
        "  unexpected in the checkpoint (2):",
        "    params/head/kernle (did you mean 'head/kernel'?)",
        "    params/extra/thing",
        "  of another shape (1):",
        "    params/cls: 1 x 1 x 13 in the checkpoint, 1 x 1 x 12 in the network",
    ]


def test_a_long_list_is_cut(tmp_path, vit):
    shapes = vit[1]
    deeper = models.create("vit", "mini/4", **{**TINY, "depth": 4})
    np.savez(tmp_path / "a.npz", **flat(random_like(shapes)["params"]))
    with pytest.raises(ValueError, match=r"missing from the checkpoint \(32\)") as error:
        checkpoints.restore(tmp_path / "a.npz", "vit", deeper, shapes_of(deeper)[0])
    assert "... and 20 more" in str(error.value)
    assert len(str(error.value).splitlines()) == 15


def test_weights_that_are_not_finite_are_refused(tmp_path, vit):
    module, shapes = vit
    arrays = flat(random_like(shapes)["params"])
    arrays["cls"][0, 0, 3] = np.nan
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=r"(?s)damaged.*not finite \(1\).*params/cls"):
        checkpoints.restore(tmp_path / "a.npz", "vit", module, shapes)


def test_unknown_format_says_what_the_keys_are(tmp_path, vit):
    module, shapes = vit
    np.savez(tmp_path / "a.npz", **{"backbone/w1": np.zeros(2), "backbone/w2": np.zeros(2)})
    message = (
        r"a.npz: no known format has its 2 keys, which are 'backbone/w1', 'backbone/w2'; known "
        r"formats: .*google_vit_npz.*keras_resnet"
    )
    with pytest.raises(ValueError, match=message):
        checkpoints.restore(tmp_path / "a.npz", "vit", module, shapes)


def test_file_of_another_family_is_refused(tmp_path, vit):
    shapes = vit[1]
    np.savez(tmp_path / "a.npz", **flat(random_like(shapes)["params"]))
    module = models.create("resnet", "mini")
    message = "format 'google_vit_npz', which holds weights of the family 'vit', but .* 'resnet'"
    with pytest.raises(ValueError, match=message):
        checkpoints.restore(tmp_path / "a.npz", "resnet", module, shapes_of(module)[0])


def test_published_key_lists_are_known_or_unknown_as_they_should(shared_data):
    from vitcnn.checkpoints.formats import (
        cifar_resnet_torch,
        cifar_vit_torch,
        google_vit_npz,
        keras_resnet,
    )

    text = (shared_data / "weights/checkpoint_key_shapes.json").read_text()
    for name, keys in json.loads(text).items():
        assert google_vit_npz.matches(keys) == name.startswith(("ViT", "AugReg"))
        for other in (cifar_resnet_torch, cifar_vit_torch, keras_resnet):
            assert not other.matches(keys)
    timm_resnet = ["conv1.weight", "layer1.0.conv3.weight", "layer3.0.conv2.weight", "fc.weight"]
    assert not cifar_resnet_torch.matches(timm_resnet)


def test_count_of_batches_is_dropped_and_foreign_keys_are_not():
    from vitcnn.checkpoints.formats import cifar_resnet_torch, cifar_vit_torch, keras_resnet

    one = np.ones(3)
    raw = {"module.bn1.num_batches_tracked": one, "module.bn1.weight": one, "ema.x": one}
    got = cifar_resnet_torch.convert(raw, models.create("resnet", "20"))
    assert list(got) == ["params/bn_root/scale", "ema.x"]
    assert list(
        cifar_vit_torch.convert({"encoder.layers.0.x.weight": one}, models.create("resnet", "20"))
    ) == ["encoder.layers.0.x.weight"]
    root = np.arange(12.0).reshape(2, 1, 3, 2)
    got = keras_resnet.convert(
        {"conv1/kernel": root, "top/kernel": one}, models.create("resnet", "20")
    )
    np.testing.assert_array_equal(got["params/conv_root/kernel"][:, :, 0], root[:, :, 2])
    assert list(got) == ["params/conv_root/kernel", "top/kernel"]
