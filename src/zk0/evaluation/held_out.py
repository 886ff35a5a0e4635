"""Judge a policy on recorded frames: flow-matching loss, action error in degrees, safety.

Noise and times are fixed by seed, draw and frame, so two policies are compared on the very same
draws.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from zk0.data.frames import ACTION, STATE, Frames
from zk0.policy import flow
from zk0.policy.checkpoint import LoadedPolicy
from zk0.policy.inputs import FrameInputs, observed
from zk0.seeding import numpy_rng, torch_rng
from zk0.training.local import flow_draws

if TYPE_CHECKING:
    from zk0.policy.features import FrameFeatures

_BATCH = 32


@dataclass(frozen=True)
class Limits:
    """What the sites' recordings show the arm doing, in LeRobot's units.

    Attributes:
        low: (6,) smallest recorded joint position or target.
        high: (6,) largest.
        step: (6,) largest change from one frame's target to the next.
    """

    low: np.ndarray
    high: np.ndarray
    step: np.ndarray


@dataclass(frozen=True)
class Excess:
    """How far a set of predicted actions leaves the limits, per joint.

    Attributes:
        range_deg: (6,) largest distance outside the recorded range (0 = inside).
        velocity: (6,) largest step as a multiple of the largest recorded one.
    """

    range_deg: np.ndarray
    velocity: np.ndarray

    def worst(self, other: Excess) -> Excess:
        """Joint by joint, the worse of two."""
        return Excess(np.maximum(self.range_deg, other.range_deg), np.maximum(self.velocity, other.velocity))


def _batches(frames: Frames) -> Iterator[np.ndarray]:
    for start in range(0, len(frames), _BATCH):
        yield np.arange(start, min(start + _BATCH, len(frames)))


@torch.no_grad()
def held_out_loss(
    loaded: LoadedPolicy, frames: Frames, draws: int, seed: int, features: FrameFeatures | None = None
) -> float:
    """Mean flow-matching loss over all frames and ``draws`` fixed draws of noise and time each.

    What the frames alone decide is computed once for all draws, or read from ``features``.
    """
    policy, device = loaded.policy, loaded.policy.config.device
    policy.eval()
    _ensure_all(frames, features)
    inputs = FrameInputs(loaded, frames, features)
    sums = []
    for rows in _batches(frames):
        batch = inputs.batch(rows).to(device)
        context = flow.context_of(policy, batch) if flow.covers(policy) is None else None
        for draw in range(draws):
            noise, times = flow_draws(policy.config, len(rows), torch_rng(seed, "held-out", draw, int(rows[0])))
            losses = flow.batch_loss(policy, batch, noise.to(device), times.to(device), "none", context)
            sums.append(losses.sum())
    return float(torch.stack(sums).cpu().double().sum()) / (len(frames) * draws)


def predict(
    loaded: LoadedPolicy,
    frames: Frames,
    rows: np.ndarray,
    seed: int,
    perturbation: float = 0.0,
    features: FrameFeatures | None = None,
) -> np.ndarray:
    """Predicted chunks for some frames, (B, chunk, 6) in LeRobot's units, from fixed noise.

    Args:
        loaded: Policy and processors.
        frames: Recorded frames.
        rows: Which of them.
        seed: Decides the noise.
        perturbation: Standard deviation of noise added to images and state, as a share of their
            range (0 = none).
        features: The frames' cached features; of no use to perturbed images.
    """
    ((_, chunks),) = _predictions(loaded, frames, [rows], seed, perturbation, features)
    return chunks


def _predictions(
    loaded: LoadedPolicy,
    frames: Frames,
    batches: Iterable[np.ndarray],
    seed: int,
    perturbation: float,
    features: FrameFeatures | None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows and :func:`predict` of them, batch by batch."""
    policy, config = loaded.policy, loaded.policy.config
    inputs = None if perturbation else FrameInputs(loaded, frames, features)
    for rows in batches:
        first = int(rows[0])
        if inputs is None:
            batch = observed(loaded, _perturbed(frames.batch(rows, loaded.chunk), perturbation, seed, first))
        else:
            batch = inputs.batch(rows, with_actions=False).to(config.device)
        shape = (len(rows), config.chunk_size, config.max_action_dim)
        noise = torch.randn(shape, generator=torch_rng(seed, "action", first))
        yield rows, np.asarray(loaded.postprocess(flow.predict(policy, batch, noise.to(config.device))).numpy())


def _ensure_all(frames: Frames, features: FrameFeatures | None) -> None:
    if features is not None:
        features.ensure(np.arange(len(frames)))


def _perturbed(batch: dict[str, Any], share: float, seed: int, first: int) -> dict[str, Any]:
    rng = numpy_rng(seed, "perturbation", first)
    noisy = dict(batch)
    for name, value in batch.items():
        if name == STATE:
            span = torch.full((1,), 180.0 * share)
            noisy[name] = value + span * torch.from_numpy(rng.normal(size=value.shape)).float()
        elif name.startswith("observation.images"):
            noisy[name] = (value + share * torch.from_numpy(rng.normal(size=value.shape)).float()).clamp(0, 1)
    return noisy


def action_errors(loaded: LoadedPolicy, frames: Frames, seed: int, features: FrameFeatures | None = None) -> np.ndarray:
    """Mean absolute error of the predicted actions, (6,), in LeRobot's units, padding left out."""
    total, count = np.zeros(frames.actions.shape[1]), 0
    _ensure_all(frames, features)
    for rows, chunks in _predictions(loaded, frames, _batches(frames), seed, 0.0, features):
        batch = frames.batch(rows, loaded.chunk, with_images=False)
        valid = ~batch["action_is_pad"].numpy()
        error = np.abs(chunks - batch[ACTION].numpy())
        total += error[valid].sum(axis=0)
        count += int(valid.sum())
    return total / count


def chunk_excess(chunks: np.ndarray, states: np.ndarray, limits: Limits) -> Excess:
    """How far chunks (B, T, 6) that start at joint positions (B, 6) leave the limits."""
    outside = np.maximum(limits.low - chunks, chunks - limits.high).clip(0)
    steps = np.abs(np.diff(np.concatenate([states[:, None], chunks], axis=1), axis=1))
    ratio = steps / np.maximum(limits.step, 1e-3)
    return Excess(outside.max(axis=(0, 1)), ratio.max(axis=(0, 1)))


def held_out_excess(
    loaded: LoadedPolicy,
    frames: Frames,
    limits: Limits,
    seed: int,
    perturbation: float = 0.0,
    features: FrameFeatures | None = None,
) -> Excess:
    """The worst excess over all frames, with or without perturbed observations."""
    worst = Excess(np.zeros(len(limits.low)), np.zeros(len(limits.low)))
    if not perturbation:
        _ensure_all(frames, features)
    for rows, chunks in _predictions(loaded, frames, _batches(frames), seed, perturbation, features):
        worst = worst.worst(chunk_excess(chunks, frames.states[rows], limits))
    return worst
