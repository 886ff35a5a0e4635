"""The flow-matching loss and the action chunk, split where SmolVLA's gradients split.

LeRobot's forward pass pushes the whole prefix through the language model with gradients on, though
with a frozen model only the state token and the action expert need any. Here the prefix's keys and
values come first (:mod:`zk0.policy.prefix`), without gradients or from a cache; the state token
follows: at every layer of the language model it attends to the prefix's keys and values; then the
expert, which attends to both. Loss and gradients are those of LeRobot's forward pass, up to rounding.

The objective is flow matching (Lipman et al., "Flow Matching for Generative Modeling", ICLR 2023)
as SmolVLA uses it: the velocity from actions (time 0) to noise (time 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
from lerobot.policies.common.flow_matching import euler_integrate
from lerobot.policies.common.vla_utils import create_sinusoidal_pos_embedding, pad_vector
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from torch import Tensor
from torch.nn import functional

from zk0.console import console
from zk0.errors import StageError
from zk0.policy.attention import Rotation, attend, covers, finish, normed, project, rotate, rotation, split_heads
from zk0.policy.inputs import Batch
from zk0.policy.prefix import Prefix, prefix_of

Reduction = Literal["mean", "none"]


@dataclass(frozen=True)
class Context:
    """What the expert attends to, layer by layer, besides the actions themselves.

    Attributes:
        layers: Expert layer, keys and values (B, S + 1, H, head_dim) of prefix and state, and
            whether the layer's actions attend to each other too (self-attention) or not (cross).
        real: (B, 1, S + 1), which of those keys are not padding; None where all are.
        place: (B, 1), the first action's position in a self-attention layer.
    """

    layers: list[tuple[Any, Tensor, Tensor, bool]]
    real: Tensor | None
    place: Tensor


def read_state(policy: SmolVLAPolicy, prefix: Prefix, state: Tensor) -> Context:
    """Run the state token through the language model and gather what the expert attends to.

    Args:
        policy: Any that :func:`zk0.policy.attention.covers` accepts.
        prefix: Of the frames.
        state: (B, S) normalised.
    """
    model, backbone = policy.model, policy.model.vlm_with_expert
    hidden = model.state_proj(pad_vector(state, policy.config.max_state_dim))[:, None]
    vlm_layers, expert_layers = backbone.get_model_layers([backbone.get_vlm_model().text_model, backbone.lm_expert])
    turn = rotation(prefix.count, vlm_layers[0].self_attn.head_dim)
    real = None
    if prefix.real is not None:
        real = torch.cat([prefix.real, prefix.real.new_ones(len(state), 1)], dim=1)[:, None]
    layers = []
    for number, (layer, expert, pair) in enumerate(zip(vlm_layers, expert_layers, prefix.pairs, strict=True)):
        queries, keys, values = project(layer, hidden)
        keys = torch.cat([pair[0], rotate(keys, turn)], dim=1)
        values = torch.cat([pair[1], values], dim=1)
        if expert is not None:
            layers.append(_expert_view(backbone, number, expert, keys, values))
        if number + 1 < len(vlm_layers):  # nothing reads the last layer's output
            hidden = finish(layer, hidden, attend(rotate(queries, turn), keys, values, real))
    return Context(layers, real, prefix.count + 1)


def _expert_view(
    backbone: Any, number: int, expert: Any, keys: Tensor, values: Tensor
) -> tuple[Any, Tensor, Tensor, bool]:
    """Keys and values as an expert layer attends to them: as they are, or through its own projections."""
    every = backbone.self_attn_every_n_layers
    if "cross" not in backbone.attention_mode or (every > 0 and number % every == 0):
        return expert, keys, values, True
    attention = expert.self_attn
    keys = attention.k_proj(keys.flatten(2).to(attention.k_proj.weight.dtype))
    values = attention.v_proj(values.flatten(2).to(attention.v_proj.weight.dtype))
    return expert, split_heads(expert, keys), split_heads(expert, values), False


class _Rows:
    """The rows of a batch's chunks that count, laid out one after the other where that saves work.

    Past an episode's end a chunk is padding, and has no loss. Actions attend to those before them only, so what comes
    after the last real one changes nothing, and the layers can do without it; attention alone wants whole chunks.
    """

    def __init__(self, needed: Tensor | None = None) -> None:
        """Of (B, T) rows that are needed; None = all."""
        self._shape = torch.Size((0, 0)) if needed is None else needed.shape
        self._kept = None if needed is None else needed.flatten().nonzero()[:, 0]

    @classmethod
    def of(cls, is_pad: Tensor) -> _Rows:
        """Those up to each chunk's last action that is no padding, (B, T); on a GPU all, so as to wait for nothing."""
        needed = (~is_pad).flip(1).cumsum(1).flip(1) > 0
        return cls(needed if is_pad.device.type == "cpu" and not needed.all() else None)

    def pack(self, chunks: Tensor) -> Tensor:
        """(B, T, ...) to (N, ...)."""
        return chunks if self._kept is None else chunks.flatten(0, 1)[self._kept]

    def unpack(self, rows: Tensor) -> Tensor:
        """(N, ...) to (B, T, ...), zero where there is no row."""
        if self._kept is None:
            return rows
        empty = rows.new_zeros(self._shape.numel(), *rows.shape[1:])
        return empty.index_copy(0, self._kept, rows).unflatten(0, self._shape)  # type: ignore[no-untyped-call,no-any-return]


_ALL = _Rows()


def velocity(policy: SmolVLAPolicy, context: Context, noisy: Tensor, time: Tensor, rows: _Rows = _ALL) -> Tensor:
    """The predicted velocity (B, chunk, max_action_dim) of noisy actions of that shape at times (B,).

    Zero in rows that are not among those asked for.
    """
    expert = policy.model.vlm_with_expert.lm_expert
    hidden = _embed_actions(policy, noisy, time)
    chunk, device = hidden.shape[1], hidden.device
    hidden = rows.pack(hidden)
    steps = torch.arange(chunk, device=device)[None]
    head_dim = expert.layers[0].self_attn.head_dim
    alone, after = rotation(steps, head_dim), rotation(context.place + steps, head_dim)
    causal = steps <= steps.T
    if context.real is None:
        length = context.layers[0][1].shape[1]
        among = torch.cat([causal.new_ones(chunk, length), causal], dim=1)[None]
    else:
        batch = len(context.real)
        among = torch.cat([context.real.expand(-1, chunk, -1), causal.expand(batch, -1, -1)], dim=2)
    for layer, keys, values, together in context.layers:
        if together:
            own = [rows.unpack(part) for part in project(layer, hidden)]
            attended = _attend_together(own, keys, values, after, among)
        else:
            queries = rows.unpack(split_heads(layer, layer.self_attn.q_proj(normed(layer, hidden))))
            attended = attend(rotate(queries, alone), keys, values, context.real)
        hidden = finish(layer, hidden, rows.pack(attended))
    return rows.unpack(policy.model.action_out_proj(expert.norm(hidden).to(torch.float32)))


def _attend_together(own: Sequence[Tensor], keys: Tensor, values: Tensor, turn: Rotation, among: Tensor) -> Tensor:
    queries, own_keys, own_values = own
    keys = torch.cat([keys, rotate(own_keys, turn)], dim=1)
    return attend(rotate(queries, turn), keys, torch.cat([values, own_values], dim=1), among)


def _embed_actions(policy: SmolVLAPolicy, noisy: Tensor, time: Tensor) -> Tensor:
    model, config = policy.model, policy.config
    actions = model.action_in_proj(noisy)
    when = create_sinusoidal_pos_embedding(
        time, actions.shape[-1], config.min_period, config.max_period, device=time.device
    )
    both = torch.cat([actions, when.to(actions.dtype)[:, None].expand_as(actions)], dim=2)
    embedded: Tensor = model.action_time_mlp_out(functional.silu(model.action_time_mlp_in(both)))
    return embedded


def flow_losses(
    policy: SmolVLAPolicy,
    context: Context,
    actions: Tensor,
    noise: Tensor,
    time: Tensor,
    is_pad: Tensor,
    smoothness: float = 0.0,
) -> Tensor:
    """Squared error of the velocity, (B, chunk, max_action_dim); of padding it means nothing.

    And, if asked for, that of the acceleration of the actions to which the velocity would lead at once: of their second
    difference along the chunk. Errors that are alike from one action to the next shift a motion, and an arm follows;
    those that are not make it jerk, and count the more.

    Args:
        policy: Any that :func:`covers` accepts.
        context: Of the frames.
        actions: (B, chunk, A) normalised.
        noise: (B, chunk, max_action_dim).
        time: (B,), from 0 (actions) to 1 (noise).
        is_pad: (B, chunk), which actions are padding.
        smoothness: Weight of the acceleration's error, from a chunk's third action on.
    """
    actions, when = pad_vector(actions, policy.config.max_action_dim), time[:, None, None]
    found = velocity(policy, context, when * noise + (1 - when) * actions, time, _Rows.of(is_pad))
    losses = functional.mse_loss(found, noise - actions, reduction="none")
    if smoothness and losses.shape[1] > 2:
        bent = torch.diff(when * (found - (noise - actions)), n=2, dim=1) ** 2
        real = ~(is_pad[:, 2:] | is_pad[:, 1:-1] | is_pad[:, :-2])
        losses = losses + smoothness * functional.pad(bent * real[:, :, None], (0, 0, 2, 0))
    return losses


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
    smoothness: float = 0.0,
) -> Tensor:
    """The loss of ``SmolVLAPolicy.forward`` for a batch on the policy's device, its rules for padding included.

    Args:
        policy: Any SmolVLA.
        batch: With actions.
        noise: (B, chunk, max_action_dim).
        times: (B,).
        reduction: ``mean``: a number; ``none``: (B,) losses.
        context: The batch's, where it serves several draws of noise and time.
        smoothness: See :func:`flow_losses`.

    Raises:
        StageError: LeRobot's own forward pass, by which this policy runs, knows no smoothness.
    """
    if (reason := covers(policy)) is not None:
        if smoothness:
            raise StageError(
                f"training.smoothness is {smoothness:g}, but this policy is trained by LeRobot's own forward pass, "
                f"which has no such term: {reason}. Set training.smoothness to 0"
            )
        _say_once(reason)
        loss: Tensor = policy(batch.for_lerobot(), noise=noise, time=times, reduction=reduction)[0]
        return loss
    actions, is_pad = batch.targets()
    losses = flow_losses(policy, context or context_of(policy, batch), actions, noise, times, is_pad, smoothness)
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
        chunk: Tensor = policy.predict_action_chunk(batch.for_lerobot(), noise=noise)
        return chunk
    context = context_of(policy, batch)
    found: Tensor = euler_integrate(
        lambda noisy, time: velocity(policy, context, noisy, time), noise, policy.config.num_steps
    )
    size: int = policy.config.action_feature.shape[0]
    return found[:, :, :size]


@cache
def _say_once(reason: str) -> None:
    console.print(f"the policy runs by LeRobot's own forward pass, which is slower: {reason}")
