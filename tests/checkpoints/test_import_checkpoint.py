"""The script that writes Google's archives from other libraries' files."""

import jax
import numpy as np
import pytest
import running
import torch_vits
from absl.testing import flagsaver

import vitcnn
from vitcnn import checkpoints

FIELDS = '{"width": 12, "depth": 2, "mlp_dim": 20, "heads": 3, "num_classes": 5'


@pytest.fixture(scope="module")
def script():
    return running.load(running.ROOT / "scripts/import_checkpoint.py")


def run(script, **flags):
    from absl import flags as absl_flags

    if not absl_flags.FLAGS.is_parsed():
        absl_flags.FLAGS(["import_checkpoint"])
    given = {
        "family": "vit",
        "variant": "mini/4",
        "preprocess": '{"mean": [0, 0, 0], "std": [1, 1, 1]}',
    }
    with flagsaver.flagsaver(**{**given, **flags}):
        script.main([])


def test_the_archive_is_the_network_under_googles_names(script, tmp_path, capsys):
    made = torch_vits.state((8, 8))
    path, out = torch_vits.save(tmp_path / "a.safetensors", made), tmp_path / "a.npz"
    run(script, weights=str(path), out=str(out), fields=FIELDS + ', "image_size": 48}')
    said = capsys.readouterr().out
    assert "format: timm_vit_torch" in said
    assert f"arrays: {len(made)} in the file, {len(made) + 8} in the network, " in said
    assert "resized: " in said and "[1, 145, 12]" in said and "new: none" in said
    with np.load(out) as archive:
        assert archive["cls"].shape == (1, 1, 12)
        assert archive["Transformer/posembed_input/pos_embedding"].shape == (1, 145, 12)
    model = vitcnn.load("vit", "mini/4", out, **torch_vits.SIZES, num_classes=5, image_size=48)
    assert model.module.gelu == "exact" and model.preprocess.std == (1, 1, 1)  # not Google's
    assert model.provenance["weights"]["preprocess"] == "a.vitcnn.json"
    images = np.random.default_rng(0).normal(size=(2, 48, 48, 3)).astype(np.float32)
    table = model.variables["params"]["Transformer"]["posembed_input"]["pos_embedding"]
    expected, _ = torch_vits.forward({**made, "pos_embed": table}, images)
    np.testing.assert_allclose(model.run(images)[0], expected, atol=1e-4)


def test_what_lies_beside_an_archive_is_that_of_this_archive(tmp_path):
    path = tmp_path / "a.npz"
    made = vitcnn.load("resnet", "mini")
    mean = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    checkpoints.export(path, made.variables, {"preprocess": mean, "fields": {"epsilon": 0.001}})
    model = vitcnn.load("resnet", "mini", path)
    assert model.preprocess.mean == (0.1, 0.2, 0.3) and model.module.epsilon == 0.001
    with pytest.warns(UserWarning, match="epsilon = 0.01, where the JSON .* says 0.001"):
        assert vitcnn.load("resnet", "mini", path, epsilon=0.01).module.epsilon == 0.01
    assert model.digest() == made.digest()
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(model.variables))
    (tmp_path / "a.vitcnn.json").write_text("[")
    with pytest.raises(ValueError, match=r"a.vitcnn.json, which says how .* is damaged"):
        vitcnn.load("resnet", "mini", path)
    checkpoints.export(path, made.variables)
    with pytest.raises(ValueError, match=r"a.npz does not say how images are normalised"):
        vitcnn.load("resnet", "mini", path)
    with pytest.raises(ValueError, match="unknown field of preprocess 'meen': did you mean 'mean'"):
        vitcnn.load("resnet", "mini", path, preprocess={"meen": (0, 0, 0)})


@pytest.mark.parametrize(
    ("parts", "fields", "message"),
    [
        ({"dist": True}, '"distilled": true', "a distillation head and a distillation token"),
        (
            {"registers": 2, "scale": True},
            '"registers": 2, "layer_scale": 1',
            "layer scale and reg",
        ),
        (
            {"fc_norm": True, "cls": False},
            '"pool": "gap", "norm_pooled": true',
            "a norm after pooling",
        ),
        ({"gated": True}, '"gated": true', "gated MLPs: write a folder for timm instead"),
        (
            {"gated": True, "scale": True},
            '"gated": true, "layer_scale": 1',
            "gated MLPs and layer scale",
        ),
    ],
)
def test_what_has_no_name_there_is_refused(script, tmp_path, parts, fields, message):
    path = torch_vits.save(tmp_path / "a.safetensors", torch_vits.state((8, 8), **parts))
    with pytest.raises(ValueError, match="Google's format has no name for " + message):
        run(
            script,
            weights=str(path),
            out=str(tmp_path / "a.npz"),
            fields=f"{FIELDS}, {fields}}}",
        )
    assert not (tmp_path / "a.npz").exists()


def test_a_folder_is_written_for_timm(script, tmp_path, capsys):
    made = torch_vits.state((8, 8), registers=2, scale=True)
    path, out = torch_vits.save(tmp_path / "a.safetensors", made), tmp_path / "out"
    fields = FIELDS + ', "registers": 2, "layer_scale": 0.1, "gelu": "exact"}'
    run(script, weights=str(path), out=str(out), fields=fields)
    assert f"wrote: {out}" in capsys.readouterr().out
    model = vitcnn.load(out)
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    expected, _ = torch_vits.forward(made, images)
    np.testing.assert_allclose(model.run(images)[0], expected, atol=1e-4)
