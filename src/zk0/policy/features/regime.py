"""Whether a policy is one whose features never change."""

from __future__ import annotations

from dataclasses import dataclass

from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from torch import nn

from zk0.policy.attention import covers


@dataclass(frozen=True)
class Regime:
    """What of a frame is constant under a policy.

    Attributes:
        tokens: Image tokens: vision encoder and connector are frozen.
        prefix: Keys and values of image and language prefix: the language model is frozen as well.
        reason: What is in the way: what trains, or that only LeRobot's own forward pass serves this policy; else empty.
    """

    tokens: bool
    prefix: bool
    reason: str


def backbone_modules(policy: SmolVLAPolicy, kind: str) -> dict[str, nn.Module]:
    """The modules that decide a frame's features, by name.

    Args:
        policy: Any SmolVLA.
        kind: ``tokens`` or ``prefix``.
    """
    vlm = policy.model.vlm_with_expert.get_vlm_model()
    modules = {"vision encoder": vlm.vision_model, "connector": vlm.connector}
    return modules if kind == "tokens" else {**modules, "language model": vlm.text_model}


def regime(policy: SmolVLAPolicy) -> Regime:
    """Which features are constants under this policy, as its parameters stand now."""
    if other := covers(policy):
        return Regime(tokens=False, prefix=False, reason=other)
    training = {
        name: any(parameter.requires_grad for parameter in module.parameters())
        for name, module in backbone_modules(policy, "prefix").items()
    }
    tokens = not (training["vision encoder"] or training["connector"])
    names = [name for name, trains in training.items() if trains]
    reason = f"the {' and the '.join(names)} {'train' if len(names) > 1 else 'trains'}" if names else ""
    return Regime(tokens=tokens, prefix=tokens and not training["language model"], reason=reason)
