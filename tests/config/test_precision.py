"""Precision of matrix products: presets are tried, and mean what their names say."""

import jax
import numpy as np
import pytest

from vitcnn import config as configs
from vitcnn import parallel
from vitcnn.config import precision

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(2, 32, 32)).astype(np.float32)


def product(name):
    return parallel.GroupProgram(lambda x, y: x @ y, name)(X, [Y])()[0]


def test_a_preset_holds_in_the_program_of_a_group():
    double = X.astype(np.float64) @ Y.astype(np.float64)
    np.testing.assert_array_equal(product("F64_F64_F64"), double.astype(np.float32))
    error = np.abs(product("F16_F16_F16") - double).max()
    half = np.abs((X.astype(np.float16) @ Y.astype(np.float16)).astype(np.float64) - double).max()
    assert half / 4 < error < half * 4  # some hundred times those of float32
    assert np.abs(product("F32_F32_F32") - double).max() < error / 100


def test_an_unsupported_preset_lists_those_that_are():
    precision.check_precision("F32_F32_F32")
    message = (
        r"precision 'TF32_TF32_F32' is not supported by the backend 'cpu': it supports default"
    )
    with pytest.raises(ValueError, match=message) as caught:
        configs.check_training({"precision": "TF32_TF32_F32"})
    listed = str(caught.value).partition("supports ")[2].split(", ")
    assert {"highest", "F32_F32_F32", "F64_F64_F64", "BF16_BF16_F32_X6"} <= set(listed)
    assert "TF32_TF32_F32" not in listed and "DEFAULT" not in listed


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(
        ValueError, match=r"unknown precision 'F32_F32': did you mean 'F32_F32_F32'"
    ):
        precision.check_precision("F32_F32")


def test_an_accelerator_warns_of_convolutions(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    monkeypatch.setattr(precision, "_is_supported", lambda preset, backend: backend == "tpu")
    with pytest.warns(UserWarning, match="convolutions, which run at the default precision"):
        precision.check_precision("BF16_BF16_F32_X6")
    precision.check_precision("highest")  # without a warning
