"""What a policy reads of recorded frames besides their pictures, preprocessed once.

LeRobot's preprocessor normalises, tokenises and moves a batch at a time, at several milliseconds
a call. Normalising works number by number and a sentence's tokens never change, so both are done
once for all frames of a site; a batch is then a lookup.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from lerobot.utils.constants import OBS_LANGUAGE_ATTENTION_MASK, OBS_LANGUAGE_TOKENS
from torch import Tensor

from zk0.data.frames import ACTION, STATE, Frames
from zk0.policy.checkpoint import LoadedPolicy


class StoredFeatures(Protocol):
    """What a frozen backbone made of frames, kept by somebody: see :mod:`zk0.policy.features`."""

    def ensure(self, rows: np.ndarray) -> None:
        """Compute what is missing of frames in (N,) rows."""

    def read(self, rows: np.ndarray) -> dict[str, Tensor]:
        """Features of (B,) rows by name, (B, ...) each."""
        ...


@dataclass(frozen=True)
class Batch:
    """Some frames, ready for the policy.

    Attributes:
        state: (B, S) normalised.
        words: (B, W) token ids of the instructions, padded on the right.
        real: (B, W), which of them are not padding.
        padded: Whether any is.
        actions: (B, chunk, A) normalised; None where the policy is only to act.
        is_pad: (B, chunk), which actions lie past the end of the episode; None with ``actions``.
        images: Camera to (B, 3, H, W) in [0, 1]; empty where features stand in for them.
        cameras: How many of the policy's cameras the data has.
        features: What the feature cache holds of the frames instead: ``camera`` to image tokens
            (B, T, D), or ``kv`` to keys and values (B, L, 2, S, H x d); empty without a cache.
    """

    state: Tensor
    words: Tensor
    real: Tensor
    padded: bool
    actions: Tensor | None
    is_pad: Tensor | None
    cameras: int
    images: dict[str, Tensor]
    features: dict[str, Tensor]

    def targets(self) -> tuple[Tensor, Tensor]:
        """Actions, and which of them are padding.

        Raises:
            ValueError: It was made without.
        """
        if self.actions is None or self.is_pad is None:
            raise ValueError("the batch was made without actions: it can be acted on, but has no loss")
        return self.actions, self.is_pad

    def for_lerobot(self) -> dict[str, Tensor]:
        """The form that ``SmolVLAPolicy`` takes.

        Raises:
            ValueError: It holds features instead of images.
        """
        if self.features:
            raise ValueError(
                "LeRobot's forward pass reads images, but the batch holds cached features; switch them off"
            )
        lerobot = {
            "observation.state": self.state.clone(),
            "observation.language.tokens": self.words,
            "observation.language.attention_mask": self.real,
            **self.images,
        }
        if self.actions is not None:
            actions, is_pad = self.targets()
            lerobot |= {"action": actions.clone(), "action_is_pad": is_pad}
        return lerobot

    def __len__(self) -> int:
        return len(self.state)

    def to(self, device: torch.device | str) -> Batch:
        """The batch on a device; does not wait where its tensors are pinned."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> Batch:
        """The batch in page-locked memory, from which a CUDA device copies while it computes."""
        return self._map(Tensor.pin_memory)

    def _map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        return replace(
            self,
            state=change(self.state),
            words=change(self.words),
            real=change(self.real),
            actions=None if self.actions is None else change(self.actions),
            is_pad=None if self.is_pad is None else change(self.is_pad),
            images={name: change(image) for name, image in self.images.items()},
            features={name: change(feature) for name, feature in self.features.items()},
        )


class Sentences:
    """Token ids of instructions, as the policy's own preprocessor makes them.

    Args:
        loaded: Policy and processors.
        sentences: The distinct ones.
    """

    def __init__(self, loaded: LoadedPolicy, sentences: list[str]) -> None:
        dimensions = loaded.policy.config.robot_state_feature.shape[0]
        batch = loaded.preprocess({STATE: torch.zeros(len(sentences), dimensions), "task": sentences})
        real = batch[OBS_LANGUAGE_ATTENTION_MASK].cpu()
        self._words = _real_first(batch[OBS_LANGUAGE_TOKENS].cpu(), real)
        self._lengths = real.sum(dim=1)
        self._number = {sentence: number for number, sentence in enumerate(sentences)}

    def numbers(self, sentences: tuple[str, ...] | list[str]) -> Tensor:
        """Which of the distinct sentences each of these is."""
        return torch.tensor([self._number[sentence] for sentence in sentences])

    def batch(self, numbers: Tensor) -> tuple[Tensor, Tensor, bool]:
        """Words (B, W), which are real (B, W), and whether any is padding; W is the longest's length."""
        lengths = self._lengths[numbers]
        longest = int(lengths.max())
        real = torch.arange(longest) < lengths[:, None]
        return self._words[numbers, :longest], real, bool(lengths.min() < longest)


class FrameInputs:
    """Batches of a site's frames for one policy.

    Args:
        loaded: Policy and processors.
        frames: The site's.
        features: Their cached features, or None to read images.
    """

    def __init__(self, loaded: LoadedPolicy, frames: Frames, features: StoredFeatures | None = None) -> None:
        self._frames, self._features, self._chunk = frames, features, loaded.chunk
        self._cameras = [camera for camera in loaded.cameras if camera in frames.images.cameras]
        distinct = list(dict.fromkeys(frames.sentences))
        numbers = loaded.preprocess(
            {
                STATE: torch.from_numpy(frames.states),
                ACTION: torch.from_numpy(frames.actions),
                "task": distinct[:1],
            }
        )
        self._states, self._actions = numbers[STATE].cpu(), numbers[ACTION].cpu()
        self._last = torch.from_numpy(frames.last)
        self._sentences = Sentences(loaded, distinct)
        self._sentence_of = self._sentences.numbers(frames.sentences)

    def batch(self, rows: np.ndarray, with_actions: bool = True) -> Batch:
        """The frames of (B,) rows, on the CPU."""
        index = torch.from_numpy(rows)
        words, real, padded = self._sentences.batch(self._sentence_of[index])
        actions = is_pad = None
        if with_actions:  # past the end of an episode the last action is repeated and marked, as LeRobot does
            ahead = index[:, None] + torch.arange(self._chunk)
            is_pad = ahead > self._last[index, None]
            actions = self._actions[torch.minimum(ahead, self._last[index, None])]
        if self._features is not None:
            images, features = {}, self._features.read(rows)
        else:
            images, features = {camera: self._frames.images.read(camera, rows) for camera in self._cameras}, {}
        return Batch(self._states[index], words, real, padded, actions, is_pad, len(self._cameras), images, features)


def observed(loaded: LoadedPolicy, observation: dict[str, Any]) -> Batch:
    """A batch of observations outside any recording, to act on.

    Args:
        loaded: Policy and processors.
        observation: LeRobot's batch: ``observation.state`` (B, S), cameras (B, 3, H, W), ``task``.
    """
    batch = loaded.preprocess(observation)
    words, real = batch[OBS_LANGUAGE_TOKENS], batch[OBS_LANGUAGE_ATTENTION_MASK]
    words, real = _real_first(words, real), real.sort(dim=1, descending=True).values
    images = {camera: batch[camera] for camera in loaded.cameras if camera in batch}
    return Batch(batch[STATE], words, real, True, None, None, len(images), images, {})


def _real_first(words: Tensor, real: Tensor) -> Tensor:
    """Words with padding moved to the right end, whichever side the tokenizer pads."""
    return words.gather(1, torch.sort(~real, dim=1, stable=True).indices)
