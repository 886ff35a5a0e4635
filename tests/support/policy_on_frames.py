"""What a policy says of recorded frames, in one call."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from zk0.data.frames import Frames
from zk0.policy import flow
from zk0.policy.checkpoint import LoadedPolicy
from zk0.policy.inputs import FrameInputs, StoredFeatures


def flow_loss(
    loaded: LoadedPolicy,
    frames: Frames,
    rows: np.ndarray,
    noise: Tensor,
    times: Tensor,
    features: StoredFeatures | None = None,
    reduction: flow.Reduction = "mean",
) -> Tensor:
    """The loss of ``SmolVLAPolicy.forward`` for some frames, its rules for padding included.

    Args:
        loaded: Policy and processors.
        frames: Recorded frames.
        rows: (B,) which of them.
        noise: (B, chunk, max_action_dim).
        times: (B,).
        features: The frames' cached features; None computes them from the images.
        reduction: ``mean``: a number; ``none``: (B,) losses.
    """
    device = loaded.policy.config.device
    batch = FrameInputs(loaded, frames, features).batch(rows).to(device)
    return flow.batch_loss(loaded.policy, batch, noise.to(device), times.to(device), reduction)


def predict_chunk(
    loaded: LoadedPolicy, frames: Frames, rows: np.ndarray, noise: Tensor, features: StoredFeatures | None = None
) -> Tensor:
    """The action chunks (B, chunk, A), normalised, for some frames; noise is (B, chunk, max_action_dim)."""
    device = loaded.policy.config.device
    batch = FrameInputs(loaded, frames, features).batch(rows, with_actions=False).to(device)
    return flow.predict(loaded.policy, batch, noise.to(device))
