"""The Gaussian mechanism: updates are made no longer than a bound, and noise of the bound's scale is added.

Clipping: McMahan, Ramage, Talwar & Zhang, "Learning Differentially Private Recurrent Language Models", ICLR
2018. The bound that adapts: Andrew, Thakkar, McMahan & Ramaswamy, "Differentially Private Learning with Adaptive
Clipping", NeurIPS 2021.

Noise comes from the operating system's secure source: who could repeat it could take it off, so it never comes from a
run's seed. Normal values are made of uniform ones by Box and Muller, "A Note on the Generation of Random Normal
Deviates", Annals of Mathematical Statistics 1958. What a computer adds is not the real-valued Gaussian of the proofs:
its values are floating-point numbers, whose low bits depend on what they are added to, and no value lies beyond 8.6
standard deviations (Mironov, "On Significance of the Least Significant Bits for Differential Privacy", CCS 2012,
breaks a Laplace mechanism so). Noise is drawn in float64 and added in float32, and nothing more is done about it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from zk0.policy.trainable import PIECE

# Clipped a little below the bound, by more than float32 can round: so the bound holds for what is added up.
_MARGIN = 2.0**-20


def exact_norm(tensors: Mapping[str, torch.Tensor]) -> float:
    """Euclidean norm over all tensors, summed in float64: a bound must not hang on a sum's rounding."""
    return math.hypot(
        *(
            float(torch.linalg.vector_norm(piece, dtype=torch.float64))
            for tensor in tensors.values()
            for piece in torch.split(tensor.detach().reshape(-1), PIECE)
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


def secure_normal(count: int) -> NDArray[np.float64]:
    """(count,) independent standard normal values, float64, that no seed gives again."""
    pairs = (count + 1) // 2
    words = np.frombuffer(os.urandom(16 * pairs), dtype=np.uint64)
    uniform = ((words >> np.uint64(11)).astype(np.float64) + 1) * 2.0**-53  # above 0, up to 1: 0 has no logarithm
    radius, angle = np.sqrt(-2 * np.log(uniform[:pairs])), 2 * math.pi * uniform[pairs:]
    normal: NDArray[np.float64] = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])
    return normal[:count]


def add_noise(tensors: Iterable[torch.Tensor], deviation: float) -> None:
    """Add independent noise to every value, in place.

    Args:
        tensors: Floating-point, contiguous, on the CPU.
        deviation: Standard deviation of the noise.

    Raises:
        ValueError: It is not positive and finite.
    """
    if not 0 < deviation < math.inf:
        raise ValueError(f"the noise's standard deviation must be above 0 and finite, got {deviation}")
    for tensor in tensors:
        for piece in torch.split(tensor.view(-1), PIECE):
            piece.add_(torch.from_numpy(secure_normal(piece.numel()) * deviation).to(piece.dtype))
