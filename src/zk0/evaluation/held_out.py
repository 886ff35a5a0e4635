"""Judge a policy on recorded frames: flow-matching loss, action error in degrees, safety.

Noise and times are fixed by seed, draw and frame, so two policies are compared on the very same
draws.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
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
_STILL = 1e-3  # a joint that never moved has almost no allowance


@dataclass(frozen=True)
class Limits:
    """What the sites' recordings show the arm doing, in LeRobot's units.

    Attributes:
        low: (6,) smallest recorded joint position or target.
        high: (6,) largest.
        step: (6,) largest distance between a target and the position it was given in.
        change: (6,) largest distance between a target and the one before it.
    """

    low: np.ndarray
    high: np.ndarray
    step: np.ndarray
    change: np.ndarray

    @classmethod
    def of(cls, content: Mapping[str, Sequence[float]]) -> Limits:
        """What :meth:`content` gave.

        Raises:
            ValueError: Something is missing, as in a run of an earlier version.
        """
        if missing := [field.name for field in fields(cls) if field.name not in content]:
            raise ValueError(f"the recorded limits lack {', '.join(missing)}; run `zk0 federate` again")
        return cls(**{field.name: np.array(content[field.name]) for field in fields(cls)})

    def content(self) -> dict[str, list[float]]:
        """The limits by name, as plain lists of six numbers."""
        return {field.name: getattr(self, field.name).tolist() for field in fields(self)}


@dataclass(frozen=True)
class Excess:
    """How far a set of predicted actions leaves the limits, per joint.

    Attributes:
        range_deg: (6,) largest distance outside the recorded range (0 = inside).
        velocity: (6,) largest step, from a position or from the target before, as a multiple of the
            largest recorded one of its kind.
        fast: (6,) how many steps from a position are longer than a stated multiple of the largest
            recorded one.
        steps: How many steps from a position there are.
    """

    range_deg: np.ndarray
    velocity: np.ndarray
    fast: np.ndarray
    steps: int

    @classmethod
    def none(cls, joints: int = 6) -> Excess:
        """The excess of no actions: zeros."""
        return cls(np.zeros(joints), np.zeros(joints), np.zeros(joints, dtype=np.int64), 0)

    def and_of(self, other: Excess) -> Excess:
        """That of both sets of actions together."""
        return Excess(
            np.maximum(self.range_deg, other.range_deg),
            np.maximum(self.velocity, other.velocity),
            self.fast + other.fast,
            self.steps + other.steps,
        )


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


def chunk_excess(chunks: np.ndarray, states: np.ndarray, limits: Limits, factor: float) -> Excess:
    """How far chunks (B, T, 6) that start at joint positions (B, 6) leave the limits.

    Args:
        chunks: Joint targets.
        states: Where the arm was when each chunk was predicted.
        limits: What the recordings show.
        factor: Steps of more than this multiple of the largest recorded one count as fast.

    A chunk's first step leads from a measured position, its others from the target before; the arm
    lags behind its targets, so each kind is held against its own in the recordings.
    """
    outside = np.maximum(limits.low - chunks, chunks - limits.high).clip(0)
    first = np.abs(chunks[:, 0] - states) / np.maximum(limits.step, _STILL)
    later = np.abs(np.diff(chunks, axis=1)) / np.maximum(limits.change, _STILL)
    fastest = np.maximum(first.max(axis=0), later.max(axis=(0, 1), initial=0.0))
    return Excess(outside.max(axis=(0, 1)), fastest, (first > factor).sum(axis=0), len(chunks))


def frames_excess(
    frames: Frames, predicted: Iterable[tuple[np.ndarray, np.ndarray]], limits: Limits, factor: float
) -> Excess:
    """The excess of what :func:`predictions` gave of some frames; ``factor`` as in :func:`chunk_excess`."""
    found = Excess.none(len(limits.low))
    for rows, chunks in predicted:
        found = found.and_of(chunk_excess(chunks, frames.states[rows], limits, factor))
    return found
