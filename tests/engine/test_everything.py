"""All analyses in one pass: the same numbers as one by one, and on any number of devices."""

import numpy as np
import pytest
import running
from ml_collections import ConfigDict

from vitcnn import results
from vitcnn.engine import analyze

# Counts of what is nearest or right: rounding may turn one of the 40 images, or one layer.
COUNTS = ("accuracy", "top", "right", "own_", "match_", "lag", "drop", "neighbours", "penalty")
CONFIG = running.ROOT / "configs/analyze/everything.py"


def run(workdir, *flags, devices=1):
    """Runs the smallest form of the config in a process of its own; returns its Results."""
    running.analyze("everything.py:smallest", workdir, *flags, devices=devices)
    return results.load_all(workdir)


@pytest.fixture(scope="module")
def joint(tmp_path_factory):
    return run(tmp_path_factory.mktemp("joint"))


@pytest.mark.slow  # tests/engine/test_family_from_outside.py runs every analysis too
def test_every_analysis_is_in_it(joint):
    found = {results.provenance(result)["analysis"] for result in joint.values()}
    files = {path.stem for path in (running.ROOT / "vitcnn/analyses").glob("[a-z]*.py")}
    assert found | {"probe_fit"} == files


@pytest.mark.slow
def test_two_devices_give_the_same_bits(joint, tmp_path):
    again = run(tmp_path, devices=2)
    assert again.keys() == joint.keys()
    for name, result in joint.items():
        for variable in result.variables:
            a, b = (np.asarray(r[variable].values) for r in (result, again[name]))
            if name.startswith(("decoding", "objects", "cues")) and a.dtype.kind == "f":
                # Their products over all tokens are split by the threads of a device.
                np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
                continue
            same = a.astype(str) if a.dtype == object else a
            other = b.astype(str) if b.dtype == object else b
            assert same.tobytes() == other.tobytes(), (name, variable)


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:.*do not vary|.*do not count|.*is zero|.*no receptive field:UserWarning"
)
def test_each_analysis_alone_gives_the_same_numbers(joint, tmp_path):
    """To rounding: XLA fuses other programs in other ways."""
    config = running.load(CONFIG).get_config("smallest")
    config.stages = {}  # probes go on from them, and are compared in test_probe
    for name in [name for name in config.analyses if not name.startswith("probe")]:
        alone = ConfigDict({**config, "analyses": {name: config.analyses[name]}})
        found = analyze.analyze(alone, tmp_path / name, progress=False)
        assert found
        for key, result in found.items():
            for variable in result.data_vars:
                a, b = result[variable].values, joint[key][variable].values
                if variable.endswith("_standard_error") or any(c in variable for c in COUNTS):
                    np.testing.assert_allclose(a, b, atol=0.3, err_msg=f"{key} {variable}")
                elif a.dtype.kind == "f":
                    scale = np.max(np.abs(b), initial=1e-12, where=np.isfinite(b))
                    np.testing.assert_allclose(
                        a, b, rtol=1e-4, atol=1e-4 * scale, err_msg=f"{key} {variable}"
                    )
