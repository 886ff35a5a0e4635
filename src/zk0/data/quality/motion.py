"""What the numbers of an episode show: its length and waits, jumps, joints at their ends, and commands not followed."""

from __future__ import annotations

from collections import Counter

import numpy as np

from zk0.data.quality.remarks import PEERS, Numbers, Remark, amount, longest_run, spread
from zk0.so100 import ARM_JOINTS, JOINTS

FASTEST_DEG_S = 450.0  # an STS3215 turns at about 270 degrees a second with 7.4 V and at 430 with 12 V, without load
LEADER = 2.0  # a hand moves a leader faster than a motor could
SUDDEN_DEG = 8.0  # a step that comes out of rest and ends in rest ...
SUDDEN_DEG_S = 150.0  # ... at a speed that a joint with an arm on it does not reach within one frame ...
SUDDEN_RATIO = 8.0  # ... and this many times the steps around it
TURN_DEG = 300.0  # beyond any joint's way: the encoder went over its end
AT_END = 0.5  # degrees, or shares of the gripper's way: five steps of the motor
PUSHED_DEG = 8.0  # gravity makes a loaded joint sag by half of that
END_S = 1.0
END_SHARE = 0.1


def jumps(numbers: Numbers) -> list[Remark]:
    """Steps of a joint that no motor and no hand makes."""
    found = []
    for what, feature, factor in (("", numbers.states, 1.0), ("the command of ", numbers.actions, LEADER)):
        for episode, values in feature.items():
            if len(values) < 2:
                continue
            steps = np.diff(values.astype(np.float64), axis=0)
            wrong = _wrong(np.abs(steps), numbers.fps, factor)
            if factor != 1.0:
                wrong[:, len(ARM_JOINTS) :] = False  # a finger flicks the leader's trigger at any speed
            if not wrong.any():
                continue
            frame, joint = (int(place) for place in np.unravel_index(np.argmax(np.abs(steps) * wrong), steps.shape))
            size, count = abs(float(steps[frame, joint])), int(wrong.any(axis=1).sum())
            text = f"{what}{JOINTS[joint]} jumps by {amount(joint, size)} from frame {frame} to {frame + 1}"
            text += ", as over the end of its encoder" if size > TURN_DEG else ""
            text += f", the largest of {count} jumps" if count > 1 else ""
            found.append(Remark("jump", episode, text, grave=True))
    return found


def _wrong(sizes: np.ndarray, fps: float, factor: float) -> np.ndarray:
    """(T - 1, 6) whether a step is too fast, or comes from nowhere."""
    too_fast = sizes > factor * FASTEST_DEG_S / fps
    around = np.pad(sizes, ((2, 2), (0, 0)))
    beside = np.stack([around[shift : shift + len(sizes)] for shift in (0, 1, 3, 4)])
    # A wrong reading makes two steps, there and back: the largest of the steps around is therefore not looked at.
    calm = np.sort(beside, axis=0)[2]
    sudden = sizes > np.maximum(factor * max(SUDDEN_DEG, SUDDEN_DEG_S / fps), SUDDEN_RATIO * calm)
    sudden[:, len(ARM_JOINTS) :] = False  # a gripper snaps shut
    return np.asarray(too_fast | sudden)


def ends(numbers: Numbers) -> list[Remark]:
    """Joints that stay at the end of what they ever read while commands push beyond it."""
    every = np.concatenate(list(numbers.states.values()))
    low, high = numbers.ends if numbers.ends is not None else (every.min(axis=0), every.max(axis=0))
    found = []
    for episode, states in numbers.states.items():
        beyond = numbers.actions[episode] - states
        for joint, name in enumerate(ARM_JOINTS):
            for end, sign in ((low[joint], -1), (high[joint], 1)):
                pushed = (np.abs(states[:, joint] - end) < AT_END) & (sign * beyond[:, joint] > PUSHED_DEG)
                start, stop = longest_run(pushed)
                if (stop - start) / numbers.fps >= END_S and stop - start >= END_SHARE * len(states):
                    text = (
                        f"{name} stays at its end ({end:.1f} degrees) from frame {start} to {stop - 1} while it is "
                        f"told to go up to {np.abs(beyond[start:stop, joint]).max():.1f} degrees further"
                    )
                    found.append(Remark("ends", episode, text))
    return found


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


MOST_S = 1.0  # how far apart the two are looked for
CLEAR_DEG = 1.0  # unless shifting explains at least this much, nothing is known of the delay
CLEAR_SHARE = 0.5  # and half of what is between the two
LATE_S = 0.5  # a follower trails its leader by 0.1 to 0.2 s
UNLIKE_S = 0.25  # beyond the usual delay of the recording
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
