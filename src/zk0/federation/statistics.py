"""One normalisation for all sites, from their counts, means and squared deviations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from zk0.data.frames import ACTION, STATE, Frames
from zk0.data.units import JOINT_HIGH, JOINT_LOW, READ_HIGH, READ_LOW, servo_turn
from zk0.errors import StageError
from zk0.evaluation.limits import Limits
from zk0.policy.checkpoint import LoadedPolicy, Stats, own_stats
from zk0.policy.trainable import Tensors
from zk0.so100 import JOINTS

Floats = NDArray[np.floating[Any]]

# A joint that never moves would otherwise be divided by zero.
DEVIATION_FLOOR = 1e-2
_ROUNDING = 1e-6  # degrees by which sums of float64 may be off


@dataclass(frozen=True)
class Moments:
    """What a site tells of its training frames; no single frame can be read off it.

    Attributes:
        count: () frames.
        mean_state, m2_state: (S,) mean and sum of squared deviations of the state, float64.
        mean_action, m2_action: (A,) the same of the action.
        low, high: (A,) extremes of state and action together.
        step: (A,) largest distance between an action and the state it starts from.
        change: (A,) largest distance between an action and the one before.
    """

    count: Floats
    mean_state: Floats
    m2_state: Floats
    mean_action: Floats
    m2_action: Floats
    low: Floats
    high: Floats
    step: Floats
    change: Floats

    def to_tensors(self) -> Tensors:
        """By name, in float64, for the wire."""
        return {field.name: torch.from_numpy(np.asarray(getattr(self, field.name))) for field in fields(self)}

    @classmethod
    def from_tensors(cls, tensors: Tensors) -> Moments:
        """From the wire.

        Raises:
            ValueError: Something is missing, not finite or of another type, or there are no frames; says what.
        """
        values = {}
        for field in fields(cls):
            if field.name not in tensors:
                raise ValueError(f"statistics lack '{field.name}'")
            if (dtype := tensors[field.name].dtype) != torch.float64:
                raise ValueError(f"statistics '{field.name}' are {dtype}, expected torch.float64")
            values[field.name] = tensors[field.name].numpy()
            if not np.isfinite(values[field.name]).all():
                raise ValueError(f"statistics '{field.name}' are not finite")
        if (values["count"] < 1).any():
            raise ValueError("statistics are of no frames")
        return cls(**values)

    def check(self, frames: int) -> None:
        """Refuse what no recording of the arm can show, or what contradicts itself or the site's manifest.

        The largest variance of values between two bounds is a quarter of their distance squared: Popoviciu, "Sur les
        equations algebriques ayant toutes leurs racines reelles", Mathematica 9, 1935.

        Args:
            frames: That the site trains on, by its manifest.

        Raises:
            ValueError: Names field and joint, what was found and what was expected.
        """
        for field in fields(self):
            shape = () if field.name == "count" else (len(JOINTS),)
            if (found := getattr(self, field.name).shape) != shape:
                raise ValueError(f"statistics '{field.name}' have shape {found}, expected {shape}")
        if self.count != frames:
            raise ValueError(f"statistics are of {self.count:g} frames, but the site's manifest has {frames}")
        span = self.high - self.low
        self._within("low", READ_LOW, READ_HIGH, "of what the arm's joints can read")
        self._within("high", np.maximum(self.low, READ_LOW), READ_HIGH, "from 'low' to what the arm's joints can read")
        for name in ("state", "action"):
            self._within(f"mean_{name}", self.low - _ROUNDING, self.high, "from 'low' to 'high'")
            most = self.count * (span / 2 + _ROUNDING) ** 2
            self._within(f"m2_{name}", np.zeros_like(span), most, "as 'low' and 'high' allow")
        for name in ("step", "change"):
            self._within(name, np.zeros_like(span), span, "of at most 'high' less 'low'")

    def _within(self, name: str, least: Floats, most: Floats, why: str) -> None:
        """Refuse a field that leaves its bounds at a joint."""
        values = getattr(self, name)
        outside = (values < least) | (values > most + _ROUNDING)
        if outside.any():
            joint = int(np.argmax(outside))
            raise ValueError(
                f"statistics '{name}' of {JOINTS[joint]} are {values[joint]:.6g}; {least[joint]:.6g} to "
                f"{most[joint]:.6g} was expected, {why}"
            )

    def merge(self, other: Moments) -> Moments:
        """Moments of both sets of frames together.

        Chan, Golub and LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample
        Variances", 1979.
        """
        count = self.count + other.count
        merged: dict[str, Floats] = {"count": count}
        for name in ("state", "action"):
            mean, other_mean = getattr(self, f"mean_{name}"), getattr(other, f"mean_{name}")
            gap = other_mean - mean
            merged[f"mean_{name}"] = mean + gap * (other.count / count)
            m2 = getattr(self, f"m2_{name}") + getattr(other, f"m2_{name}")
            merged[f"m2_{name}"] = m2 + gap**2 * (self.count * other.count / count)
        return Moments(
            **merged,
            low=np.minimum(self.low, other.low),
            high=np.maximum(self.high, other.high),
            step=np.maximum(self.step, other.step),
            change=np.maximum(self.change, other.change),
        )

    def normalisation(self) -> dict[str, dict[str, Floats]]:
        """Mean and floored standard deviation per feature, float32, as LeRobot's processors take them."""
        stats = {}
        for feature, name in ((STATE, "state"), (ACTION, "action")):
            deviation = np.sqrt(getattr(self, f"m2_{name}") / self.count).clip(DEVIATION_FLOOR)
            mean = getattr(self, f"mean_{name}")
            stats[feature] = {"mean": mean.astype(np.float32), "std": deviation.astype(np.float32)}
        return stats

    def limits(self) -> Limits:
        """The joint ranges and speeds that the recordings show."""
        return Limits(self.low, self.high, self.step, self.change)


def moments_of(frames: Frames) -> Moments:
    """Moments of a site's training frames."""
    states, actions = frames.states.astype(np.float64), frames.actions.astype(np.float64)
    same = (frames.episodes[1:] == frames.episodes[:-1])[:, None]
    return Moments(
        count=np.array(float(len(frames))),
        mean_state=states.mean(0),
        m2_state=((states - states.mean(0)) ** 2).sum(0),
        mean_action=actions.mean(0),
        m2_action=((actions - actions.mean(0)) ** 2).sum(0),
        low=np.minimum(states.min(0), actions.min(0)),
        high=np.maximum(states.max(0), actions.max(0)),
        step=np.abs(actions - states).max(0),
        change=np.where(same, np.abs(np.diff(actions, axis=0)), 0.0).max(0, initial=0.0),
    )


def merge_all(moments: Sequence[Moments]) -> Moments:
    """Merge the sites' moments in the order given."""
    merged = moments[0]
    for other in moments[1:]:
        merged = merged.merge(other)
    return merged


def pack_stats(stats: Stats) -> Tensors:
    """Statistics as tensors for the wire."""
    return {
        f"{feature}/{name}": torch.from_numpy(np.asarray(v)) for feature, s in stats.items() for name, v in s.items()
    }


def unpack_stats(tensors: Tensors) -> Stats:
    """Statistics as they travelled, back in their own form."""
    stats: dict[str, dict[str, Floats]] = {}
    for key, tensor in tensors.items():
        feature, _, name = key.rpartition("/")
        stats.setdefault(feature, {})[name] = tensor.numpy()
    return stats


def public_moments(loaded: LoadedPolicy, trained: bool, fps: int) -> Moments:
    """Moments as the sites' merged ones, of public knowledge alone: no site's data goes into them.

    A site's count, mean and squared deviations tell of its data as an update does, and to hide them in noise costs a
    round's worth of privacy for a few dozen numbers. Under privacy they are not asked for: the starting policy brings
    its own normalisation, which is public as it is, and where it has learnt none the arm's build gives one.

    Args:
        loaded: The starting policy.
        trained: It learnt a normalisation of its own; else mean and spread are those of even use of the joints' ranges.
        fps: Frames a second, for the largest step of a joint from one to the next.

    Raises:
        StageError: The policy's own normalisation is missing or is not for this arm.
    """
    mean, deviation = {}, {}
    for feature in (STATE, ACTION):
        if trained:
            mean[feature], deviation[feature] = _own(loaded, feature)
        else:
            mean[feature] = (JOINT_LOW + JOINT_HIGH) / 2
            deviation[feature] = (JOINT_HIGH - JOINT_LOW) / np.sqrt(12)
    return Moments(
        count=np.array(1.0),
        mean_state=mean[STATE],
        m2_state=deviation[STATE] ** 2,
        mean_action=mean[ACTION],
        m2_action=deviation[ACTION] ** 2,
        low=JOINT_LOW,
        high=JOINT_HIGH,
        step=np.full(JOINT_LOW.shape, servo_turn(fps)),
        change=np.full(JOINT_LOW.shape, servo_turn(fps)),
    )


def _own(loaded: LoadedPolicy, feature: str) -> tuple[Floats, Floats]:
    found = {name: np.asarray(value, dtype=np.float64) for name, value in own_stats(loaded).get(feature, {}).items()}
    if any(name not in found or found[name].shape != JOINT_LOW.shape for name in ("mean", "std")):
        raise StageError(
            "under privacy no site is asked for its statistics, and the starting policy has no mean and std of its own "
            f"of {feature} for {len(JOINT_LOW)} joints; start from a policy that was trained on an SO-100 or SO-101"
        )
    return found["mean"], found["std"]
