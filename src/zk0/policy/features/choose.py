"""Which features some frames have under a policy, if any."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from zk0.console import console
from zk0.data.frames import Frames
from zk0.params import FeatureParams
from zk0.policy.checkpoint import LoadedPolicy
from zk0.policy.features.frames import FrameFeatures
from zk0.policy.features.places import features_folder
from zk0.policy.features.regime import regime


def features_for(loaded: LoadedPolicy, frames: Frames, settings: FeatureParams, root: Path) -> FrameFeatures | None:
    """The features of some frames.

    Args:
        loaded: Policy and processors.
        frames: Recorded frames.
        settings: ``features`` of params.
        root: Project folder; features lie in :func:`~zk0.policy.features.places.features_folder`.

    Returns:
        None where params switch them off or, with one message a process that says why, where they would not stay true
        because the backbone trains.
    """
    if settings.cache == "off" or not any(camera in frames.images.cameras for camera in loaded.cameras):
        return None
    holds = regime(loaded.policy)
    if not holds.tokens:
        _say_once(f"features of frames are not kept: {holds.reason}")
        return None
    if settings.cache == "prefix" and not holds.prefix:
        _say_once(f"image tokens are kept instead of keys and values: {holds.reason}")
        settings = settings.model_copy(update={"cache": "tokens"})
    features = FrameFeatures(loaded, frames, settings, features_folder(root))
    if settings.ahead:
        features.ensure(np.arange(len(frames)))
    return features


@cache
def _say_once(message: str) -> None:
    console.print(message, markup=False)
