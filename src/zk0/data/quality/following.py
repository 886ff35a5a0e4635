"""Commands and positions that are not of the same moment, or not of the same place."""

from __future__ import annotations

import numpy as np

from zk0.data.quality.remarks import Numbers, Remark, longest_run
from zk0.so100 import ARM_JOINTS

MOST_S = 1.0  # how far apart the two are looked for
CLEAR_DEG = 1.0  # unless shifting explains at least this much, nothing is known of the delay
CLEAR_SHARE = 0.5  # and half of what is between the two
LATE_S = 0.5  # a follower trails its leader by 0.1 to 0.2 s
UNLIKE_S = 0.25  # beyond the usual delay of the recording
PEERS = 5  # fewer episodes have no usual delay or distance
APART_DEG = 20.0  # gravity, load and a slow joint explain a third of that
APART_S = 0.7  # longer than a quick move is still being made up for
OFFSET_DEG = 15.0  # constant: leader and follower calibrated to different middles
OFFSET_UNLIKE_DEG = 10.0  # from the recording's usual one

_ARM = len(ARM_JOINTS)


def following(numbers: Numbers) -> list[Remark]:
    """Episodes in which the arm follows its commands late, early, or not at all."""
    lags = {e: _lag(numbers.actions[e], s, numbers.fps) for e, s in numbers.states.items() if len(s) >= 8}
    known = [lag for lag in lags.values() if lag is not None]
    usual = float(np.median(known)) if len(known) >= PEERS else None
    found = []
    for episode, lag in lags.items():
        if lag is not None and (text := _late(lag / numbers.fps, None if usual is None else usual / numbers.fps)):
            found.append(Remark("late", episode, text, grave=True))
    return found + _apart(numbers, lags)


def _late(lag_s: float, usual_s: float | None) -> str:
    if lag_s < 0:
        return f"the commands come {-lag_s:.2f} s after the movement that they command"
    if lag_s > LATE_S:
        return f"the arm follows its commands {lag_s:.2f} s late"
    if usual_s is not None and abs(lag_s - usual_s) > UNLIKE_S:
        return f"the arm follows its commands after {lag_s:.2f} s, in the other episodes after {usual_s:.2f} s"
    return ""


def _lag(actions: np.ndarray, states: np.ndarray, fps: float) -> int | None:
    """Frames by which positions follow commands; None where the movement does not tell.

    Both are compared without their means, so that a constant distance between them plays no part.
    """
    most = min(round(MOST_S * fps), len(states) // 3)
    errors = {}
    for lag in range(-most, most + 1):
        told = actions[max(0, -lag) : len(actions) - max(0, lag), :_ARM]
        done = states[max(0, lag) : len(states) - max(0, -lag), :_ARM]
        rest = told - done
        errors[lag] = float(np.sqrt(np.mean((rest - rest.mean(axis=0)) ** 2)))
    best = min(errors, key=lambda lag: (errors[lag], abs(lag)))
    if best == 0:
        return 0
    clear = errors[0] - errors[best] > CLEAR_DEG and errors[best] < CLEAR_SHARE * errors[0]
    return best if clear else None


def _apart(numbers: Numbers, lags: dict[int, int | None]) -> list[Remark]:
    """Joints that stay away from where they are told to be, once the delay is taken out."""
    rests = {}
    for episode, found in lags.items():
        lag = max(found or 0, 0)
        states, actions = numbers.states[episode], numbers.actions[episode]
        rests[episode] = (states[lag:] - actions[: len(actions) - lag])[:, :_ARM]
    offsets = {episode: np.median(rest, axis=0) for episode, rest in rests.items()}
    usual = np.median(list(offsets.values()), axis=0) if len(offsets) >= PEERS else np.zeros(_ARM)
    remarks = []
    for episode, rest in rests.items():
        for joint, name in enumerate(ARM_JOINTS):
            offset = float(offsets[episode][joint])
            start, stop = longest_run(np.abs(rest[:, joint]) > APART_DEG)
            if abs(offset) > OFFSET_DEG:
                text = f"{name} is {offset:+.1f} degrees from its commands throughout"
            elif len(offsets) >= PEERS and abs(offset - usual[joint]) > OFFSET_UNLIKE_DEG:
                text = f"{name} is {offset:+.1f} degrees from its commands, in the other episodes {usual[joint]:+.1f}"
            elif (stop - start) / numbers.fps >= APART_S:
                most = np.abs(rest[start:stop, joint]).max()
                text = f"{name} stays up to {most:.1f} degrees from its commands from frame {start} to {stop - 1}"
            else:
                continue
            remarks.append(Remark("apart", episode, text, grave=True))
    return remarks
