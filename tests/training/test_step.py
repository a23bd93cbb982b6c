"""One step: the loss, the gradient and the update of the formulas, however it is computed."""

import copy
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_training import constant, tiny

import vitcnn
from vitcnn import config as configs
from vitcnn import data
from vitcnn.recipe import optimizers
from vitcnn.training import remat, state, step

SGD = {"optimizer": configs.optimizer("sgd", momentum=0.0), "learning_rate": 0.5, "clip": 0.0}


@pytest.fixture(scope="module")
def model():
    return network()


def network(**changes):
    fields = {**tiny().model.to_dict(), **changes}
    fields = {k: v for k, v in fields.items() if v is not None and k != "preprocess"}
    found = vitcnn.load(fields.pop("family"), fields.pop("variant"), **fields)
    # The head of a fresh network is zero, and so is the gradient of everything below it.
    params = dict(found.variables["params"])
    kernel = jax.random.normal(jax.random.key(9), params["head"]["kernel"].shape)
    found.variables = {"params": {**params, "head": {**params["head"], "kernel": 0.1 * kernel}}}
    return found


@pytest.fixture(scope="module")
def batch(model):
    source = data.load("scenes", size=64, texture=1.0)
    return next(data.batches(source, model.preprocess, 16, 0))


def taken(model, batch, steps=1, unroll=True, **changes):
    """Returns (states after each step, metrics of each step)."""
    config = configs.check_training(
        tiny(**{"weight_decay": 0.0, "schedule": constant(), **changes})
    )
    optimizer = optimizers.make(config, lambda count: jnp.float32(1))
    take = jax.jit(step.make(model, optimizer, lambda count: jnp.float32(1), config, unroll))
    states, numbers = [state.first(model.variables, optimizer, bool(config.average))], []
    for _ in range(steps):
        new, metrics = take(states[-1], batch)
        states.append(new)
        numbers.append({name: value.item() for name, value in metrics.items()})
    return states, numbers


@pytest.fixture(scope="module")
def plain(model, batch):
    return taken(model, batch, steps=2, average=0.6, **SGD)


def test_a_step_is_that_of_the_formula(model, batch, plain):
    """Softmax cross-entropy, its gradient by finite differences, one SGD step."""
    states, numbers = plain
    params = model.variables["params"]
    images = jnp.asarray(model.preprocess.normalise(batch["images"]))
    forward = jax.jit(lambda params: model.forward({"params": params}, images, ())[0])

    def logits(bias):
        head = {**params["head"], "bias": jnp.asarray(bias)}
        return np.asarray(forward({**params, "head": head}), np.float64)

    def loss(bias):
        z = logits(bias)
        return np.mean(np.log(np.exp(z).sum(1)) - z[np.arange(16), batch["label"]])

    bias = np.asarray(params["head"]["bias"])
    right = logits(bias).argmax(1) == batch["label"]
    assert numbers[0]["loss"] == pytest.approx(loss(bias), rel=1e-5)
    assert numbers[0]["accuracy"] == right.mean()
    assert numbers[0]["learning_rate"] == 0.5 and numbers[0]["finite"] is True
    gradient = np.array([(loss(h) - loss(-h)) / 0.2 for h in 0.1 * np.eye(8, dtype=np.float32)])
    moved = np.asarray(states[1].params["head"]["bias"]) - bias
    np.testing.assert_allclose(moved, -0.5 * gradient, rtol=0.02, atol=1e-4)
    assert [int(each.step) for each in states] == [0, 1, 2]


def test_the_average_has_a_horizon_that_grows(plain):
    """Weights min(d, (1 + t) / (10 + t)) of the average so far: 1/10, then 2/11."""
    states, _ = plain
    first, second, third = (np.asarray(s.params["head"]["kernel"], np.float64) for s in states)
    average = 0.1 * first + 0.9 * second
    np.testing.assert_allclose(states[1].average["head"]["kernel"], average, rtol=1e-5)
    average = 2 / 11 * average + 9 / 11 * third
    np.testing.assert_allclose(states[2].average["head"]["kernel"], average, rtol=1e-5)
    assert states[2].variables["params"] is states[2].average
    assert states[2].raw_variables["params"] is states[2].params


@pytest.mark.parametrize("unroll", [True, False])
def test_accumulated_gradients_are_those_of_the_batch(model, batch, plain, unroll):
    states, numbers = taken(model, batch, unroll=unroll, accumulate=4, **SGD)
    for name in ("loss", "accuracy", "gradient_norm", "update_norm"):
        assert numbers[0][name] == pytest.approx(plain[1][0][name], rel=1e-5), name
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, atol=2e-6),
        states[1].params,
        plain[0][1].params,
    )


def test_bfloat16_is_of_the_run_alone(model, batch, plain):
    states, numbers = taken(model, batch, compute="bfloat16", **SGD)
    assert {leaf.dtype for leaf in jax.tree.leaves(states[1].params)} == {np.dtype("float32")}
    assert model.module.dtype == jnp.float32
    loss = numbers[0]["loss"]
    assert loss == pytest.approx(plain[1][0]["loss"], abs=0.02)
    # A loss in bfloat16 would be a multiple of 2^-6 between 2 and 4.
    assert loss != plain[1][0]["loss"] and loss != float(jnp.bfloat16(loss))


def test_dropout_and_mixing_depend_on_the_step_and_on_a_seed_of_their_own(model, batch):
    drops = copy.copy(model)
    drops.module = model.module.clone(dropout=0.3)
    still = {"learning_rate": 0.0}
    losses = {}
    for name, (seed, data_seed, mixup, network) in {
        "dropout": (0, 0, 0.0, drops),
        "dropout, data seed": (0, 1, 0.0, drops),
        "dropout, seed": (1, 0, 0.0, drops),
        "mixup": (0, 0, 1.0, model),
        "mixup, data seed": (0, 1, 1.0, model),
        "mixup, seed": (1, 0, 1.0, model),
    }.items():
        mixing = configs.mixing(mixup=mixup)
        _, numbers = taken(
            network, batch, steps=2, seed=seed, data_seed=data_seed, mixing=mixing, **still
        )
        losses[name] = [each["loss"] for each in numbers]
        assert losses[name][0] != losses[name][1], name
    assert losses["dropout"] == losses["dropout, data seed"] != losses["dropout, seed"]
    assert losses["mixup"] == losses["mixup, seed"] != losses["mixup, data seed"]


def test_blocks_are_computed_again():
    """The same gradient, from a third of the arrays that the forward pass keeps at most."""
    model = network(depth=2)
    images = jax.random.normal(jax.random.key(1), (4, 32, 32, 3))
    paths = remat.blocks(model.module, jax.ShapeDtypeStruct(images.shape, images.dtype))
    assert paths == {("Transformer", f"encoderblock_{i}") for i in range(2)}

    def loss(apply, params):
        return jnp.sum(apply({"params": params}, images, train=True, rngs={}) ** 2)

    def kept(apply):
        pullback = jax.eval_shape(
            lambda params: jax.vjp(functools.partial(loss, apply), params)[1],
            model.variables["params"],
        )
        return sum(leaf.size for leaf in jax.tree.leaves(pullback))

    again = remat.apply(model.module, paths)
    parameters = model.parameter_count
    assert kept(again) - parameters < (kept(model.module.apply) - parameters) / 3
    gradients = [
        jax.jit(jax.grad(functools.partial(loss, apply)))(model.variables["params"])
        for apply in (model.module.apply, again)
    ]
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-4), *gradients)


def test_blocks_of_a_resnet_are_its_units():
    network = vitcnn.load("resnet", "mini", num_classes=8)
    images = jax.ShapeDtypeStruct((1, *network.image_size, 3), jnp.float32)
    paths = remat.blocks(network.module, images)
    assert ("block1", "unit1") in paths and all(len(path) == 2 for path in paths)


def test_a_network_without_blocks_is_named():
    with pytest.raises(ValueError, match=r"config.remat: Dense has no blocks"):
        remat.blocks(nn.Dense(3), jax.ShapeDtypeStruct((1, 4), jnp.float32))


def test_seeds():
    config = configs.check_training(tiny(seed=3))
    assert step.seeds(config) == (3, 3)
    assert step.seeds(configs.check_training(tiny(seed=3, data_seed=0))) == (3, 0)
