"""Every measure on every hard case: within 1e-5 of float64 NumPy on the stored values, or NaN.

Where a value is NaN a warning has to name the layer and the reason, and the table says so here.
Arrays in memory go through `vitcnn.compare`, activations on the device through the analyses.
"""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

import vitcnn
from vitcnn.analyses import Config, Group, View, cka, similarity
from vitcnn.numerics.exact import host_shapes, to_host
from vitcnn.similarity import distances, gram, measures
from vitcnn.taps import TapInfo

N, P, Q = 64, 40, 30
NARROW, WIDE = "cka_rbf, narrow", "cka_rbf, wide"
BANDWIDTH = {NARROW: 0.1, WIDE: 30.0}
ORACLES = oracles.SIMILARITY | {
    name: lambda x, y, width=width: oracles.rbf(x, y, width) for name, width in BANDWIDTH.items()
}
OPTIONS = {measure: {"components": oracles.K} for measure in oracles.CCA}
OPTIONS |= {m: {"neighbours": oracles.NEIGHBOURS} for m in ("neighbours", "cknna")}
OPTIONS |= {name: {"bandwidth": width} for name, width in BANDWIDTH.items()}
# What the warning says of layers for which CCA is NaN.
ALIKE = "principal components too close in strength"
EVEN = "all images equally far apart"
DEAD = "do not vary over the images"


def plain():
    """Two related layers with a plain spectrum of few strong directions."""
    rng = np.random.default_rng(0)
    strong = rng.normal(size=(N, 6)) * [5, 4, 3, 1, 0.8, 0.6]
    x = strong @ rng.normal(size=(6, P)) + rng.normal(size=(N, P))
    strong += rng.normal(size=(N, 6)) * [4, 3, 2, 0.3, 0.3, 0.3]
    return x, strong @ rng.normal(size=(6, Q)) + rng.normal(size=(N, Q))


X, Y = plain()


def noise(*shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape)


def digits(width, count, seed):
    """Features of 0, 1 and 2, `count` of them that vary: many distances are equal."""
    some = np.random.default_rng(seed).integers(0, 3, (N, count))
    return np.pad(some.astype(float), ((0, 0), (0, width - count)))


def outlier(x, size, image):
    x = x.copy()
    x[image] *= size
    return x


def groups(x, ratio, count=4, seed=2):
    """Tight groups; distances within and between them are about as 1 : ratio."""
    centres = noise(count, x.shape[1], seed=seed)
    return x + ratio * x.std() * centres[np.arange(N) % count]


def duplicates(x, difference):
    """Images 0 and 1 nearly the same, 8 and 9 exactly, and 8 to 20 all but one."""
    x = x.copy()
    x[1] = x[0] * (1 + difference * noise(x.shape[1]))
    x[9:20] = x[8]
    return x


def twins(x, difference):
    x = x.copy()
    x[::2] = x[1::2] * (1 + difference * noise(N // 2, x.shape[1]))
    return x


def of_scales(low, high, axis):
    shape = [1, 1]
    shape[axis] = (N, P)[axis]
    return 10 ** np.random.default_rng(3).uniform(low, high, shape)


CASES = {
    "ordinary": (X, Y),
    "more features than images": (noise(N, 300), np.tile(Y, 10) + noise(N, 300)),
    "fewer features than images": (X[:, :5], Y[:, :7]),
    "offset of 1e4 standard deviations": (X + 1e4 * X.std(), Y - 1e4 * Y.std()),
    "offset of one feature": (X + 1e5 * (np.arange(P) == 7), Y),
    "scales 1e-10 and 1e10": (X * 1e-10, Y * 1e10),
    "scales 1e-25 and 1e25": (X * 1e-25, Y * 1e25),
    "features of mixed scales": (X * of_scales(-10, 10, 1), Y),
    "images of mixed scales": (X * of_scales(-3, 3, 0), Y),
    "first image 1e3 times larger": (outlier(X, 1e3, 0), Y),
    "first image 1e6 times larger": (outlier(X, 1e6, 0), Y),
    "an image 1e6 times larger in both": (outlier(X, 1e6, 5), outlier(Y, 1e6, 5)),
    "near duplicates": (duplicates(X, 1e-6), Y),
    "duplicates in both": (duplicates(X, 0), duplicates(Y, 0)),
    "every image twice": (twins(X, 1e-6), twins(Y, 1e-4)),
    "two far groups": (X + 1e4 * (np.arange(N) < 32)[:, None], Y),
    "two groups at the end of float32": (X + 1e6 * (np.arange(N) < 32)[:, None], Y),
    "tight groups 1 : 30": (groups(X, 30), groups(Y, 30, seed=3)),
    "tight groups 1 : 3000": (groups(X, 3000), groups(Y, 3000, seed=3)),
    "tight groups 1 : 1e5": (groups(X, 1e5), groups(Y, 1e5, seed=3)),
    "a massive feature": (X + 1e4 * X[:, :1] * (np.arange(P) == 3), Y),
    "dead features": (np.where(np.arange(P) < 20, 7, X), Y),
    "integers": (np.round(X), np.round(Y / 3)),
    "ties": (digits(P, 6, seed=4), digits(Q, 5, seed=5)),
    "binary": (np.float64(X > 0), np.float64(Y > 0)),
    "nearly equidistant": (np.eye(N) + 1e-3 * noise(N, N), Y),
    "equidistant": (np.eye(N), Y),
    "constant": (np.full((N, P), 7.0), Y),
}
# Case -> what a warning says -> the measures that are NaN; all others have their value.
CCA = set(oracles.CCA)
RBF = {"cka_rbf", NARROW, WIDE}
UNDEFINED = {
    "first image 1e6 times larger": {ALIKE: CCA},
    "an image 1e6 times larger in both": {ALIKE: CCA},
    "two groups at the end of float32": {ALIKE: CCA},
    "first image at 1e7": {ALIKE: CCA},
    "equidistant": {
        ALIKE: CCA,
        EVEN: {"rsa_pearson", "rsa_spearman"},
        "no RBF kernel that varies": RBF,
        DEAD: {"cka"},
    },
    "constant": {DEAD: set(ORACLES)},
}
TYPES = {
    "float32": np.float32,
    "float64": np.float64,
    "bfloat16": lambda x: jnp.asarray(x.astype(np.float32), jnp.bfloat16),
    "float16": np.float16,
    "int64": lambda x: np.round(x * 16).astype(np.int64),
}
# The other types see the cases that their range and digits hold.
FEW = (
    "ordinary",
    "offset of one feature",
    "first image 1e3 times larger",
    "near duplicates",
    "every image twice",
    "two far groups",
    "tight groups 1 : 30",
    "binary",
)
# float64 holds what no float32 does, and has to be shifted before it is rounded.
CASES_64 = {
    "first image at 1e7": (X + 1e7 * (np.arange(N) == 0)[:, None], Y),
    "offset of 1e10": (X + 1e10, Y - 1e10),
    "scales 1e-60 and 1e60": (X * 1e-60, Y * 1e60),
    "tight groups 1 : 1e5 far away": (groups(X, 1e5) + 1e9, groups(Y, 1e5, seed=3)),
}
TABLE = [(case, "float32") for case in CASES]
TABLE += [(case, "float64") for case in [*CASES_64, *FEW]]
TABLE += [(case, kind) for kind in ("bfloat16", "float16", "int64") for case in FEW[1:5]]


def stored(case, kind):
    x, y = ({**CASES, **CASES_64})[case]
    if kind == "float16" and case == "offset of one feature":
        x = x / 1e3
    x, y = (TYPES[kind](a) for a in (x, y))
    assert all(np.isfinite(np.asarray(a, np.float64)).all() for a in (x, y))
    return x, y


def truth(name, x, y):
    x, y = (np.asarray(a).astype(np.float64) for a in (x, y))
    return ORACLES[name](x, y)


def check(name, found, messages, case, x, y):
    """Asserts the value of a measure, or NaN with a warning that names layer x and the reason."""
    reasons = [why for why, names in UNDEFINED.get(case, {}).items() if name in names]
    if not reasons:
        assert abs(found - truth(name, x, y)) < 1e-5, (name, found, messages)
        assert not messages, (name, messages)
        return
    (why,) = reasons
    assert np.isnan(found), (name, found)
    assert any(why in message and "x" in message.rpartition(": ")[2] for message in messages), (
        name,
        messages,
    )


@pytest.mark.parametrize(("case", "kind"), TABLE)
def test_in_memory(case, kind):
    x, y = stored(case, kind)
    for name in ORACLES:
        measure = name.partition(",")[0]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            table = vitcnn.compare({"x": x}, {"y": y}, measure, **OPTIONS.get(name, {}))
        messages = [str(w.message) for w in caught]
        check(name, float(table[measure][0, 0]), messages, case, x, y)


INFOS = {name: TapInfo(name, shape=(size,)) for name, size in (("x", P), ("y", Q))}
LAYERS = (("m", "x"), ("m", "y"))
SETTINGS = similarity.Settings(
    measures=tuple(measures.registered()),
    neighbours=oracles.NEIGHBOURS,
    components=oracles.K,
)
JOBS = {"similarity": (similarity, Config(SETTINGS, LAYERS, tuple(INFOS.values())))} | {
    name: (cka, Config(cka.Settings(kernel="rbf", bandwidth=w), LAYERS, tuple(INFOS.values())))
    for name, w in BANDWIDTH.items()
}


def program(x, y):
    group = Group(jnp.zeros(N), None, {"m": View(None, {"x": x, "y": y}, None, INFOS, None)})
    return {name: job.measure(group, config, {}) for name, (job, config) in JOBS.items()}


RUN = jax.jit(program)


@pytest.mark.parametrize(
    ("case", "kind"),
    [(case, "float32") for case, (x, y) in CASES.items() if (x.shape[1], y.shape[1]) == (P, Q)]
    + [(case, "bfloat16") for case in FEW],
)
def test_in_the_analyses(case, kind):
    sums = to_host(RUN(*stored(case, kind)))
    for job, (analysis, config) in JOBS.items():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = analysis.finalize(sums[job], config)
        for name in SETTINGS.measures if job == "similarity" else [job]:
            variable = name if job == "similarity" else "cka"
            messages = [str(w.message) for w in caught]
            if job == "similarity":
                messages = [m for m in messages if f" {name} " in m.replace(",", " ")]
            found = float(result[variable][0, 1])
            check(name, found, messages, case, *stored(case, kind))


def test_sums_have_the_form_that_is_announced():
    x, y = stored("ordinary", "float32")
    shapes = host_shapes(jax.eval_shape(program, x, y))
    shape = lambda leaf: np.shape(leaf) if isinstance(leaf, np.ndarray | float) else leaf.shape  # noqa: E731
    assert jax.tree.map(shape, shapes) == jax.tree.map(shape, to_host(RUN(x, y)))


def test_groups_of_other_scales_add_up():
    """HSIC of an RBF kernel is in the same unit in every group, whatever the features are in."""
    scale = np.where(np.arange(N) < N // 2, 1e-8, 1e8)[:, None]
    halves = [slice(0, N // 2), slice(N // 2, N)]
    for width in (0.3, 1.0, 30.0):
        kernel = oracles.narrow_kernel if width < 1 else oracles.rbf_kernel
        kernels = [[kernel(np.float32(a[h]).astype(float), width) for h in halves] for a in (X, Y)]
        xy, xx, yy = (
            sum(oracles.song(a, b) for a, b in zip(kernels[i], kernels[j], strict=True))
            for i, j in ((0, 1), (0, 0), (1, 1))
        )
        xs, ys = {"x": np.float32(X * scale)}, {"y": np.float32(Y)}
        found = vitcnn.compare(xs, ys, "cka_rbf", N // 2, bandwidth=width).cka_rbf
        assert float(found[0, 0]) == pytest.approx(xy / np.sqrt(xx * yy), abs=1e-5)


def test_distances_hold_fourteen_digits():
    x = np.float32(groups(X, 1e5))
    exact = np.square(oracles.pairs(x.astype(float)))
    squared = jax.jit(lambda x: distances.stacked([distances.squared(x, gram.linear(x))]))
    (found,) = to_host(squared(x))
    np.testing.assert_allclose(found / found[-1], exact / exact[-1], rtol=1e-13)


def test_integers_beyond_float64():
    """Integers are subtracted as integers: float64 holds only those below 2**53."""
    x, y = np.round(X * 16).astype(np.int64), np.float32(Y)
    small = vitcnn.compare({"x": x}, {"y": y}, "rsa_spearman").rsa_spearman
    for large in (x + 2**62, (x + 2**20).astype(np.uint64) + np.uint64(2**63)):
        found = vitcnn.compare({"x": large}, {"y": y}, "rsa_spearman").rsa_spearman
        assert float(found[0, 0]) == float(small[0, 0])
