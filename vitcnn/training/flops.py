"""FLOPs: how much a step computes, and the share of what the devices could."""

from __future__ import annotations

from typing import Any

# Dense bfloat16 FLOP/s of a device as JAX calls it, from the data sheets of the makers.
PEAK = {
    "TPU v3": 61.5e12,  # of one core, which is a device
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5p": 459e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
}


def of_step(lowered: Any) -> float:
    """Returns the floating-point operations of a step over all devices; NaN if JAX cannot tell.

    Args:
      lowered: the step, lowered and not yet compiled, without a loop and without rematerialisation:
        what a compiler adds or replaces by its own kernels is no part of the model.
    """
    costs = lowered.cost_analysis() or {}
    costs = costs[0] if isinstance(costs, list) else costs
    return float(costs.get("flops", float("nan")))


def peak(kind: str, devices: int) -> float:
    """Returns the bfloat16 FLOP/s of a number of devices of one kind, NaN if it is not known."""
    return PEAK.get(kind, float("nan")) * devices
