"""Split episodes: held-out from training, and one large dataset over many sites."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from zk0.digests import digest_value
from zk0.errors import DataError
from zk0.params import PartitionParams


def hold_out(
    motions: Mapping[int, str], share: float, seed: int, left_out: Collection[int] = ()
) -> tuple[list[int], list[int]]:
    """Split a site's episodes into (training, held-out), at least one of each.

    An episode's side is decided by its own digest and the seed, as a number below ``share`` or not. So
    whatever is recorded, left out or deleted later, an episode that was trained on is never held out,
    and copies of one, at whatever sites, lie on one side. The price is that ``share`` is met on average
    only: of 30 episodes at 0.2, 6 are held out, give or take 2. A rule that counts would meet it, but
    one episode less would move all those after it.

    Two exceptions give each side an episode. The first always trains, and its copies. Where no number is
    below ``share``, the episode with the lowest is held out; it trains once another has a lower one,
    which cannot have been trained on before.

    Sides are decided before anything is left out, so that this moves no episode either.

    Args:
        motions: Episode to the digest of what was done in it, of all that the site has.
        share: Chance of an episode to be held out. Raising it later holds out what was trained on.
        seed: The run's; another one splits anew.
        left_out: Episodes to leave out of both sides.

    Raises:
        DataError: Fewer than two episodes, or one side would be left empty.
    """
    if len(motions) < 2:
        raise DataError(f"{len(motions)} episode cannot be split into training and held-out; record at least two")
    first = motions[min(motions)]
    numbers = {episode: _number(seed, motion) for episode, motion in motions.items() if motion != first}
    if not numbers:
        raise DataError(f"all {len(motions)} episodes are the same one and cannot be split; record another")
    lowest = min(numbers.values())
    apart = {episode for episode, number in numbers.items() if number < share or number == lowest}
    held_out = sorted(apart.difference(left_out))
    train = sorted(set(motions) - apart.union(left_out))
    for side, episodes, whole in (("held-out", held_out, apart), ("training", train, set(motions) - apart)):
        if not episodes:
            raise DataError(
                f"data.leave_out leaves no {side} episode of {sorted(whole)}; keep one of them, or record more"
            )
    return train, held_out


def _number(seed: int, motion: str) -> float:
    """In [0, 1): the same for the same motion and seed."""
    return int(digest_value(["held-out", seed, motion], size=8), 16) / 2**64


def partition(
    episodes: Sequence[int], tasks: Sequence[int], params: PartitionParams, rng: np.random.Generator
) -> list[list[int]]:
    """Deal the episodes of one dataset to several sites.

    ``equal`` deals them round, each round in another order, and goes on with it when the dataset has
    grown. By the other schemes episodes then move between sites; that none moves from training to
    held-out is :func:`hold_out`'s doing, which looks at the episode alone. ``sizes`` draws the sites'
    shares from a Dirichlet distribution; ``tasks`` draws, for each task, its spread over the sites
    (Hsu, Qi and Brown, "Measuring the effects of non-identical data distribution for federated visual
    classification", 2019); ``by-task`` gives each task to one site.

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
    count = params.sites
    rounds = [rng.permutation(count) for _ in range(0, len(episodes), count)] if params.scheme == "equal" else []
    order = rng.permutation(len(episodes))
    indices, labels = np.asarray(episodes)[order], np.asarray(tasks)[order]
    if params.scheme == "equal":
        dealt = np.concatenate(rounds)[: len(episodes)]
        parts = [np.asarray(episodes)[dealt == site] for site in range(count)]
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
