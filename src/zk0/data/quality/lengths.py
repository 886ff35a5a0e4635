"""Episodes that are unlike the others in length, do nothing, or wait."""

from __future__ import annotations

from collections import Counter

import numpy as np

from zk0.data.quality.remarks import Numbers, Remark, spread

PEERS = 5  # fewer episodes have no usual length
RATIO = 2.5  # people differ by half from try to try, so a short or long one is further away than that
SPREADS = 4.0  # and further than four standard deviations, where lengths vary much anyway
SHORTEST_S = 0.5  # no one reaches for anything in less
STILL_DEG = 2.0  # 20 steps of the motor: play and sag of an arm that holds its pose
IDLE_S = 3.0  # a moment to let go of the keyboard is usual
IDLE_SHARE = 0.3  # and it must be a good part of the episode


def lengths(numbers: Numbers) -> list[Remark]:
    """Episodes that are much shorter or longer than those with the same instruction, or than all."""
    frames = {episode: len(states) for episode, states in numbers.states.items()}
    by_sentence = Counter(numbers.sentences.values())
    found = []
    for episode, count in frames.items():
        sentence = numbers.sentences[episode]
        own = by_sentence[sentence] >= PEERS
        peers = [n for other, n in frames.items() if not own or numbers.sentences[other] == sentence]
        seconds = count / numbers.fps
        if seconds < SHORTEST_S:
            found.append(Remark("length", episode, f"lasts only {seconds:.1f} s", grave=True))
        elif len(peers) >= PEERS:
            usual = float(np.median(peers))
            limit = max(np.log(RATIO), SPREADS * spread(np.log(peers)))
            if abs(np.log(count / usual)) > limit:
                whose = "those with its instruction" if own and len(by_sentence) > 1 else "the others"
                text = f"lasts {seconds:.1f} s, {whose} about {usual / numbers.fps:.1f} s"
                found.append(Remark("length", episode, text))
    return found


def stillness(numbers: Numbers) -> list[Remark]:
    """Episodes in which nothing moves, or in which much time passes before or after the movement."""
    found = []
    for episode, states in numbers.states.items():
        if len(states) < 2:
            continue
        reach = np.ptp(states, axis=0).max()
        if reach < STILL_DEG:
            found.append(Remark("still", episode, f"no joint moves by more than {reach:.1f} degrees", grave=True))
            continue
        before, after = _wait(states), _wait(states[::-1])
        for waited, where in ((before, "at its beginning"), (after, "at its end")):
            seconds = waited / numbers.fps
            if seconds > IDLE_S and waited > IDLE_SHARE * len(states):
                text = f"nothing moves for {seconds:.1f} of its {len(states) / numbers.fps:.1f} s, {where}"
                found.append(Remark("idle", episode, text))
    return found


def _wait(states: np.ndarray) -> int:
    """Frames until any joint has left where it was."""
    return int(np.argmax((np.abs(states - states[0]) > STILL_DEG).any(axis=1)))
