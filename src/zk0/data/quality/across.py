"""What shows only across episodes: a calibration or camera that moved, doubles, and words that do not vary.

What moved between two sessions stays there, be it a joint's calibration or a camera.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import combinations, pairwise

import numpy as np

from zk0.data.quality.looks import Sketch
from zk0.data.quality.remarks import Numbers, Remark
from zk0.so100 import ARM_JOINTS
from zk0.words import stretches

RUN = 3  # episodes on each side: fewer are two that began elsewhere
MOVED_DEG = 8.0  # half of the 17 degrees that a public report tells of; by hand nobody rests an arm as unlike
CLEAR = 4.0  # times the spread of either side
LEAST_DEG = 0.5  # spread below which none is believed: six steps of the motor
ALONG = 0.5  # rest, end and average pose must move by at least this share of each other
CAMERA_LEVELS = 6.0  # of 255, over the whole picture: what a moved tripod or the lamp at night changes
CAMERA_CLEAR = 3.0  # times what two halves of one side differ by


def calibration(numbers: Numbers) -> list[Remark]:
    """Joints whose rest, end and average poses all move by about the same angle, and stay there.

    A calibration that moved shifts every reading of a joint. Another task or another start shifts some poses only.
    """
    episodes = sorted(numbers.states)
    arms = numbers.arms
    whole = {
        "start": np.array([np.median(arms[e][:3], axis=0) for e in episodes]),
        "end": np.array([np.median(arms[e][-3:], axis=0) for e in episodes]),
        "average": np.array([arms[e].mean(axis=0) for e in episodes]),
    }
    found = []
    for joint, name in enumerate(ARM_JOINTS):
        runs = _runs(whole["start"][:, joint], lambda left, right: _moved(left, right))
        if len(runs) < 2:
            continue
        home = max(runs, key=len)
        for run in runs:
            shifts = [float(np.median(v[run, joint]) - np.median(v[home, joint])) for v in whole.values()]
            if run is home or min(np.sign(shifts[0]) * np.array(shifts)) < max(MOVED_DEG / 2, ALONG * abs(shifts[0])):
                continue
            text = (
                f"{name} starts, ends and moves {shifts[0]:+.1f} degrees from the other episodes, all through "
                f"{stretches(episodes[i] for i in run)}"
            )
            found += [Remark("calibration", episodes[i], text, grave=True) for i in run]
    return found


def cameras(first: dict[str, dict[int, np.ndarray]]) -> list[Remark]:
    """Cameras whose view at the beginning of an episode is another from some episode on.

    Args:
        first: Camera to episode to its first picture, (H, W) grey and small.
    """
    found = []
    for camera, pictures in first.items():
        episodes = sorted(pictures)
        views = np.array([pictures[e] for e in episodes], dtype=np.float32)
        runs = _runs(views, _other_view)
        home = max(runs, key=len)
        for run in runs:
            if run is not home:
                text = f"{camera} sees another scene than in most episodes: moved, or in other light, all through "
                text += stretches(episodes[i] for i in run)
                found += [Remark("moved camera", episodes[i], text) for i in run]
    return found


def _moved(left: np.ndarray, right: np.ndarray) -> float:
    """Degrees between the sides, 0 if that is not beyond doubt."""
    shift = abs(float(np.median(left) - np.median(right)))
    widest = max(LEAST_DEG, *(float(np.percentile(np.abs(side - np.median(side)), 80)) for side in (left, right)))
    return shift if shift >= max(MOVED_DEG, CLEAR * widest) else 0.0


def _other_view(left: np.ndarray, right: np.ndarray) -> float:
    """Grey levels between the sides' usual views, 0 if that is not beyond doubt."""
    apart = _apart(left, right)
    within = max(_apart(side[::2], side[1::2]) for side in (left, right))
    return apart if apart >= max(CAMERA_LEVELS, CAMERA_CLEAR * within) else 0.0


def _apart(left: np.ndarray, right: np.ndarray) -> float:
    return float(np.abs(np.median(left, axis=0) - np.median(right, axis=0)).mean())


def _runs(values: np.ndarray, apart: Callable[[np.ndarray, np.ndarray], float]) -> list[range]:
    """Stretches of episodes between which something moved.

    A move is looked for among the few episodes on either side, so that one that is taken back is seen as well; then
    each must hold between the whole stretches that it divides.
    """
    places = range(RUN, len(values) - RUN + 1)
    scores = {p: apart(values[p - RUN : p], values[p : p + RUN]) for p in places}
    cuts: list[int] = []
    for place in sorted((p for p in places if scores[p] > 0), key=lambda p: _looseness(values, p)):
        if all(abs(place - cut) >= RUN for cut in cuts):
            cuts.append(place)
    while True:
        edges = [0, *sorted(cuts), len(values)]
        runs = [range(start, stop) for start, stop in pairwise(edges)]
        between = [
            apart(values[left.start : left.stop], values[right.start : right.stop]) for left, right in pairwise(runs)
        ]
        if not between or min(between) > 0:
            return runs
        cuts.remove(runs[int(np.argmin(between))].stop)


def _looseness(values: np.ndarray, place: int) -> float:
    """How unlike each other the episodes on each side of a place are."""
    sides = values[place - RUN : place], values[place : place + RUN]
    return sum(float(np.abs(side - np.median(side, axis=0)).sum()) for side in sides)


SAME_DEG = 0.1  # a step of the motor; nobody moves an arm twice the same way
SAME_LEVELS = 1.5  # encoding a picture again changes the mean of a block by less
LOOKS = 8  # pictures of an episode that are compared


def doubles(numbers: Numbers, sketches: Mapping[str, Sketch]) -> list[Remark]:
    """Episodes with the movement, or with the pictures, of an earlier one."""
    moves = {e: s for e, s in numbers.states.items() if len(s) > 1 and np.ptp(s, axis=0).max() > 1.0}
    twice = _twins(moves, SAME_DEG)
    found = [
        Remark("doubled", episode, f"moves exactly as episode {first}", grave=True) for episode, first in twice.items()
    ]
    for camera, sketch in sketches.items():
        views = {e: _some(grey) for e, grey in sketch.grey.items() if len(grey) >= LOOKS}
        # Pictures that do not change, or show nothing, are another fault.
        told = {e: view for e, view in views.items() if np.ptp(view, axis=0).max() > 2 * SAME_LEVELS}
        for episode, first in _twins(told, SAME_LEVELS).items():
            if episode not in twice:
                text = f"{camera} shows the pictures of episode {first}, and the arm moves otherwise"
                found.append(Remark("doubled", episode, text, grave=True))
    return found


def _some(grey: np.ndarray) -> np.ndarray:
    """(8, H * W) some of an episode's pictures, evenly spread."""
    chosen = np.linspace(0, len(grey) - 1, LOOKS).round().astype(int)
    return np.asarray(grey[chosen].reshape(LOOKS, -1), dtype=np.float32)


def _twins(content: Mapping[int, np.ndarray], tolerance: float) -> dict[int, int]:
    """Episode to the first one that equals it; those whose sums are alike are compared."""
    order = sorted(content, key=lambda e: (len(content[e]), float(content[e].mean())))
    found: dict[int, int] = {}
    for place, episode in enumerate(order):
        mine = content[episode]
        for other in order[place + 1 :]:
            if len(content[other]) != len(mine) or content[other].mean() - mine.mean() > tolerance:
                break
            if np.abs(content[other] - mine).max() <= tolerance:
                first, later = sorted((episode, other))
                found[later] = min(first, found.get(later, first))
    return found


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
    return np.asarray(np.sqrt(np.maximum(squares, 0.0)))


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
