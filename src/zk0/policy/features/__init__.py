"""What a frozen backbone computes for a frame, computed once and kept on disk.

In SmolVLA's fine-tuning default vision encoder and language model are frozen and images are not
augmented, so a frame's image tokens never change, nor do the keys and values of its image and
language prefix. :func:`features_for` gives a set of frames its features: read where they are
there, computed where they are not.
"""

from zk0.policy.features.choose import features_for
from zk0.policy.features.frames import FrameFeatures, Work
from zk0.policy.features.places import clean, features_folder, usage
from zk0.policy.features.regime import Regime, regime
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
