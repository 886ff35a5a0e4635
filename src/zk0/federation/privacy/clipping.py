"""Updates are made no longer than a bound, which may follow a quantile of their lengths.

Clipping: McMahan, Ramage, Talwar & Zhang, "Learning Differentially Private Recurrent Language Models", ICLR
2018. The bound that adapts: Andrew, Thakkar, McMahan & Ramaswamy, "Differentially Private Learning with Adaptive
Clipping", NeurIPS 2021.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from zk0.policy.trainable import PIECE

# Clipped a little below the bound, by more than float32 can round: so the bound holds for what is added up.
_MARGIN = 2.0**-20


def exact_norm(tensors: Mapping[str, torch.Tensor]) -> float:
    """Euclidean norm over all tensors, summed in float64: a bound must not hang on a sum's rounding."""
    return math.hypot(
        *(
            float(torch.linalg.vector_norm(piece, dtype=torch.float64))
            for tensor in tensors.values()
            for piece in tensor.detach().reshape(-1).split(PIECE)
        )
    )


def clip_factor(norm: float, bound: float) -> float:
    """What to multiply an update of this norm by, so that its norm in float32 is at most the bound.

    >>> clip_factor(0.5, 1.0)
    1.0
    >>> round(clip_factor(4.0, 1.0), 4)
    0.25
    """
    safe = bound * (1 - _MARGIN)
    return 1.0 if norm <= safe else safe / norm


def clipped(value: float, bound: float) -> float:
    """What a loss counts as: from 0 to the bound; one that is not finite is the bound."""
    return min(max(value, 0.0), bound) if math.isfinite(value) else bound


def next_clip(clip: float, share_below: float, quantile: float, rate: float) -> float:
    """The bound after a round: clip * exp(-rate * (share_below - quantile)).

    Args:
        clip: The round's bound.
        share_below: Share of the updates that were no longer than it; noise may take it out of 0 to 1.
        quantile: The share that is wanted.
        rate: How fast the bound follows.

    >>> next_clip(1.0, share_below=0.5, quantile=0.5, rate=0.2)
    1.0
    >>> next_clip(1.0, share_below=1.0, quantile=0.5, rate=0.2) < 1.0
    True
    """
    # Noise on few sites may be large; a factor of e a round is far more than a bound needs.
    return clip * math.exp(max(-1.0, min(1.0, -rate * (share_below - quantile))))
