"""Networks of PyTorch with random weights, beside which ours are put."""

import math

import numpy as np
import torch_vits

HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
_TOKENS = ("token", "pos_embed", "pos_embedding", "latent", "probe")


def randomised(torch, network):
    """Every weight is away from zero, scales and variances away from one."""
    draw = torch.Generator().manual_seed(0)
    state = network.state_dict()
    for name, value in state.items():
        if not value.is_floating_point():
            continue
        noise = torch.randn(value.shape, generator=draw)
        if value.ndim > 1:
            noise = noise if name.endswith(_TOKENS) else noise / math.sqrt(value[0].numel())
        elif name.endswith("running_var"):
            noise = 0.5 + noise**2
        else:
            noise = 0.3 * noise + name.endswith(("weight", "gamma"))
        value.copy_(noise)
    network.load_state_dict(state)
    return network.eval()


def compare(torch, network, model, blocks, names, size, tolerance=1e-5, of_blocks=1e-4):
    """Fails unless logits and blocks of a network and a model are the same."""
    seen = []
    for block in blocks:
        block.register_forward_hook(lambda _, __, out: seen.append(out.numpy()))
    images = np.random.default_rng(0).normal(size=(2, size, size, 3)).astype(np.float32)
    kind = next(network.parameters()).dtype
    with torch.no_grad():
        expected = network(torch.from_numpy(images).to(kind).permute(0, 3, 1, 2)).numpy()
    logits, got = model.run(images, names)
    assert np.abs(logits - expected).max() < tolerance * expected.std()
    assert len(seen) == len(got)
    for mine, theirs in zip(got.values(), seen, strict=True):
        theirs = theirs.transpose(0, 2, 3, 1) if theirs.ndim == 4 else theirs
        assert np.abs(mine - theirs).max() < of_blocks * max(1, theirs.std())


def save(path, network):
    """Writes the arrays of a network as safetensors."""
    return torch_vits.save(path, {k: v.numpy() for k, v in network.state_dict().items()})
