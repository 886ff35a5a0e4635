"""Instructions that do not vary with what is done."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from zk0.data.quality.remarks import Numbers, Remark
from zk0.suggestions import stretches

FEWEST = 4  # episodes on either side, fewer are exceptions
POINTS = 12  # of an episode that are compared, evenly spread over its way
APART_DEG = (
    18.0  # between the two kinds of movement, over all joints and the whole way; one task anywhere varies by half
)
SILHOUETTE = 0.65  # well separated: objects laid anywhere on a table give 0.3 to 0.5
ALIKE_DEG = 5.0  # what a person repeats a movement by
ALIKE_RATIO = 1.5  # and hardly further from each other than the episodes of one instruction are: chance alone makes 1.3
LITTLE = 2  # words that can say what is done with what


def words(numbers: Numbers) -> list[Remark]:
    """One sentence over clearly different movements, several over the same, or several spellings of one."""
    by_sentence: dict[str, list[int]] = {}
    for episode, sentence in sorted(numbers.sentences.items()):
        by_sentence.setdefault(sentence, []).append(episode)
    paths = {episode: _path(arm) for episode, arm in numbers.arms.items()}
    found = []
    for sentence, episodes in by_sentence.items():
        if len(sentence.split()) < LITTLE:
            text = f"'{sentence}' does not say what is done with what ({stretches(episodes)})"
            found.append(Remark("words", None, text))
        found += _one_for_many(sentence, episodes, paths)
    for (one, first), (other, second) in combinations(by_sentence.items(), 2):
        if _plain(one) == _plain(other):
            text = f"'{one}' and '{other}' are one instruction, spelled in two ways (the second in {stretches(second)})"
            found.append(Remark("words", None, text))
        elif _alike(np.stack([paths[e] for e in first]), np.stack([paths[e] for e in second])):
            text = f"'{one}' and '{other}' go with the same movement"
            found.append(Remark("words", None, text))
    return found


def _path(arm: np.ndarray) -> np.ndarray:
    """(12 * 5,) where the joints are at evenly spread places of their way, however fast they went it."""
    way = np.append(0.0, np.cumsum(np.linalg.norm(np.diff(arm.astype(np.float64), axis=0), axis=1)))
    chosen = np.linspace(0.0, way[-1], POINTS)
    return np.stack([np.interp(chosen, way, joint) for joint in arm.T]).ravel()


def _plain(sentence: str) -> str:
    """A sentence without capitals, punctuation and double spaces."""
    letters = "".join(c if c.isalnum() else " " for c in sentence.casefold())
    return " ".join(letters.split())


def _distances(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(L, R) root mean square distances in degrees."""
    squares = (left**2).mean(axis=1)[:, None] + (right**2).mean(axis=1)[None] - 2 * left @ right.T / left.shape[1]
    return np.sqrt(np.maximum(squares, 0.0))


def _alike(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether two groups of movements are one."""
    if min(len(first), len(second)) < FEWEST:
        return False
    across = _distances(first, second).mean()
    inside = max(_inside(first), _inside(second))
    return bool(across < ALIKE_DEG and across < ALIKE_RATIO * inside)


def _inside(group: np.ndarray) -> float:
    return float(_distances(group, group).sum() / (len(group) * (len(group) - 1)))


def _one_for_many(sentence: str, episodes: list[int], paths: dict[int, np.ndarray]) -> list[Remark]:
    """Two kinds of movement, far from each other, under one sentence."""
    if len(episodes) < 2 * FEWEST:
        return []
    points = np.stack([paths[episode] for episode in episodes])
    second = _halves(points)
    if min(second.sum(), (~second).sum()) < FEWEST:
        return []
    apart = float(_distances(points[second].mean(0)[None], points[~second].mean(0)[None])[0, 0])
    if apart < APART_DEG or _silhouette(points, second) < SILHOUETTE:
        return []
    one, other = (stretches(np.array(episodes)[side].tolist()) for side in (~second, second))
    text = f"'{sentence}' is said of two kinds of movement, {apart:.0f} degrees apart: {one}; and {other}"
    return [Remark("words", None, text)]


def _halves(points: np.ndarray) -> np.ndarray:
    """(N,) which of two clusters a movement belongs to: k-means from the two that are furthest apart."""
    far = _distances(points, points)
    centres = points[list(np.unravel_index(int(far.argmax()), far.shape))]
    side: np.ndarray = np.zeros(len(points), dtype=bool)
    for _ in range(20):
        to = _distances(points, centres)
        new = to[:, 1] < to[:, 0]
        if (new == side).all() or new.all() or not new.any():
            return new
        side = new
        centres = np.stack([points[~side].mean(axis=0), points[side].mean(axis=0)])
    return side


def _silhouette(points: np.ndarray, side: np.ndarray) -> float:
    """Mean silhouette (Rousseeuw, "Silhouettes: a graphical aid", 1987): 1 for far and tight, 0 for no clusters."""
    far = _distances(points, points)
    counts = np.where(side, side.sum(), (~side).sum())
    same, other = side[:, None] == side[None], side[:, None] != side[None]
    own = (far * same).sum(axis=1) / np.maximum(counts - 1, 1)
    next_one = (far * other).sum(axis=1) / (len(points) - counts)
    return float(((next_one - own) / np.maximum(own, next_one)).mean())
