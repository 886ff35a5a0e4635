"""Split episodes: held-out from training, and one large dataset over many sites."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from zk0.errors import DataError
from zk0.params import PartitionParams


def hold_out(episodes: Sequence[int], share: float, rng: np.random.Generator) -> tuple[list[int], list[int]]:
    """Split episodes into (training, held-out), at least one of each.

    Raises:
        DataError: Fewer than two episodes.
    """
    if len(episodes) < 2:
        raise DataError(f"{len(episodes)} episode cannot be split into training and held-out; record at least two")
    count = min(max(1, round(len(episodes) * share)), len(episodes) - 1)
    shuffled = rng.permutation(np.asarray(episodes))
    return sorted(int(e) for e in shuffled[count:]), sorted(int(e) for e in shuffled[:count])


def partition(
    episodes: Sequence[int], tasks: Sequence[int], params: PartitionParams, rng: np.random.Generator
) -> list[list[int]]:
    """Deal the episodes of one dataset to several sites.

    ``equal`` deals them round; ``sizes`` draws the sites' shares from a Dirichlet distribution;
    ``tasks`` draws, for each task, its spread over the sites (Hsu, Qi and Brown, "Measuring the
    effects of non-identical data distribution for federated visual classification", 2019);
    ``by-task`` gives each task to one site.

    Args:
        episodes: Episode indices.
        tasks: The task of each.
        params: Scheme, number of sites, concentration.
        rng: Decides the draw.

    Returns:
        One sorted list of episodes per site.

    Raises:
        DataError: A site would get fewer than two episodes; says what to change.
    """
    order = rng.permutation(len(episodes))
    indices, labels = np.asarray(episodes)[order], np.asarray(tasks)[order]
    count = params.sites
    if params.scheme == "equal":
        parts = [indices[site::count] for site in range(count)]
    elif params.scheme == "sizes":
        parts = _cut(indices, rng.dirichlet([params.alpha] * count))
    elif params.scheme == "tasks":
        spread = [_cut(indices[labels == t], rng.dirichlet([params.alpha] * count)) for t in np.unique(labels)]
        parts = [np.concatenate(pieces) for pieces in zip(*spread, strict=True)]
    else:
        groups = np.array_split(np.unique(labels), count)
        parts = [indices[np.isin(labels, group)] for group in groups]
    for site, part in enumerate(parts):
        if len(part) < 2:
            raise DataError(
                f"partition {site} would get {len(part)} of {len(episodes)} episodes and needs two; lower "
                "data.partition.sites, raise data.partition.alpha, or choose another scheme"
            )
    return [sorted(int(e) for e in part) for part in parts]


def _cut(items: np.ndarray, shares: np.ndarray) -> list[np.ndarray]:
    """Cut an array into consecutive pieces of about these shares."""
    return np.split(items, np.round(np.cumsum(shares)[:-1] * len(items)).astype(int))
