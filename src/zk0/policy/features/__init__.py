"""What a frozen backbone computes for a frame, computed once and kept on disk.

In SmolVLA's fine-tuning default vision encoder and language model are frozen and images are not
augmented, so a frame's image tokens never change, nor do the keys and values of its image and
language prefix. :func:`features_for` gives a set of frames its features: read where they are
there, computed where they are not.
"""

from functools import cache
from pathlib import Path

import numpy as np

from zk0.console import console
from zk0.data.frames import Frames
from zk0.params import FeatureParams
from zk0.policy.checkpoint import LoadedPolicy
from zk0.policy.features.backbone import Regime, regime
from zk0.policy.features.frames import FrameFeatures, Work
from zk0.policy.features.places import clean, features_folder, usage
from zk0.policy.features.store import FeatureCacheError

__all__ = [
    "FeatureCacheError",
    "FrameFeatures",
    "Regime",
    "Work",
    "clean",
    "features_folder",
    "features_for",
    "regime",
    "usage",
]


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
