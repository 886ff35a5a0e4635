"""Joints that jump from one frame to the next, or are driven against their ends."""

from __future__ import annotations

import numpy as np

from zk0.data.quality.remarks import Numbers, Remark, amount, longest_run
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
