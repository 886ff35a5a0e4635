"""Gaussian noise from the operating system's secure source.

Who could repeat the noise could take it off, so it never comes from a run's seed. Normal values are made
of uniform ones by Box and Muller, "A Note on the Generation of Random Normal Deviates", Annals of
Mathematical Statistics 1958.

What a computer adds is not the real-valued Gaussian of the proofs: its values are floating-point numbers, whose
low bits depend on what they are added to, and no value lies beyond 8.6 standard deviations (Mironov, "On
Significance of the Least Significant Bits for Differential Privacy", CCS 2012, breaks a Laplace mechanism so). Noise is
drawn in float64 and added in float32, and nothing is done about it beyond that.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable

import numpy as np
import torch

from zk0.policy.trainable import PIECE


def secure_normal(count: int) -> np.ndarray:
    """(count,) independent standard normal values, float64, that no seed gives again."""
    pairs = (count + 1) // 2
    words = np.frombuffer(os.urandom(16 * pairs), dtype=np.uint64)
    uniform = ((words >> np.uint64(11)).astype(np.float64) + 1) * 2.0**-53  # above 0, up to 1: 0 has no logarithm
    radius, angle = np.sqrt(-2 * np.log(uniform[:pairs])), 2 * math.pi * uniform[pairs:]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]


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
        for piece in tensor.view(-1).split(PIECE):
            piece.add_(torch.from_numpy(secure_normal(piece.numel()) * deviation).to(piece.dtype))
