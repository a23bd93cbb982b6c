"""Safetensors files, written from the description of the format and by its library."""

import json
import re

import numpy as np
import pytest

from vitcnn import checkpoints


def write(path, header, data=b"", length=None):
    text = json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def entry(dtype, shape, start, stop):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


def test_arrays_of_every_type_come_by_their_keys(tmp_path):
    half = np.array([[1.5, -2.0]], np.float16)
    single = np.array([0.1, 3e38], np.float32)
    brain = (single.view(np.uint32) >> 16).astype(np.uint16)
    seen = np.array(7, np.int64)
    data = half.tobytes() + single.tobytes() + brain.tobytes() + seen.tobytes()
    header = {
        "__metadata__": {"format": "pt"},
        "half": entry("F16", [1, 2], 0, 4),
        "single": entry("F32", [2], 4, 12),
        "brain": entry("BF16", [2], 12, 16),
        "seen": entry("I64", [], 16, 24),
    }
    arrays = checkpoints.read(write(tmp_path / "a.safetensors", header, data))
    assert list(arrays) == ["half", "single", "brain", "seen"]
    np.testing.assert_array_equal(arrays["half"], np.float32(half))
    np.testing.assert_array_equal(arrays["single"], single)
    np.testing.assert_allclose(arrays["brain"], single, rtol=2**-7)
    assert arrays["seen"].shape == () and arrays["seen"] == 7
    assert all(arrays[k].dtype == np.float32 for k in ("half", "single", "brain"))


@pytest.mark.oracle
def test_the_librarys_own_files(tmp_path):
    library = pytest.importorskip("safetensors.numpy")
    rng = np.random.default_rng(0)
    arrays = {
        "b": rng.normal(size=(3, 1, 2)),
        "a": rng.integers(9, size=4),
        "empty": np.zeros((0, 2)),
    }
    library.save_file(arrays, tmp_path / "a.safetensors")
    got = checkpoints.read(tmp_path / "a.safetensors")
    assert got.keys() == arrays.keys()
    for key, value in arrays.items():
        np.testing.assert_array_equal(got[key], value)
        assert got[key].dtype == value.dtype


GOOD = {"a": entry("F32", [2], 0, 8)}


@pytest.mark.parametrize("beginning", [b"<\x0f", b"<h", b"<!"])
def test_the_length_of_a_header_is_no_web_page(tmp_path, beginning):
    length = int.from_bytes(beginning, "little")
    header = json.dumps({"a": entry("F32", [1], 0, 4)}).encode().ljust(length)
    path = tmp_path / "a.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + header + np.float32(3).tobytes())
    assert path.read_bytes().startswith(beginning)
    assert checkpoints.read(path)["a"] == 3


@pytest.mark.parametrize(
    ("header", "data", "length", "message"),
    [
        (GOOD, b"1234567", None, "'a' ends at byte"),
        (GOOD, b"", 10**12, "cannot hold a header of 1000000000000"),
        (GOOD, b"", 5, "its header: "),
        ([1], b"", None, "its header: "),
        ({"a": {"dtype": "F32"}}, b"", None, "its header: "),
        ({"a": entry("F32", [3], 0, 8)}, b"12345678", None, "has bytes 0 to 8"),
        ({"a": entry("F32", [-2, -1], 0, 8)}, b"12345678", None, "has bytes 0 to 8"),
        ({"a": entry("F32", [2], -8, 0)}, b"12345678", None, "has bytes -8 to 0"),
        ({"a": entry(["F32"], [2], 0, 8)}, b"12345678", None, "'a' has dtype .'F32'."),
        ({"a": entry(32, [2], 0, 8)}, b"12345678", None, "'a' has dtype 32"),
        ({"a": entry("F32", [2], 0, 8) | {"data_offsets": [0, 8, 8]}}, b"", None, "0, 8, 8"),
        ({"a": entry("F32", [2], 0, 8) | {"data_offsets": [0]}}, b"", None, "data_offsets .0."),
        ({"a": entry("F32", [2], 0, 8) | {"data_offsets": 8}}, b"", None, "its header: "),
        ({"a": entry("F32", [True], 0, 4)}, b"1234", None, "of shape .True. has bytes"),
        ({"a": entry("U8", [1], False, True)}, b"1", None, "has bytes False to True"),
        ({"a": entry("F32", "2", 0, 8)}, b"12345678", None, "has bytes 0 to 8"),
        ({"a": entry("F32", [2.0], 0, 8)}, b"12345678", None, "has bytes 0 to 8"),
        ({"a": entry("F32", [0, 2**70], 0, 0)}, b"", None, "'a' of shape"),
        ({"a": entry("U8", [1] * 65, 0, 1)}, b"1", None, "'a' of shape"),
    ],
)
def test_damaged_files_are_refused(tmp_path, header, data, length, message):
    path = write(tmp_path / "a.safetensors", header, data, length)
    with pytest.raises(ValueError, match="a.safetensors is truncated, or is not.*" + message):
        checkpoints.read(path)


def test_a_header_too_deep_is_refused(tmp_path):
    text = b"[" * 100_000
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(ValueError, match=r"a.safetensors is truncated, or is not.*its header: "):
        checkpoints.read(path)


def test_other_types_empty_files_and_pointers_are_named(tmp_path):
    path = write(tmp_path / "a.safetensors", {"a": entry("F4", [2], 0, 2)}, b"12")
    with pytest.raises(ValueError, match="'a' has type F4, which vitcnn does not read"):
        checkpoints.read(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"a.safetensors is truncated"):
        checkpoints.read(path)
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    with pytest.raises(ValueError, match=re.escape("a.safetensors is a git-LFS pointer")):
        checkpoints.read(path)
    with pytest.raises(ValueError, match="it holds no arrays"):
        checkpoints.read(write(path, {}))
