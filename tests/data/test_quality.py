"""Every fault gets its remark and no other, and a sound recording none."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageFilter
from teleoperated import FPS, STEP_DEG, Take, Takes, draw, follow, record, take

from zk0.data.quality.judge import judge
from zk0.data.quality.remarks import ADVICE, Numbers

EPISODES = 10
Spoil = Callable[[Takes], object]
FAULTS: dict[str, tuple[dict[str, list[int | None]], Spoil]] = {}


def fault(**expected: list[int | None]) -> Callable[[Spoil], Spoil]:
    """Which kinds of remarks are expected on which episodes; None stands for the whole recording."""

    def note(spoil: Spoil) -> Spoil:
        FAULTS[spoil.__name__] = ({kind.replace("_", " "): found for kind, found in expected.items()}, spoil)
        return spoil

    return note


def keep(takes: Takes, episode: int, frames: slice | np.ndarray) -> None:
    """Keep some frames of an episode."""
    one = takes.takes[episode]
    takes.takes[episode] = Take(one.states[frames], one.actions[frames], one.pictures[frames], one.sentence)


def waiting(length: int, before: int, after: int) -> np.ndarray:
    """The frames of an episode with its first and last ones held."""
    return np.concatenate([np.zeros(before, int), np.arange(length), np.full(after, length - 1)])


def blur(pictures: np.ndarray) -> np.ndarray:
    return np.stack([np.asarray(Image.fromarray(p).filter(ImageFilter.GaussianBlur(2))) for p in pictures])


@fault(length=[3])
def broken_off(takes: Takes) -> None:
    keep(takes, 3, slice(0, 30))


@fault(length=[3])
def a_moment(takes: Takes) -> None:
    keep(takes, 3, slice(30, 36))


@fault(length=[3], still=[3])
def nothing_happens(takes: Takes) -> None:
    keep(takes, 3, np.zeros(24, int))


@fault(idle=[5])
def waits_before(takes: Takes) -> None:
    keep(takes, 5, waiting(len(takes.takes[5].states), 60, 0))


@fault(idle=[5])
def waits_after(takes: Takes) -> None:
    keep(takes, 5, waiting(len(takes.takes[5].states), 0, 60))


@fault(jump=[2])
def one_reading_is_lost(takes: Takes) -> None:
    takes.takes[2].states[40, 1] = 0.0


@fault(jump=[2])
def the_encoder_goes_over_its_end(takes: Takes) -> None:
    takes.takes[2].states[30:, 4] += 360.0
    takes.takes[2].actions[30:, 4] += 360.0


@fault(jump=[2])
def a_command_is_lost(takes: Takes) -> None:
    takes.takes[2].actions[6, 0] += 40.0


@fault(ends=[1, 7], apart=[1, 7])
def a_joint_meets_its_end(takes: Takes) -> None:
    for episode in (1, 7):
        one = takes.takes[episode]
        held = one.actions[:, 3] > 45
        one.states[held, 3] = 45.0
        one.actions[held, 3] = 60.0
    for episode, one in enumerate(takes.takes):
        one.states[:, 3] = np.minimum(one.states[:, 3], 45.0)
        if episode not in (1, 7):
            one.actions[:, 3] = np.minimum(one.actions[:, 3], 45.0)


@fault(late=[4])
def commands_come_late(takes: Takes) -> None:
    one = takes.takes[4]
    one.actions[:] = np.concatenate([np.repeat(one.actions[:1], 8, axis=0), one.actions[:-8]])


@fault(late=[4])
def the_arm_comes_late(takes: Takes) -> None:
    one = takes.takes[4]
    one.states[:] = np.concatenate([np.repeat(one.states[:1], 6, axis=0), one.states[:-6]])
    one.pictures[:] = np.concatenate([np.repeat(one.pictures[:1], 6, axis=0), one.pictures[:-6]])


@fault(apart=[6])
def a_joint_has_no_torque(takes: Takes) -> None:
    one = takes.takes[6]
    one.states[40:, 2] = one.states[40, 2] + np.rint(np.linspace(0, 60, len(one.states) - 40)) * STEP_DEG


@fault(apart=[6])
def leader_and_follower_differ(takes: Takes) -> None:
    takes.takes[6].actions[:, 0] += 18.0


@fault(calibration=[6, 7, 8, 9])
def calibration_moves(takes: Takes) -> None:
    for one in takes.takes[6:]:
        one.states[:, 1] += 17.0
        one.actions[:, 1] += 17.0


@fault(calibration=[3, 4, 5])
def calibration_moves_and_comes_back(takes: Takes) -> None:
    for one in takes.takes[3:6]:
        one.states[:, 4] -= 17.0
        one.actions[:, 4] -= 17.0


@fault(dark=[0])
def the_lens_is_covered(takes: Takes) -> None:
    takes.takes[0].pictures[:] = takes.takes[0].pictures // 40


@fault(dark=[0])
def some_pictures_are_black(takes: Takes) -> None:
    takes.takes[0].pictures[50:56] = 2


@fault(blank=[0])
def the_camera_has_no_signal(takes: Takes) -> None:
    takes.takes[0].pictures[20:] = (0, 180, 0)


@fault(frozen=[8])
def the_picture_freezes(takes: Takes) -> None:
    takes.takes[8].pictures[20:60] = takes.takes[8].pictures[20]


@fault(frozen=[None])
def the_camera_sees_a_wall(takes: Takes) -> None:
    for one in takes.takes:
        one.pictures[:] = one.pictures[0]


@fault(cut=[8])
def another_picture_stands_among_them(takes: Takes) -> None:
    takes.takes[8].pictures[44] = 255 - takes.takes[8].pictures[44]


@fault(blurred=[9])
def the_lens_is_out_of_focus(takes: Takes) -> None:
    takes.takes[9].pictures[:] = blur(takes.takes[9].pictures)


@fault(moved_camera=[7, 8, 9])
def the_camera_is_moved(takes: Takes) -> None:
    for one in takes.takes[7:]:
        one.pictures[:] = np.roll(one.pictures, (12, -9), (1, 2))


@fault(doubled=[5])
def an_episode_is_there_twice(takes: Takes) -> None:
    one = takes.takes[2]
    takes.takes[5] = Take(one.states.copy(), one.actions.copy(), one.pictures.copy())


@fault(doubled=[5])
def pictures_are_of_another_episode(takes: Takes) -> None:
    frames = min(len(takes.takes[2].pictures), len(takes.takes[5].pictures))
    keep(takes, 2, slice(0, frames))
    keep(takes, 5, slice(0, frames))
    takes.takes[5].pictures[:] = takes.takes[2].pictures


@fault(words=[None])
def one_sentence_for_two_tasks(takes: Takes) -> None:
    rng = np.random.default_rng(9)
    for episode in range(0, EPISODES, 2):  # the way back: out of the bowl, onto the table
        one = take(rng, (-40.0, 0.3))
        told = one.actions[::-1]
        states = follow(told, FPS).astype(np.float32)
        takes.takes[episode] = Take(states, told.copy(), draw(states, (-40.0, 0.3), rng))
    for episode in range(1, EPISODES, 2):
        takes.takes[episode] = take(rng, (40.0, 0.9))


@fault(words=[None])
def two_spellings(takes: Takes) -> None:
    takes.takes[3].sentence = "Put the cube into the  bowl."


@fault(words=[None])
def a_word_that_says_nothing(takes: Takes) -> None:
    for one in takes.takes:
        one.sentence = "test"


@fault(words=[None])
def two_sentences_for_one_movement(takes: Takes) -> None:
    rng = np.random.default_rng(5)
    takes.takes[:] = [take(rng, (20.0, 0.6)) for _ in range(EPISODES)]
    for one in takes.takes[::2]:
        one.sentence = "put the ball onto the plate"


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_gets_its_remark_and_no_other(name: str) -> None:
    expected, spoil = FAULTS[name]
    takes = record(EPISODES)
    spoil(takes)

    remarks = judge(takes.numbers, takes.sketches).remarks

    found: dict[str, list[int | None]] = {}
    for remark in remarks:
        found.setdefault(remark.kind, []).append(remark.episode)
    assert {kind: sorted(set(e), key=str) for kind, e in found.items()} == expected, [r.text for r in remarks]


def test_every_kind_is_tried() -> None:
    assert {kind for expected, _ in FAULTS.values() for kind in expected} == set(ADVICE)


@pytest.mark.parametrize("seed", range(3))
def test_a_sound_recording_gets_no_remark(seed: int) -> None:
    takes = record(12, seed)

    assert judge(takes.numbers, takes.sketches).remarks == ()


@pytest.mark.parametrize("fps", [10, 30, 50])
def test_no_remark_at_any_rate_and_any_size(fps: int) -> None:
    for episodes in (1, 2, 5, 40):
        rng = np.random.default_rng(episodes)
        takes = [take(rng, (rng.uniform(-45, 45), rng.uniform(0.3, 1.0)), fps, False) for _ in range(episodes)]

        assert judge(numbers_of(takes, fps), {}).remarks == ()


def test_two_tasks_with_their_own_words_get_no_remark() -> None:
    rng = np.random.default_rng(3)
    takes = [take(rng, (40.0 if e % 2 else -40.0, 0.9 if e % 2 else 0.3), 30, False) for e in range(20)]
    for episode, one in enumerate(takes):
        one.sentence = "lift the left cube" if episode % 2 else "lift the right cube"

    assert judge(numbers_of(takes, 30), {}).remarks == ()


def test_tasks_recorded_one_after_the_other_are_no_moved_calibration() -> None:
    rng = np.random.default_rng(4)
    takes = [take(rng, (40.0 if e < 10 else -40.0, 0.9 if e < 10 else 0.3), 30, False) for e in range(20)]
    for episode, one in enumerate(takes):
        one.sentence = "lift the left cube" if episode < 10 else "lift the right cube"

    assert "calibration" not in {remark.kind for remark in judge(numbers_of(takes, 30), {}).remarks}


def test_figures_are_told() -> None:
    takes = record(EPISODES)
    calibration_moves(takes)

    texts = [remark.text for remark in judge(takes.numbers, takes.sketches).on(6)]

    (text,) = texts
    assert text.startswith("shoulder_lift starts, ends and moves +1") and text.endswith("all through 6 to 9")


def numbers_of(takes: list[Take], fps: float) -> Numbers:
    return Numbers(
        fps,
        {e: one.states for e, one in enumerate(takes)},
        {e: one.actions for e, one in enumerate(takes)},
        {e: one.sentence for e, one in enumerate(takes)},
    )
