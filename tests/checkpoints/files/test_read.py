"""Files that are and are not checkpoints, and the JSON files beside them."""

import json
import pickle
import sys
import zipfile

import numpy as np
import pytest

from vitcnn import checkpoints
from vitcnn.checkpoints import sidecars


def test_npz_arrays_come_by_their_keys(tmp_path):
    np.savez(tmp_path / "a.npz", **{"head/kernel": np.eye(2, dtype=np.float16), "n": np.int32(3)})
    arrays = checkpoints.read(tmp_path / "a.npz")
    assert list(arrays) == ["head/kernel", "n"]
    np.testing.assert_array_equal(arrays["head/kernel"], np.eye(2))
    assert arrays["head/kernel"].dtype == np.float16 and arrays["n"] == 3


@pytest.mark.parametrize("nest", [None, "state_dict", "model"])
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".th"])
def test_torch_tensors_come_by_their_keys_however_nested(tmp_path, suffix, nest):
    torch = pytest.importorskip("torch")
    tensors = {"a": torch.eye(2, dtype=torch.bfloat16), "seen": torch.tensor(3)}
    torch.save({"epoch": 1, nest: tensors} if nest else tensors, tmp_path / f"a{suffix}")
    arrays = checkpoints.read(tmp_path / f"a{suffix}")
    assert list(arrays) == ["a", "seen"]
    np.testing.assert_array_equal(arrays["a"], np.eye(2, dtype=np.float32))
    assert arrays["seen"] == 3


def test_absent_file_is_answered_with_the_nearest(tmp_path):
    (tmp_path / "weights.npz").touch()
    with pytest.raises(FileNotFoundError, match=r"did you mean 'weights.npz'"):
        checkpoints.read(tmp_path / "weigths.npz")
    with pytest.raises(FileNotFoundError, match=r"there is none"):
        checkpoints.read(tmp_path / "nowhere" / "weights.npz")


def test_another_kind_of_file_is_refused(tmp_path):
    (tmp_path / "weights.onnx").write_bytes(b"\x08\x07ab")
    with pytest.raises(ValueError, match=r"weights.onnx is no checkpoint: .*'\\x08.* NumPy a"):
        checkpoints.read(tmp_path / "weights.onnx")


@pytest.mark.parametrize("name", ["a.npz", "a.pth"])
def test_git_lfs_pointer_is_recognised(tmp_path, name):
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=f"{name} is a git-LFS pointer.*git lfs pull"):
        checkpoints.read(tmp_path / name)


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors", "a.npz"])
def test_a_web_page_is_recognised(tmp_path, name):
    (tmp_path / name).write_text("\n<!DOCTYPE html><html>404</html>")
    with pytest.raises(ValueError, match=f"{name} is a web page or XML instead of .*<!DOCTYPE"):
        checkpoints.read(tmp_path / name)


@pytest.mark.parametrize("kept", [0, 10, 0.5, 0.99])
def test_truncated_npz_is_refused(tmp_path, kept):
    np.savez(tmp_path / "a.npz", a=np.arange(1000.0), b=np.arange(1000.0))
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(whole[: kept if kept > 1 else int(kept * len(whole))])
    with pytest.raises(ValueError, match=r"a.npz is truncated, or is not a NumPy archive"):
        checkpoints.read(tmp_path / "a.npz")


def test_damaged_npz_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.arange(1000.0))
    damaged = bytearray((tmp_path / "a.npz").read_bytes())
    damaged[2000] ^= 255
    (tmp_path / "a.npz").write_bytes(damaged)
    with pytest.raises(ValueError, match=r"a.npz is truncated, or is not a NumPy archive"):
        checkpoints.read(tmp_path / "a.npz")


def test_pickled_content_is_refused_and_not_run(tmp_path):
    class Touch:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    np.savez(tmp_path / "a.npz", a=np.array([Touch()], dtype=object))
    with pytest.raises(ValueError, match=r"a.npz holds pickled Python objects.*refused"):
        checkpoints.read(tmp_path / "a.npz")
    (tmp_path / "b.npz").write_bytes(pickle.dumps(Touch()))
    with pytest.raises(ValueError, match=r"b.npz is truncated, or is not a NumPy archive"):
        checkpoints.read(tmp_path / "b.npz")
    torch = pytest.importorskip("torch")
    torch.save({"a": torch.zeros(1), "b": Touch()}, tmp_path / "c.pth")
    with pytest.raises(ValueError, match=r"c.pth .* Python objects other than tensors.*refused"):
        checkpoints.read(tmp_path / "c.pth")
    assert not (tmp_path / "ran").exists()


def test_zip_of_other_things_and_empty_archive_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("word/document.xml", "<x/>")
    with pytest.raises(ValueError, match=r"a.npz is not a NumPy archive.*'word/document.xml'"):
        checkpoints.read(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz")
    with pytest.raises(ValueError, match=r"b.npz is not a checkpoint: it holds no arrays"):
        checkpoints.read(tmp_path / "b.npz")


@pytest.mark.parametrize("kept", [0, 10, 0.5, 0.99])
@pytest.mark.parametrize("legacy", [False, True])
def test_truncated_torch_file_is_refused(tmp_path, kept, legacy):
    torch = pytest.importorskip("torch")
    path = tmp_path / "a.pth"
    torch.save({"a": torch.zeros(1000)}, path, _use_new_zipfile_serialization=not legacy)
    whole = path.read_bytes()
    path.write_bytes(whole[: kept if kept > 1 else int(kept * len(whole))])
    with pytest.raises(ValueError, match=r"a.pth is truncated, is not a PyTorch checkpoint"):
        checkpoints.read(path)


def test_torch_file_without_named_tensors_is_refused(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save(torch.zeros(3), tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"a.pth is not a checkpoint: it holds a Tensor"):
        checkpoints.read(tmp_path / "a.pth")
    torch.save({"parts": {"a": torch.zeros(3)}}, tmp_path / "b.pth")
    with pytest.raises(ValueError, match=r"b.pth is not a checkpoint of tensors alone: 'parts'"):
        checkpoints.read(tmp_path / "b.pth")
    torch.save({}, tmp_path / "c.pth")
    with pytest.raises(ValueError, match=r"c.pth is not a checkpoint: it holds no arrays"):
        checkpoints.read(tmp_path / "c.pth")


def test_absent_torch_names_the_extra(tmp_path, monkeypatch):
    (tmp_path / "a.pth").write_bytes(b"anything")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r'pip install "vitcnn\[torch\]"'):
        checkpoints.read(tmp_path / "a.pth")


TIMM = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "input_size": [3, 32, 32]}
PROCESSOR = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "size": 40}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"input_size": None}, "input_size is missing; expected .channels, height, width"),
        ({"input_size": [3, 32]}, r"input_size is \[3, 32\]; expected"),
        ({"input_size": 32}, "input_size is 32; expected"),
        ({"mean": 0.5}, "mean is 0.5; expected three numbers"),
        ({"std": None}, "std is missing; expected three numbers above 0"),
        ({"std": [1, 1, 0]}, "std is .* expected three numbers above 0"),
        ({"crop_pct": "0.9"}, "crop_pct is '0.9'; expected a number above 0"),
        ({"interpolation": "cubic"}, "interpolation is 'cubic'; expected one of"),
        (
            {"interpolation": "random"},
            "asks for .* interpolation 'random', which vitcnn does not support",
        ),
        ({"crop_mode": ["center"]}, "crop_mode is .'center'.; expected one of"),
        ({"crop_mode": "border"}, "crop_mode 'border', crop_pct 0.875 .* does not support"),
    ],
)
def test_strange_fields_of_timm_are_named(tmp_path, fields, message):
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": {**TIMM, **fields}}))
    with pytest.raises(ValueError, match="config.json beside the weights.* " + message):
        sidecars.read_published(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"pretrained_cfg": "vit"}, "pretrained_cfg is 'vit'; expected an object"),
        ({"layer_norm_eps": "tiny"}, "layer_norm_eps is 'tiny'; expected a number above 0"),
        ({"layer_norm_eps": 1e-6, "hidden_act": ["gelu"]}, "hidden_act is .'gelu'.; expected one"),
    ],
)
def test_strange_fields_of_the_network_are_named(tmp_path, config, message):
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="config.json beside the weights: " + message):
        sidecars.read_published(tmp_path / "model.safetensors", model_type="vit")


CROP = {"do_center_crop": True, "crop_size": 32}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_std": None}, "image_std is missing; expected three numbers"),
        ({"image_mean": [0.5, "x", 0.5]}, "image_mean is .*; expected three numbers"),
        ({"resample": 9}, r"resample is 9; expected 0 \(nearest\), .* 5 \(hamming\)"),
        ({"resample": "bicubic"}, "resample is 'bicubic'; expected"),
        ({"size": None}, "size is missing; expected pixels"),
        ({"size": {"longest_edge": 40}}, "size is .'longest_edge': 40.; expected pixels"),
        ({"size": {"height": 40}}, "size is .'height': 40.; expected pixels"),
        ({"size": [40, 40]}, r"size is \[40, 40\]; expected pixels"),
        ({"do_center_crop": True}, "crop_size is missing; expected pixels"),
        ({"do_center_crop": 1}, "do_center_crop is 1; expected true or false"),
        (
            {"size": 30, **CROP},
            "asks for .* size 30 and crop_size 32, which vitcnn does not support",
        ),
        (
            {"size": {"height": 40, "width": 48}, **CROP},
            "asks for .* which vitcnn does not support",
        ),
        (
            {"size": {"shortest_edge": 40}},
            "size .* and no centre crop, which vitcnn does not support",
        ),
        ({"size": 36, "crop_pct": 0.9, **CROP}, "ConvNext with size 36 and crop_size 32, which"),
        ({"size": 36, "crop_pct": 0}, "crop_pct is 0; expected a number above 0"),
        ({"do_resize": False}, "asks for do_resize False, .* which vitcnn does not support"),
        ({"do_rescale": False}, "asks for .*do_rescale False, .* which vitcnn does not support"),
        (
            {"rescale_factor": 1 / 127.5},
            "asks for .*rescale_factor 0.0078.*, which vitcnn does not support",
        ),
    ],
)
def test_strange_fields_of_transformers_are_named(tmp_path, fields, message):
    content = {**PROCESSOR, **fields}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(content))
    with pytest.raises(
        ValueError, match="preprocessor_config.json beside the weights.* " + message
    ):
        sidecars.read_published(tmp_path / "model.safetensors")
