"""Low-rank adapters of the action expert, in a form whose average over sites is sound.

An adapter adds (alpha / rank) B A to a frozen weight (Hu et al., "LoRA: Low-Rank Adaptation of Large
Language Models", ICLR 2022). Averaging both factors over sites is not averaging their products, so
A is drawn from a seed that all sites share and stays frozen, and only B trains and travels: then the
mean of the products is exactly (mean of B) A (FFA-LoRA: Sun et al., "Improving LoRA in
Privacy-Preserving Federated Learning", ICLR 2024).

Every linear layer of the expert and the projections around it carry an adapter, more than the
query and value projections of LeRobot's default: with half of each adapter frozen, width pays
for itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from zk0.seeding import torch_rng

if TYPE_CHECKING:
    from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy

TARGETS = (
    r"model\.(vlm_with_expert\.lm_expert\.layers\.\d+\.(self_attn|mlp)\.(q|k|v|o|gate|up|down)_proj"
    r"|state_proj|action_in_proj|action_out_proj|action_time_mlp_in|action_time_mlp_out)"
)
_NAME = "default"


def add_adapters(policy: SmolVLAPolicy, rank: int, alpha: float, seed: int) -> None:
    """Freeze a SmolVLA and give its action expert adapters, of which only the B matrices train; in place.

    B starts at zero, so the policy computes what it did before.

    Args:
        policy: Without adapters.
        rank: Inner size of the adapters; at least 1, and below the width of what they adapt.
        alpha: Their scale is ``alpha / rank``.
        seed: Decides A. It has to be the same on every site.

    Raises:
        ValueError: The policy has adapters already, or the rank is out of range.
    """
    from peft import LoraConfig, inject_adapter_in_model  # noqa: PLC0415 - slow, and seldom used

    if has_adapters(policy):
        raise ValueError("the policy has low-rank adapters already; merge them before adding others")
    width = policy.model.vlm_with_expert.expert_hidden_size
    if not 1 <= rank < width:
        raise ValueError(f"lora_rank is {rank}, but has to be from 1 to {width - 1}, below the action expert's width")
    for parameter in policy.parameters():
        parameter.requires_grad_(False)
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=TARGETS, lora_dropout=0.0, bias="none")  # type: ignore[arg-type]
    inject_adapter_in_model(config, policy, adapter_name=_NAME)
    for name, layer in _adapters(policy):
        a, b = layer.lora_A[_NAME].weight, layer.lora_B[_NAME].weight
        drawn = torch.empty(a.shape)
        nn.init.kaiming_uniform_(drawn, a=math.sqrt(5), generator=torch_rng(seed, "lora", name))
        with torch.no_grad():
            a.copy_(drawn)
        a.requires_grad_(False)
        b.requires_grad_(True)


def has_adapters(policy: nn.Module) -> bool:
    """Whether :func:`add_adapters` has been here."""
    return next(_adapters(policy), None) is not None


@contextmanager
def merged(policy: nn.Module) -> Iterator[None]:
    """Within the block the policy is a plain SmolVLA with its adapters folded in; afterwards as before, bit for bit.

    Does nothing to a policy without adapters.
    """
    swapped = list(_adapters(policy))
    kept = [(layer.get_base_layer(), layer.get_base_layer().weight.data) for _, layer in swapped]
    try:
        for (name, layer), (base, weight) in zip(swapped, kept, strict=True):
            base.weight.data = _folded(layer, weight)
            policy.set_submodule(name, base)
        yield
    finally:
        for (name, layer), (base, weight) in zip(swapped, kept, strict=True):
            base.weight.data = weight
            policy.set_submodule(name, layer)


@torch.no_grad()
def _folded(layer: Any, weight: Tensor) -> Tensor:
    change = layer.lora_B[_NAME].weight @ layer.lora_A[_NAME].weight
    folded: Tensor = weight + (layer.scaling[_NAME] * change).to(weight.dtype)
    return folded


def _adapters(policy: nn.Module) -> Iterator[tuple[str, Any]]:
    return ((name, module) for name, module in policy.named_modules() if hasattr(module, "lora_A"))
