"""Combining updates of which some may be broken or malicious; needs all of them at once.

Coordinate-wise median and trimmed mean: Yin et al., "Byzantine-Robust Distributed Learning: Towards
Optimal Statistical Rates", ICML 2018. Krum and Multi-Krum: Blanchard et al., "Machine Learning with Adversaries:
Byzantine Tolerant Gradient Descent", NeurIPS 2017. As in the papers every site counts the same:
weights are checked and not used, since whoever lies about an update can lie about its weight.

Updates wait on disk and are combined piece by piece, so memory is the result's and a few megabytes.
Each update is written once and read once; Krum reads what it chose once more.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import torch

from zk0.errors import StageError
from zk0.federation.aggregation import Aggregator, check_update
from zk0.federation.update_buffer import Spill
from zk0.policy.trainable import Tensors

MEDIAN_SITES = 3  # of two the median is the mean


class _Waiting(Aggregator):
    """Folds to disk; kinds say how many updates they need, why, and how to combine them."""

    def __init__(self, start: Mapping[str, torch.Tensor], folder: Path, needs: tuple[int, str]) -> None:
        self._start, self._folder, self._needs = start, folder, needs
        self._spill = Spill(start, folder)

    def fold(self, delta: Mapping[str, torch.Tensor], weight: float, longest: float = math.inf) -> float:
        """Put an update on disk; see :meth:`Aggregator.fold`.

        Raises:
            StageError: The disk is full.
        """
        norm = check_update(delta, weight, self._start, longest)
        self._spill.append(delta)
        return norm

    def finish(self) -> Tensors:
        """Combine what waits; see :meth:`Aggregator.finish`."""
        with self._spill as spill:
            check_sites(spill.count, *self._needs)
            result = self._combine(spill)
        self._spill = Spill(self._start, self._folder)
        return result

    @abstractmethod
    def _combine(self, spill: Spill) -> Tensors:
        """One update of those that wait."""

    def __exit__(self, *_: object) -> None:
        self._spill.__exit__()


class Median(_Waiting):
    """Each value's median over the sites; of an even number the mean of the two in the middle."""

    def __init__(self, start: Mapping[str, torch.Tensor], folder: Path) -> None:
        """Let updates of these tensors wait in a folder."""
        super().__init__(start, folder, median_needs())

    def _combine(self, spill: Spill) -> Tensors:
        result = spill.empty()
        for rows, to in spill.rows(result):
            sort_rows(rows)
            middle = spill.count // 2
            if spill.count % 2:
                to.copy_(rows[middle])
            else:
                # Halved before they are added, so that no finite pair overflows.
                torch.mul(rows[middle - 1], 0.5, out=to).add_(rows[middle], alpha=0.5)
        return result


class TrimmedMean(_Waiting):
    """Each value's mean over the sites less the share's smallest and as many largest."""

    def __init__(self, start: Mapping[str, torch.Tensor], folder: Path, share: float) -> None:
        """Leave out ``share`` of the sites, rounded down, at each end."""
        super().__init__(start, folder, trimmed_needs(share))
        self._share = share

    def _combine(self, spill: Spill) -> Tensors:
        out = trimmed(spill.count, self._share)
        result = spill.empty()
        for rows, to in spill.rows(result):
            sort_rows(rows)
            kept = rows[out : spill.count - out]
            torch.sum(kept.div_(len(kept)), dim=0, out=to)
        return result


class Krum(_Waiting):
    """The one update whose nearest others are nearest, or the mean of all but the farthest.

    An update's score is the sum of its squared distances to the sites - byzantine - 2 others nearest
    to it; the lowest scores are chosen, the first of equals.

    Somebody is always the farthest, and where owners differ it is the same one round after round. With a margin
    Multi-Krum leaves out only those whose score is beyond so many times the median's, which no minority decides (Huber,
    Robust Statistics, 1981, section 1.4). Who stays within it counts as one site of all, and its distances are at most
    the root of the margin times the usual. Mixing updates before they are judged is no help to a lone site: it is among
    nobody's nearest (Allouah et al., "Fixing by Mixing: A Recipe for Optimal Byzantine ML under Heterogeneity", AISTATS
    2023), and of random pairs its own is still the farthest (Karimireddy et al., "Byzantine-Robust Learning on
    Heterogeneous Datasets via Bucketing", ICLR 2022) and takes the partner along.

    Attributes:
        chosen: After :meth:`finish`, which updates they were, in the order they were folded.
    """

    def __init__(
        self,
        start: Mapping[str, torch.Tensor],
        folder: Path,
        byzantine: int,
        several: bool = False,
        margin: float = 0.0,
    ) -> None:
        """Bear up to ``byzantine`` malicious sites.

        Args:
            start: The global model's trainable tensors.
            folder: Where updates wait.
            byzantine: How many.
            several: Take the mean of all but so many, instead of one alone: Multi-Krum.
            margin: Leave out only whose score is more than this many times the median's (0 = so many in any case).
        """
        super().__init__(start, folder, krum_needs(byzantine))
        self._byzantine, self._several, self._margin = byzantine, several, margin
        self.chosen: list[int] = []

    def _combine(self, spill: Spill) -> Tensors:
        # Squared distances from inner products, in float64: their cancellation is then far below float32's own
        # rounding, and a huge update blurs its own distances only.
        products = torch.zeros(spill.count, spill.count, dtype=torch.float64)
        for rows, _ in spill.rows(spill.empty()):
            wide = rows.to(torch.float64)
            products.addmm_(wide, wide.T)
        squares = products.diagonal()
        distances = (squares[:, None] + squares[None, :] - 2 * products).clamp_(min=0).fill_diagonal_(math.inf)
        nearest = distances.sort(dim=1).values[:, : spill.count - self._byzantine - 2]
        keep = spill.count - self._byzantine if self._several else 1
        scores = nearest.sum(dim=1)
        order = scores.argsort(stable=True).tolist()
        within = scores <= self._margin * scores.median()
        self.chosen = sorted(order[:keep] + [index for index in order[keep:] if self._several and within[index]])
        if len(self.chosen) == 1:
            return spill.one(self.chosen[0])
        result = spill.empty()
        for rows, to in spill.rows(result):
            torch.sum(rows[self.chosen].div_(len(self.chosen)), dim=0, out=to)
        return result


def median_needs() -> tuple[int, str]:
    """How many sites the median needs, and why."""
    return MEDIAN_SITES, "of fewer the median is the mean"


def trimmed_needs(share: float) -> tuple[int, str]:
    """How many sites the trimmed mean needs, and why."""
    sites = math.ceil(1 / share - 1e-9) if share else 1
    return sites, f"of fewer federation.trimmed_share {share:g} leaves out nobody"


def krum_needs(byzantine: int) -> tuple[int, str]:
    """How many sites Krum needs, alone or several, and why (Blanchard et al., proposition 4.2)."""
    return 2 * byzantine + 3, f"to bear federation.byzantine {byzantine} krum needs over 2 * {byzantine} + 2"


def check_sites(sites: int, needed: int, why: str) -> None:
    """Refuse to combine too few updates.

    Raises:
        StageError: Says how many there are, how many are needed and why.
    """
    if sites < needed:
        raise StageError(f"{sites} updates are too few for this strategy: it needs {needed}, since {why}")


def trimmed(sites: int, share: float) -> int:
    """How many sites the trimmed mean leaves out at each end."""
    return int(sites * share + 1e-9)


def sort_rows(rows: torch.Tensor) -> None:
    """Sort each column of a (sites, values) float32 tensor in place, by exchanging whole rows.

    For the few sites of a federation a sorting network is an order of magnitude faster than sorting
    millions of short columns: each step is an elementwise minimum and maximum.
    """
    lower = torch.empty_like(rows[0])
    for low, high in _network(len(rows)):
        torch.minimum(rows[low], rows[high], out=lower)
        torch.maximum(rows[low], rows[high], out=rows[high])
        rows[low].copy_(lower)


@cache
def _network(size: int) -> tuple[tuple[int, int], ...]:
    """Pairs to exchange for any order of ``size`` values to be sorted.

    Batcher's merge exchange: Knuth, The Art of Computer Programming, volume 3, algorithm 5.2.2M.
    """
    return tuple(_exchanges(size))


def _exchanges(size: int) -> Iterator[tuple[int, int]]:
    top = 1 << max(0, (size - 1).bit_length() - 1)
    width = top if size > 1 else 0
    while width:
        span, offset, distance = top, 0, width
        while True:
            yield from ((low, low + distance) for low in range(size - distance) if low & width == offset)
            if span == width:
                break
            distance, span, offset = span - width, span >> 1, width
        width >>= 1
