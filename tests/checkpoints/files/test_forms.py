"""Forms of a file of weights: names that say nothing, shards, prefixes, types, what lies around."""

import argparse
import importlib
import json
import pathlib

import numpy as np
import pytest
import torch_vits

import vitcnn
from vitcnn import checkpoints
from vitcnn.checkpoints.files import open_file

CFG = {"mean": [0.5] * 3, "std": [0.5] * 3, "input_size": [3, 32, 32]}
SIZES = {"num_heads": 3, "embed_dim": 12, "depth": 2, "mlp_ratio": 20 / 12, "patch_size": 4}
CONFIG = {"architecture": "vit_base_patch16_224", "model_args": SIZES, "pretrained_cfg": CFG}


@pytest.fixture(scope="module")
def arrays():
    return torch_vits.state((8, 8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the config.json of the arrays, and nothing else."""
    folder = tmp_path_factory.mktemp("forms")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


def read(path):
    """Returns the arrays of a file under our names, and what it says."""
    file = checkpoints.read_file(path)
    return file.convert(None), file


@pytest.fixture(scope="module")
def expected(arrays, folder):
    path = torch_vits.save(folder / "plain.safetensors", arrays)
    return read(path)[0]


def check(expected, converted, tolerance=0.0):
    assert converted.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(converted[name], value, atol=tolerance, err_msg=name)


# The name of a file says nothing: its bytes do.


@pytest.mark.parametrize("name", ["a.ckpt", "a.pth.tar", "a.tar", "a.model", "a", "a.safetensors"])
@pytest.mark.parametrize("legacy", [False, True])
def test_torch_files_of_any_name(arrays, expected, folder, name, legacy):
    torch = pytest.importorskip("torch")
    tensors = {key: torch.from_numpy(value) for key, value in arrays.items()}
    torch.save(tensors, folder / name, _use_new_zipfile_serialization=not legacy)
    check(expected, read(folder / name)[0])
    (folder / name).unlink()


@pytest.mark.parametrize("name", ["b.ckpt", "b", "b.bin"])
def test_other_kinds_of_any_name(arrays, expected, folder, name):
    check(expected, read(torch_vits.save(folder / name, arrays))[0])
    with (folder / name).open("wb") as file:
        np.savez(file, **{"head/kernel": np.eye(3)})
    np.testing.assert_array_equal(checkpoints.read(folder / name)["head/kernel"], np.eye(3))
    h5py = pytest.importorskip("h5py")
    with h5py.File(folder / name, "w") as file:
        file["conv/kernel:0"] = np.ones((1, 2))
    np.testing.assert_array_equal(checkpoints.read(folder / name)["conv/kernel:0"], np.ones((1, 2)))
    (folder / name).unlink()


# Shards.


def shards(folder, arrays, suffix="safetensors", places=None):
    halves = list(arrays)[::2], list(arrays)[1::2]
    weight_map = {}
    for number, keys in enumerate(halves, 1):
        name = f"model-{number:05d}-of-00002.{suffix}"
        torch_vits.save(folder / name, {key: arrays[key] for key in keys})
        weight_map |= dict.fromkeys(keys, name)
    index = folder / f"model.{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": {**weight_map, **(places or {})}}))
    return index


def test_shards_are_one_file(arrays, expected, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    check(expected, read(shards(tmp_path, arrays))[0])
    model = vitcnn.load(tmp_path)
    assert model.provenance["weights"]["path"] == "model.safetensors.index.json"
    before = model.provenance["weights"]["sha256"]
    arrays = {**arrays, "norm.bias": arrays["norm.bias"] + 1}
    shards(tmp_path, arrays)
    assert vitcnn.load(tmp_path).provenance["weights"]["sha256"] != before


def test_shards_that_do_not_fit_their_index_are_named(arrays, tmp_path):
    index = shards(tmp_path, arrays, places={"more": "model-00001-of-00002.safetensors"})
    with pytest.raises(ValueError, match=r"model-00001-\S+ lacks the array 'more'"):
        read(index)
    for outside in ("../secret.safetensors", "/etc/passwd"):
        shards(tmp_path, arrays, places={"more": outside})
        with pytest.raises(ValueError, match=f"names the shard '{outside}': expected a file besi"):
            read(index)
    shards(tmp_path, arrays)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"names the shard model-00002-\S+, which"):
        read(index)
    index.write_text("{}")
    with pytest.raises(ValueError, match=r"is not the index of weights in shards.*weight_map"):
        read(index)


def test_a_shard_alone_is_no_checkpoint(arrays, tmp_path):
    index = shards(tmp_path, arrays)
    shard = tmp_path / "model-00001-of-00002.safetensors"
    with pytest.raises(ValueError, match=r"00002.safetensors is one of several shards: give the f"):
        vitcnn.load(shard)
    index.unlink()
    with pytest.raises(FileNotFoundError, match=r"weights in shards, .* without the index"):
        vitcnn.load(tmp_path)
    whole = torch_vits.save(tmp_path / "model-00001-of-00001.safetensors", arrays)
    assert len(read(whole)[0]) > len(arrays)  # queries, keys and values are apart


# Prefixes.

PREFIXES = [
    *("module.", "_orig_mod.", "module._orig_mod.", "net.", "model.", "encoder.", "backbone."),
    *("model.encoder.", "student.backbone.", "module.base_encoder.", "anything.at.all."),
]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_what_all_keys_begin_with_is_left_out(arrays, expected, folder, prefix):
    path = folder / "prefixed.safetensors"
    torch_vits.save(path, {prefix + key: value for key, value in arrays.items()})
    check(expected, read(path)[0])


def test_keys_beside_the_network_are_reported(arrays, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    others = {"projector.weight": np.ones((3, 3), np.float32)}
    encoder = {f"encoder.{key}": value for key, value in arrays.items()}
    torch_vits.save(tmp_path / "model.safetensors", encoder | others)
    with pytest.raises(ValueError, match=r"unexpected in the checkpoint \(1\):\n +projector"):
        vitcnn.load(tmp_path)


def test_two_keys_that_meet_without_their_prefix_are_refused(arrays, folder):
    path = folder / "twice.safetensors"
    twice = {f"body.{key}": value for key, value in arrays.items()}
    torch_vits.save(path, twice | {"norm.bias": arrays["norm.bias"]})
    with pytest.raises(ValueError, match=r"'body.norm.bias' and 'norm.bias' would both be"):
        read(path)


# What lies around the weights.


@pytest.mark.parametrize("name", ["net", "weights", "model_ema", "state_dict_ema"])
def test_weights_under_a_usual_name(arrays, expected, folder, name):
    torch = pytest.importorskip("torch")
    tensors = {key: torch.from_numpy(value) for key, value in arrays.items()}
    torch.save({"epoch": 3, name: tensors, "optimizer": {"state": {}}}, folder / "c.pth")
    check(expected, read(folder / "c.pth")[0])


def test_student_and_teacher_are_chosen_by_name(arrays, expected, folder):
    torch = pytest.importorskip("torch")
    student = {key: torch.from_numpy(value) for key, value in arrays.items()}
    teacher = {f"backbone.{key}": value + 1 for key, value in student.items()}
    torch.save({"student": student, "teacher": teacher}, folder / "d.pth")
    check(expected, checkpoints.read_file(folder / "d.pth", average=False).convert(None))
    file = checkpoints.read_file(folder / "d.pth")
    assert file.network == "'teacher' of 'student', 'teacher'"
    check({name: value + 1 for name, value in expected.items()}, file.convert(None))


def test_arguments_paths_and_numbers_of_numpy_are_read_without_running_code(
    arrays, expected, folder
):
    torch = pytest.importorskip("torch")
    around = {
        "args": argparse.Namespace(model="vit_base_patch16_224", output=pathlib.PosixPath("a")),
        "best": np.float64(81.2),
        "step": np.int64(7),
        "rate": np.float32(0.1),
        "is_best": np.bool_(True),
    }
    tensors = {key: torch.from_numpy(value) for key, value in arrays.items()}
    torch.save({**around, "model": tensors}, folder / "e.pth")
    converted, file = read(folder / "e.pth")
    check(expected, converted)
    assert file.implied.architecture == "vit_base_patch16_224"


# Types.


def safetensors(path, tensors, kind):
    """Writes a safetensors file of one type from the description of the format."""
    names = {"float16": "F16", "bfloat16": "BF16"}
    names |= {"float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2"}
    header, data = {}, b""
    for key, value in tensors.items():
        content = value.view(-1).view(importlib.import_module("torch").uint8).numpy().tobytes()
        offsets = [len(data), len(data) + len(content)]
        header[key] = {"dtype": names[kind], "shape": value.shape, "data_offsets": offsets}
        data += content
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


@pytest.mark.parametrize(
    ("kind", "tolerance"),
    [("float16", 2e-3), ("bfloat16", 2e-2), ("float8_e4m3fn", 0.2), ("float8_e5m2", 0.5)],
)
@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_small_floats_are_cast_and_said(arrays, expected, tmp_path, kind, tolerance, suffix):
    torch = pytest.importorskip("torch")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    tensors = {k: torch.from_numpy(v).to(getattr(torch, kind)) for k, v in arrays.items()}
    path = tmp_path / f"model.{suffix}"
    safetensors(path, tensors, kind) if suffix == "safetensors" else torch.save(tensors, path)
    exact = {key: value.float().numpy() for key, value in tensors.items()}
    contents = open_file(path)
    for key, value in exact.items():
        np.testing.assert_array_equal(contents.arrays[key], value)
    check(expected, read(path)[0], tolerance)
    if kind == "float8_e5m2":
        weights = vitcnn.load(path).provenance["weights"]
        assert weights["cast_to_float32"] == [kind]
