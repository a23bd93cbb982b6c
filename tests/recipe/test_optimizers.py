"""Optimizers: steps of every recipe against NumPy in float64, and names on the real networks."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
from networks import flat, shapes_of

from vitcnn import models
from vitcnn.recipe import optimizers

LEVELS = np.array([0.5, 1.0, 0.25])  # of the schedule, at three steps


def schedule(step):
    return jnp.asarray(LEVELS, jnp.float32)[step]


def config(name, learning_rate=0.1, weight_decay=0.0, clip=0.0, **rest):
    decay, multipliers = rest.pop("decay", ("*kernel",)), rest.pop("multipliers", ())
    return {
        "optimizer": {"optimizer": name, **rest},
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "decay": decay,
        "multipliers": multipliers,
        "clip": clip,
    }


SHAPES = {
    "embedding": {"kernel": (4, 3), "bias": (3,)},
    "norm": {"scale": (3,)},
    "head": {"kernel": (40, 36), "bias": (36,)},
}


def draw(seed, scale=1.0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda shape: rng.normal(0, scale, shape).astype(np.float32),
        SHAPES,
        is_leaf=lambda x: isinstance(x, tuple),
    )


GRADIENTS = [draw(seed, 3.0) for seed in (1, 2, 3)]


# Directions in NumPy: (gradient, state of the array, number of the step from 1) -> direction.


def exact(x):
    return x


def bfloat16(x):
    return np.asarray(x, np.float64).astype(ml_dtypes.bfloat16).astype(np.float64)


def kept(share, state, key, store):
    """The share of what is stored; both and their product are rounded to the type of the store."""
    return store(store(share) * state.get(key, 0.0))


def momentum(m, nesterov=False, store=exact):
    def direction(g, state, t):
        total = g + kept(m, state, "sum", store)
        state["sum"] = store(total)
        return g + m * total if nesterov else total

    return direction


def adam(b1=0.9, b2=0.999, eps=1e-8, nesterov=False, store=exact):
    def direction(g, state, t):
        first = (1 - b1) * g + kept(b1, state, "first", store)
        second = (1 - b2) * g**2 + b2 * state.get("second", 0.0)
        state.update(first=store(first), second=second)
        mean = first / (1 - b1**t)
        if nesterov:
            mean = b1 * first / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
        return mean / (np.sqrt(second / (1 - b2**t)) + eps)

    return direction


def adafactor(g, state, t):
    keep = min(0.999, 1 - t**-0.8)
    square = g**2 + 1e-30
    if g.ndim == 2 and min(g.shape) >= 32:
        rows = keep * state.get("rows", 0.0) + (1 - keep) * square.mean(1, keepdims=True)
        columns = keep * state.get("columns", 0.0) + (1 - keep) * square.mean(0, keepdims=True)
        state.update(rows=rows, columns=columns)
        second = rows * columns / rows.mean()
    else:
        second = state["second"] = keep * state.get("second", 0.0) + (1 - keep) * square
    average = kept(0.9, state, "average", bfloat16) + 0.1 * g / np.sqrt(second)
    state["average"] = bfloat16(average)
    return average


def lion(g, state, t):
    average = state.get("average", 0.0)
    state["average"] = 0.01 * g + 0.99 * average
    return np.sign(0.1 * g + 0.9 * average)


def rmsprop(g, state, t):
    second = state["second"] = 0.1 * g**2 + 0.9 * state.get("second", 0.0)
    total = state["sum"] = g / np.sqrt(second + 1e-8) + 0.8 * state.get("sum", 0.0)
    return total


def identity(g, state, t):
    return g


KERNELS = {"embedding/kernel": 1.0, "head/kernel": 1.0}
HEAD = {"embedding/kernel": 0.0, "embedding/bias": 0.0, "norm/scale": 0.0}

# name -> (config, direction, then what the oracle has to know besides)
RECIPES = {
    "ViT, AugReg": (
        config("adam", 1e-3, weight_decay=0.1, clip=1.0, mu_dtype="bfloat16"),
        adam(store=bfloat16),
        {},
    ),
    "ViT fine-tuning": (
        config("sgd", 0.03, clip=1.0, accumulator_dtype="bfloat16"),
        momentum(0.9, store=bfloat16),
        {},
    ),
    "BiT": (config("sgd", 1.6, weight_decay=1e-3, clip=1.0), momentum(0.9), {}),
    "airbench": (
        config("sgd", weight_decay=0.5, momentum=0.85, nesterov=True),
        momentum(0.85, nesterov=True),
        {},
    ),
    "DeiT": (config("adam", 1e-3, weight_decay=0.05), adam(), {}),
    "DeiT-III": (
        config("lamb", 4e-3, weight_decay=0.02),
        adam(eps=1e-6),
        {"trust": 1.0},
    ),
    "ViT-g": (
        config("adafactor", 8e-4, weight_decay=0.03, decay=("head/kernel=100", "*kernel")),
        adafactor,
        {"decay": {"embedding/kernel": 1.0, "head/kernel": 100.0}},
    ),
    "a head alone": (
        config("sgd", weight_decay=0.1, clip=1.0, multipliers=("head/*=1", "*=0")),
        momentum(0.9),
        {"multipliers": HEAD},
    ),
    "rates by layer": (
        config("adam", 1e-2, weight_decay=0.5, b2=0.95, multipliers=("embedding/*=0.1", "*bias=2")),
        adam(b2=0.95),
        {"multipliers": {"embedding/kernel": 0.1, "embedding/bias": 0.1, "head/bias": 2.0}},
    ),
    "NAdam": (config("adam", nesterov=True), adam(nesterov=True), {}),
    "Lion": (config("lion", 1e-4, weight_decay=1.0, clip=1.0), lion, {}),
    "RMSProp": (config("rmsprop", weight_decay=0.1, momentum=0.8), rmsprop, {}),
    "LARS": (
        config("lars", 2.0, weight_decay=0.1),
        identity,
        {"trust": 0.001, "then": momentum(0.9)},
    ),
    "gradient descent": (config("sgd", momentum=0.0), identity, {}),
    "a function of optax": (
        config("optax.scale_by_sign", 1e-3, weight_decay=0.1),
        lambda g, state, t: np.sign(g),
        {},
    ),
}


def oracle(config, direction, decay=KERNELS, multipliers=None, trust=None, then=identity):
    """Returns the updates of three steps by path: the module docstring, in float64."""
    params = {path: x.astype(np.float64) for path, x in flat(draw(0)).items()}
    states = {path: ({}, {}) for path in params}
    multipliers = {path: (multipliers or {}).get(path, 1.0) for path in params}
    steps = []
    for t, gradient in enumerate(GRADIENTS, 1):
        gradient = {p: g.astype(np.float64) for p, g in flat(gradient).items() if multipliers[p]}
        norm = np.sqrt(sum((g**2).sum() for g in gradient.values()))
        clip = min(1, config["clip"] / norm) if config["clip"] else 1.0
        updates = {path: np.zeros_like(x) for path, x in params.items()}
        for path, g in gradient.items():
            x, (state, state_then) = params[path], states[path]
            moved = direction(clip * g, state, t)
            moved = moved + config["weight_decay"] * decay.get(path, 0.0) * x
            if trust and path in decay:
                moved = moved * trust * np.linalg.norm(x) / np.linalg.norm(moved)
            moved = then(moved, state_then, t)
            rate = config["learning_rate"] * multipliers[path] * LEVELS[t - 1]
            updates[path] = -rate * moved
            params[path] = x + updates[path]
        steps.append(updates)
    return steps


def take_steps(config):
    """Returns (updates of three steps, parameters after them, state)."""
    optimizer = optimizers.make(config, schedule)
    params = jax.tree.map(jnp.asarray, draw(0))
    state, steps = optimizer.init(params), []
    for gradient in GRADIENTS:
        gradient = jax.tree.map(jnp.asarray, gradient)
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        steps.append(flat(updates))
    return steps, params, state


@pytest.mark.parametrize("name", RECIPES)
def test_three_steps_are_those_of_the_formula(name):
    settings, direction, rest = RECIPES[name]
    steps, _, state = take_steps(settings)
    coarse = any(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(state))
    assert coarse == ("bfloat16" in str(settings) or name == "ViT-g")
    for updates, expected in zip(steps, oracle(settings, direction, **rest), strict=True):
        assert updates.keys() == expected.keys()
        for path, update in updates.items():
            assert update.dtype == jnp.float32
            scale = np.abs(expected[path]).max()
            np.testing.assert_allclose(update, expected[path], atol=5e-5 * scale, rtol=0)


def in_torch(torch, factory, weight_decay, learning_rate):
    """Returns parameters after three steps of an optimizer that decays kernels alone."""
    params = {path: torch.nn.Parameter(torch.tensor(x)) for path, x in flat(draw(0)).items()}
    kernels = [x for path, x in params.items() if path in KERNELS]
    others = [x for path, x in params.items() if path not in KERNELS]
    groups = [{"params": kernels, "weight_decay": weight_decay}]
    optimizer = factory([*groups, {"params": others, "weight_decay": 0.0}])
    for level, gradient in zip(LEVELS, GRADIENTS, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * level
        for path, g in flat(gradient).items():
            params[path].grad = torch.tensor(g)
        optimizer.step()
    return {path: x.detach().numpy() for path, x in params.items()}


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["adam", "lamb", "sgd"])
def test_steps_are_those_of_torch_and_timm(name):
    torch, optim = pytest.importorskip("torch"), pytest.importorskip("timm.optim")
    factory, settings = {
        "adam": (torch.optim.AdamW, config("adam", 1e-3, weight_decay=0.05)),
        "lamb": (
            lambda groups: optim.Lamb(groups, max_grad_norm=None),
            config("lamb", 4e-3, weight_decay=0.02),
        ),
        "sgd": (
            lambda groups: torch.optim.SGD(groups, momentum=0.9, nesterov=True),
            config("sgd", nesterov=True),
        ),
    }[name]
    expected = in_torch(torch, factory, settings["weight_decay"], settings["learning_rate"])
    _, params, _ = take_steps(settings)
    for path, x in flat(params).items():
        np.testing.assert_allclose(x, expected[path], rtol=1e-5, atol=1e-6, err_msg=path)


def test_frozen_parameters_do_not_change_and_have_no_state():
    settings = config("adam", weight_decay=0.1, clip=1.0, multipliers=("head/*=1", "*=0"))
    steps, params, state = take_steps(settings)
    start, end = flat(draw(0)), flat(params)
    for path in start:
        moves = path.startswith("head/")
        assert (start[path].tobytes() != np.asarray(end[path]).tobytes()) == moves, path
        assert any(np.any(updates[path]) for updates in steps) == moves, path
    arrays = [leaf.shape for leaf in jax.tree.leaves(state) if leaf.ndim]
    assert sorted(arrays) == [(36,), (36,), (40, 36), (40, 36)]


def test_one_program_takes_every_step():
    settings = RECIPES["ViT, AugReg"][0]
    optimizer, traces = optimizers.make(settings, schedule), []

    @jax.jit
    def step(params, state, gradient):
        traces.append(1)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    params = jax.tree.map(jnp.asarray, draw(0))
    state = optimizer.init(params)
    for gradient in GRADIENTS:
        params, state = step(params, state, gradient)
    assert len(traces) == 1
    for path, value in flat(take_steps(settings)[1]).items():
        np.testing.assert_allclose(flat(params)[path], value, atol=1e-5)


def test_norms_are_those_of_the_trainable_parameters():
    gradient, params, updates = draw(1), draw(2), draw(3)
    norms = optimizers.norms(("head/*=0",), gradient=gradient, params=params, updates=updates)
    for name, tree in (("gradient", gradient), ("parameter", params), ("update", updates)):
        squares = [np.sum(np.float64(x) ** 2) for p, x in flat(tree).items() if "head" not in p]
        assert float(norms[f"{name}_norm"]) == pytest.approx(np.sqrt(sum(squares)), rel=1e-6)
    assert norms.keys() == {"gradient_norm", "parameter_norm", "update_norm"}


# What decays in each network, written out; nothing else does: no bias of any rank, norm, position
# embedding, class token, register or layer scale.
ATTENTION = "Transformer/encoderblock_0/MultiHeadDotProductAttention_1"
DECAYED = {
    "vit": {
        "embedding/kernel",
        *(f"{ATTENTION}/{name}/kernel" for name in ("query", "key", "value", "out")),
        *(f"Transformer/encoderblock_0/MlpBlock_3/Dense_{i}/kernel" for i in (0, 1)),
        "pre_logits/kernel",
        "head/kernel",
    },
    "mixer": {
        "stem/kernel",
        *(
            f"MixerBlock_0/{name}_mixing/Dense_{i}/kernel"
            for name in ("token", "channel")
            for i in (0, 1)
        ),
        "head/kernel",
    },
    "resnet": {
        "conv_root/kernel",
        *(f"block1/unit1/{name}/kernel" for name in ("conv1", "conv2", "conv3", "conv_proj")),
        "head/kernel",
    },
    "bit": {
        "resnet/root_block/standardized_conv2d/kernel",
        *(f"resnet/block1/unit01/{name}/standardized_conv2d/kernel" for name in "abc"),
        "resnet/block1/unit01/a/proj/standardized_conv2d/kernel",
        "head/kernel",
    },
}
SPARED = {
    "vit": ("cls", "registers", "pos_embedding", "scale", "gamma", "bias"),
    "mixer": ("scale", "bias"),
    "resnet": ("scale", "bias"),
    "bit": ("gamma", "beta", "bias"),
}
SMALL = {
    "vit": ("B/16", {"depth": 1, "pre_logits": 768, "registers": 4, "layer_scale": 0.1}),
    "mixer": ("B/16", {"depth": 1}),
    "resnet": ("R50x1", {"units": (1,), "widths": (64,)}),
    "bit": ("R50x1", {"units": (1,), "widths": (64,)}),
}


@pytest.mark.parametrize("family", DECAYED)
def test_what_decays_in_each_network(family):
    variant, fields = SMALL[family]
    params = shapes_of(models.create(family, variant, **fields))[0]["params"]
    assert optimizers.decayed(params, ("*kernel",)) == dict.fromkeys(DECAYED[family], 1.0)
    spared = {path.rsplit("/")[-1] for path in flat(params)} - {"kernel"}
    assert spared == set(SPARED[family])


def tree(*paths):
    """Returns shapes with these paths."""
    params = {}
    for path in paths:
        *folders, name = path.split("/")
        inner = params
        for folder in folders:
            inner = inner.setdefault(folder, {})
        inner[name] = jax.ShapeDtypeStruct((2,), jnp.float32)
    return params


def test_the_first_pattern_counts():
    params = tree("stem/kernel", "stem/bias", "head/kernel", "head/bias", "neck/kernel")
    patterns = ("head/kernel=100", "stem/kernel = 0", "*kernel", "stem/*=0.5")
    assert optimizers.decayed(params, patterns) == {
        "head/kernel": 100.0,
        "stem/bias": 0.5,
        "neck/kernel": 1.0,
    }
    assert optimizers.decayed(params, ()) == {}
    assert flat(optimizers.trainable(params, ("head/*=1", "*=0"))) == {
        "stem/kernel": False,
        "stem/bias": False,
        "head/kernel": True,
        "head/bias": True,
        "neck/kernel": False,
    }
    assert all(flat(optimizers.trainable(params, ())).values())


PATTERNS = {
    "decay, no match": (
        {"decay": ("*kernal",)},
        r"config.decay: '\*kernal' matches no parameter; ",
    ),
    "decay, nearest": ({"decay": ("head/kernl",)}, "config.decay: .*did you mean 'head/kernel'"),
    "multiplier, no match": ({"multipliers": ("heads/*=0",)}, "config.multipliers: 'heads/\\*'"),
    "no factor": (
        {"multipliers": ("head/*",)},
        """config.multipliers: 'head/\\*' is not "glob=f""",
    ),
    "bad factor": ({"decay": ("head/*=x",)}, """is not "glob" or "glob=factor" with a factor"""),
    "negative": ({"multipliers": ("head/*=-1",)}, "config.multipliers: .* with a factor from 0"),
    "shadowed": (
        {"multipliers": ("*=0", "head/*=1")},
        r"'head/\*' has no effect, because '\*' before it matches the same parameters",
    ),
    "twice": ({"multipliers": ("*=1", "*=0")}, r"config.multipliers has the pattern '\*' twice"),
    "all frozen": ({"multipliers": ("*=0",)}, "freeze every parameter"),
}


@pytest.mark.parametrize("case", PATTERNS)
def test_a_pattern_that_does_not_fit_is_named(case):
    fields, message = PATTERNS[case]
    with pytest.raises(ValueError, match=message):
        optimizers.make(config("adam", **fields), schedule).init(draw(0))


BAD = {
    "adamw": (config("adamw"), "use 'adam'; config.weight_decay is decoupled for every optimizer"),
    "name": (config("adan"), "unknown optimizer 'adan': did you mean 'adam'"),
    "field": (config("adam", beta2=0.9), "unknown field of the optimizer adam: 'beta2'"),
    "field of another": (config("sgd", b1=0.9), "unknown field of the optimizer sgd: 'b1'"),
    "type": (config("adam", mu_dtype="bf16"), "unknown type for mu_dtype: 'bf16': .*'bfloat16'"),
    "rate": (config("adam", -1e-3), r"config.learning_rate = -0.001: expected a number from 0"),
    "decay": (config("adam", weight_decay=-0.1), r"config.weight_decay = -0.1"),
    "clip": (config("adam", clip=float("nan")), "config.clip = nan"),
    "whole optimizer": (config("optax.adamw"), "'optax.adamw' has a learning rate of its own"),
    "no module": (config("optaxx.adan"), "unknown optimizer 'optaxx.adan': No module"),
    "no function": (config("optax.scale_by_adn"), "unknown optimizer .* no attribute"),
    "no field there": (config("optax.scale_by_sign", b1=1), "optimizer optax.scale_by_sign: 'b1'"),
}


@pytest.mark.parametrize("case", BAD)
def test_an_optimizer_that_does_not_fit_is_named(case):
    settings, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        optimizers.make(settings, schedule)


def test_fields_are_the_arguments():
    fields = optimizers.fields("sgd")
    assert {name: (field.type, field.default) for name, field in fields.items()} == {
        "momentum": (float, 0.9),
        "nesterov": (bool, False),
        "accumulator_dtype": (str, ""),
    }
    for name in optimizers.OPTIMIZERS:
        assert all(field.meaning for field in optimizers.fields(name).values()), name
    assert optimizers.fields("optax.scale_by_adan")["b3"].default == 0.99


def test_decay_of_classic_sgd():
    """Without a gradient, an L2 term of 5e-4 and momentum 0.9 shrink as a weight decay of 5e-3."""
    rate, weight, momentum_sum = 1e-2, 1.0, 0.0
    shrunk = []
    for _ in range(400):
        momentum_sum = 0.9 * momentum_sum + 5e-4 * weight
        weight -= rate * momentum_sum
        shrunk.append(weight)
    optimizer = optimizers.make(
        config("sgd", rate, weight_decay=5e-3), lambda step: jnp.ones((), jnp.float32)
    )
    params = {"kernel": jnp.ones((1, 1))}
    (update, _) = optimizer.update({"kernel": jnp.zeros((1, 1))}, optimizer.init(params), params)
    ours = 1 + float(update["kernel"][0, 0])
    assert shrunk[-1] / shrunk[-2] == pytest.approx(ours, abs=1e-7)
