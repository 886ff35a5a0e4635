"""The flow-matching loss and the action chunk, split where SmolVLA's gradients split.

LeRobot's forward pass pushes the whole prefix through the language model with gradients on, though
with a frozen model only the state token and the action expert need any. Here the prefix's keys and
values come first (:mod:`zk0.policy.prefix`), without gradients or from a cache; the state token
follows, one token a layer; then the expert (:mod:`zk0.policy.expert`). Loss and gradients are those
of LeRobot's forward pass, up to rounding.

The objective is flow matching (Lipman et al., "Flow Matching for Generative Modeling", ICLR 2023)
as SmolVLA uses it: the velocity from actions (time 0) to noise (time 1).
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from lerobot.policies.common.flow_matching import euler_integrate
from lerobot.policies.common.vla_utils import pad_vector
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from torch import Tensor
from torch.nn import functional

from zk0.console import console
from zk0.policy.attention import covers
from zk0.policy.expert import Context, read_state, velocity
from zk0.policy.inputs import Batch
from zk0.policy.prefix import prefix_of

Reduction = Literal["mean", "none"]


def flow_losses(policy: SmolVLAPolicy, context: Context, actions: Tensor, noise: Tensor, time: Tensor) -> Tensor:
    """Squared error of the velocity, (B, chunk, max_action_dim).

    Args:
        policy: Any that :func:`covers` accepts.
        context: Of the frames.
        actions: (B, chunk, A) normalised.
        noise: (B, chunk, max_action_dim).
        time: (B,), from 0 (actions) to 1 (noise).
    """
    actions, when = pad_vector(actions, policy.config.max_action_dim), time[:, None, None]
    found = velocity(policy, context, when * noise + (1 - when) * actions, time)
    return functional.mse_loss(found, noise - actions, reduction="none")


def reduce_losses(policy: SmolVLAPolicy, losses: Tensor, is_pad: Tensor, reduction: Reduction = "mean") -> Tensor:
    """The mean over real actions and joints: of the batch (``mean``) or of each sample (``none``)."""
    valid = ~is_pad
    losses = losses[:, :, : policy.config.action_feature.shape[0]] * valid[:, :, None]
    if reduction == "none":
        return losses.sum(dim=(1, 2)) / (valid.sum(dim=1) * losses.shape[-1]).clamp_min(1)
    return losses.sum() / (valid.sum() * losses.shape[-1]).clamp_min(1)


def context_of(policy: SmolVLAPolicy, batch: Batch) -> Context:
    """The context of a batch on the policy's device."""
    return read_state(policy, prefix_of(policy, batch), batch.state)


def batch_loss(
    policy: SmolVLAPolicy,
    batch: Batch,
    noise: Tensor,
    times: Tensor,
    reduction: Reduction = "mean",
    context: Context | None = None,
) -> Tensor:
    """The loss of ``SmolVLAPolicy.forward`` for a batch on the policy's device, its rules for padding included.

    Args:
        policy: Any SmolVLA.
        batch: With actions.
        noise: (B, chunk, max_action_dim).
        times: (B,).
        reduction: ``mean``: a number; ``none``: (B,) losses.
        context: The batch's, where it serves several draws of noise and time.
    """
    if (reason := covers(policy)) is not None:
        _say_once(reason)
        return policy(_for_lerobot(batch), noise=noise, time=times, reduction=reduction)[0]
    actions, is_pad = _targets(batch)
    losses = flow_losses(policy, context or context_of(policy, batch), actions, noise, times)
    return reduce_losses(policy, losses, is_pad, reduction)


@torch.no_grad()
def predict(policy: SmolVLAPolicy, batch: Batch, noise: Tensor) -> Tensor:
    """The action chunk (B, chunk, A), normalised, for a batch on the policy's device.

    What ``SmolVLAPolicy.predict_action_chunk`` computes, except that prefix and state are projected
    for the expert once, not at every denoising step.
    """
    policy.eval()
    if (reason := covers(policy)) is not None:
        _say_once(reason)
        policy.reset()
        return policy.predict_action_chunk(_for_lerobot(batch), noise=noise)
    context = context_of(policy, batch)
    found = euler_integrate(lambda noisy, time: velocity(policy, context, noisy, time), noise, policy.config.num_steps)
    return found[:, :, : policy.config.action_feature.shape[0]]


def _targets(batch: Batch) -> tuple[Tensor, Tensor]:
    if batch.actions is None or batch.is_pad is None:
        raise ValueError("the batch was made without actions: it can be acted on, but has no loss")
    return batch.actions, batch.is_pad


_said: set[str] = set()


def _say_once(reason: str) -> None:
    if reason not in _said:
        _said.add(reason)
        console.print(f"the policy runs by LeRobot's own forward pass, which is slower: {reason}")


def _for_lerobot(batch: Batch) -> dict[str, Any]:
    """The batch in the form that ``SmolVLAPolicy`` takes.

    Raises:
        ValueError: It holds features instead of images.
    """
    if batch.features:
        raise ValueError("LeRobot's forward pass reads images, but the batch holds cached features; switch them off")
    lerobot = {
        "observation.state": batch.state.clone(),
        "observation.language.tokens": batch.words,
        "observation.language.attention_mask": batch.real,
        **batch.images,
    }
    if batch.actions is not None:
        actions, is_pad = _targets(batch)
        lerobot |= {"action": actions.clone(), "action_is_pad": is_pad}
    return lerobot
