"""Judge a policy on recorded frames: flow-matching loss, and action error in degrees.

Noise and times are fixed by seed, draw and frame, so two policies are compared on the very same
draws.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from zk0.data.frames import ACTION, STATE, Frames
from zk0.policy import flow
from zk0.policy.attention import covers
from zk0.policy.checkpoint import LoadedPolicy
from zk0.policy.inputs import FrameInputs, StoredFeatures, observed
from zk0.seeding import numpy_rng, torch_rng
from zk0.training.local import flow_draws

_BATCH = 32


@dataclass(frozen=True)
class SensorNoise:
    """Normal noise on what the policy sees.

    Attributes:
        images: Standard deviation on pixels, as a share of their range.
        state_deg: Standard deviation on joint positions, in LeRobot's units.
    """

    images: float
    state_deg: float


def _batches(frames: Frames) -> Iterator[np.ndarray]:
    for start in range(0, len(frames), _BATCH):
        yield np.arange(start, min(start + _BATCH, len(frames)))


@torch.no_grad()
def held_out_loss(
    loaded: LoadedPolicy, frames: Frames, draws: int, seed: int, features: StoredFeatures | None = None
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
        context = flow.context_of(policy, batch) if covers(policy) is None else None
        for draw in range(draws):
            noise, times = flow_draws(policy.config, len(rows), torch_rng(seed, "held-out", draw, int(rows[0])))
            losses = flow.batch_loss(policy, batch, noise.to(device), times.to(device), "none", context)
            sums.append(losses.sum())
    return float(torch.stack(sums).cpu().double().sum()) / (len(frames) * draws)


def predictions(
    loaded: LoadedPolicy,
    frames: Frames,
    seed: int,
    disturbed: SensorNoise | None = None,
    features: StoredFeatures | None = None,
    batches: Iterable[np.ndarray] | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """What the policy would do in every frame, batch by batch, from fixed noise.

    Args:
        loaded: Policy and processors.
        frames: Recorded frames.
        seed: Decides the noise.
        disturbed: Disturbs images and state.
        features: The frames' cached features; of no use to perturbed images.
        batches: Rows of some frames only, (B,) each.

    Yields:
        Rows (B,) and their predicted chunks (B, chunk, 6), in LeRobot's units.
    """
    policy, config = loaded.policy, loaded.policy.config
    if batches is None:
        batches = _batches(frames)
        if disturbed is None:
            _ensure_all(frames, features)
    # What the sites see is prepared once for all frames; disturbed, each batch is seen anew.
    inputs = FrameInputs(loaded, frames, features) if disturbed is None else None
    for rows in batches:
        first = int(rows[0])
        if inputs is not None:
            batch = inputs.batch(rows, with_actions=False).to(config.device)
        elif disturbed is not None:
            batch = observed(loaded, _perturbed(frames.batch(rows, loaded.chunk), disturbed, seed, first))
        shape = (len(rows), config.chunk_size, config.max_action_dim)
        noise = torch.randn(shape, generator=torch_rng(seed, "action", first))
        yield rows, np.asarray(loaded.postprocess(flow.predict(policy, batch, noise.to(config.device))).numpy())


def _ensure_all(frames: Frames, features: StoredFeatures | None) -> None:
    if features is not None:
        features.ensure(np.arange(len(frames)))


def _perturbed(batch: dict[str, Any], noise: SensorNoise, seed: int, first: int) -> dict[str, Any]:
    rng = numpy_rng(seed, "perturbation", first)
    noisy = dict(batch)
    for name, value in batch.items():
        if name == STATE:
            noisy[name] = value + noise.state_deg * torch.from_numpy(rng.normal(size=value.shape)).float()
        elif name.startswith("observation.images"):
            noisy[name] = (value + noise.images * torch.from_numpy(rng.normal(size=value.shape)).float()).clamp(0, 1)
    return noisy


def episode_errors(
    frames: Frames, predicted: Iterable[tuple[np.ndarray, np.ndarray]]
) -> dict[int, tuple[np.ndarray, int]]:
    """Mean absolute error of the predicted actions, episode by episode, padding left out.

    Args:
        frames: Recorded frames.
        predicted: What :func:`predictions` gave of them.

    Returns:
        Episode to its (6,) error in LeRobot's units and the number of actions it is the mean of.
    """
    found: dict[int, tuple[np.ndarray, int]] = {}
    for rows, chunks in predicted:
        batch = frames.batch(rows, chunks.shape[1], with_images=False)
        valid = ~batch["action_is_pad"].numpy()
        error = np.abs(chunks - batch[ACTION].numpy()) * valid[..., None]
        for episode in np.unique(frames.episodes[rows]):
            mine = frames.episodes[rows] == episode
            total, count = found.get(int(episode), (np.zeros(error.shape[-1]), 0))
            found[int(episode)] = (total + error[mine].sum(axis=(0, 1)), count + int(valid[mine].sum()))
    return {episode: (total / count, count) for episode, (total, count) in found.items()}


def mean_error(by_episode: Mapping[int, tuple[np.ndarray, int]]) -> np.ndarray:
    """Mean over all actions of what :func:`episode_errors` found, (6,)."""
    counts = [count for _, count in by_episode.values()]
    error: np.ndarray = np.average([error for error, _ in by_episode.values()], axis=0, weights=counts)
    return error
