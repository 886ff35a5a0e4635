"""The embedded base: what it is pretrained on, that an interrupted pretraining goes on, and from what it may start."""

from __future__ import annotations

import itertools
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from zk0.cli.app import app
from zk0.data.sim.expert import Episode, record_episode, record_episodes
from zk0.data.sim.rooms import NAMED, UNMET, Room
from zk0.data.sim.simulation import Simulation
from zk0.data.sim.tasks import PUBLIC, find_task
from zk0.digests import digest_folder
from zk0.errors import StageError
from zk0.files import read_mapping
from zk0.policy.checkpoint import LoadedPolicy, load_checkpoint, own_stats, save_checkpoint
from zk0.policy.start import load_start
from zk0.policy.trainable import digest_tensors
from zk0.training.mixture import public_mixture
from zk0.training.pretrain import PretrainConfig, pretrain

TINY = PretrainConfig(episodes=4, steps=3, batch=2, warmup=1, save_every=2, rooms=0.5)
FIRST = {"public-touch": 1_000_000, "public-push": 2_000_000, "public-point": 3_000_000}


def quiet(_: str) -> None:
    """Says nothing."""


@pytest.fixture(scope="module")
def recorded_in_rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings of ``TINY``, half of them in rooms."""
    folder = tmp_path_factory.mktemp("mixture")
    public_mixture(folder, TINY.episodes, TINY.noise, TINY.rooms, 96)
    return folder


@pytest.fixture
def work(tmp_path: Path, recorded_in_rooms: Path) -> Path:
    """A folder to pretrain in, with the recordings of ``TINY``."""
    shutil.copytree(recorded_in_rooms, tmp_path / "work" / "episodes")
    return tmp_path / "work"


def same(first: Episode, second: Episode) -> bool:
    return (first.seed, first.sentence) == (second.seed, second.sentence) and all(
        np.array_equal(a, b)
        for a, b in (
            (first.states, second.states),
            (first.actions, second.actions),
            *((first.images[name], second.images[name]) for name in first.images),
        )
    )


def test_without_rooms_the_mixture_is_the_scripted_experts_in_the_shared_room(tmp_path: Path) -> None:
    found = public_mixture(tmp_path, 4, 0.3, 0.0, 32)
    expected = [
        episode
        for task in sorted(PUBLIC, key=lambda task: task.name)
        for part in range(2)
        for episode in record_episodes(
            task, itertools.count(FIRST[task.name] + 500_000 * part), 1 if task.verb == "point" else 2, 32, 0.3
        )
    ]

    assert len(found) == len(expected) == 10
    assert all(map(same, found, expected))


def test_a_share_of_the_episodes_stands_each_in_a_room_that_no_source_names(recorded_in_rooms: Path) -> None:
    episodes = public_mixture(recorded_in_rooms, TINY.episodes, TINY.noise, TINY.rooms, 96)
    touch = [episode for episode in episodes if 1_000_000 <= episode.seed < 1_500_000]

    shared, apart = touch
    for episode, room in ((shared, Room()), (apart, Room.of(NAMED + 1_000_000))):
        sim = Simulation(find_task("public-touch"), 96, room=room)
        again = record_episode(sim, episode.seed, TINY.noise)
        sim.close()
        assert again is not None and same(again, episode)
    assert NAMED + max(FIRST.values()) + 1_000_000 < UNMET


def test_a_part_that_is_there_is_not_recorded_again(recorded_in_rooms: Path, tmp_path: Path) -> None:
    shutil.copytree(recorded_in_rooms, tmp_path / "episodes")
    before = public_mixture(recorded_in_rooms, TINY.episodes, TINY.noise, TINY.rooms, 96)
    kept = (tmp_path / "episodes" / "public-touch-0.npz").stat().st_mtime_ns
    (tmp_path / "episodes" / "public-push-1.npz").unlink()

    after = public_mixture(tmp_path / "episodes", TINY.episodes, TINY.noise, TINY.rooms, 96)

    assert all(map(same, before, after)) and len(before) == len(after)
    assert (tmp_path / "episodes" / "public-touch-0.npz").stat().st_mtime_ns == kept


def test_an_interrupted_pretraining_comes_to_the_same_weights(
    work: Path, tmp_path: Path, loaded: LoadedPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = tmp_path / "start"
    save_checkpoint(loaded, start)
    shutil.copytree(work, tmp_path / "other")
    pretrain(TINY, work, tmp_path / "whole", start, quiet)

    def stop(_: object, step: int) -> float:
        if step == 2:
            raise KeyboardInterrupt
        return rate(TINY, step)

    from zk0.training import pretrain as module

    rate = module._rate
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(module, "_rate", stop)
        pretrain(TINY, tmp_path / "other", tmp_path / "again", start, quiet)
    told: list[str] = []
    pretrain(TINY, tmp_path / "other", tmp_path / "again", start, told.append)

    assert "continuing at step 2" in told
    assert digest_folder(tmp_path / "again") == digest_folder(tmp_path / "whole")


def test_what_is_gone_on_from_keeps_its_words_and_its_normalisation(
    work: Path, tmp_path: Path, loaded: LoadedPolicy
) -> None:
    start = tmp_path / "start"
    save_checkpoint(loaded, start)

    pretrain(replace(TINY, steps=1, learning_rate=0.0), work, tmp_path / "out", start, quiet)

    made = load_checkpoint(tmp_path / "out")
    assert digest_folder(tmp_path / "out" / "vlm") == digest_folder(start / "vlm")
    for feature, values in own_stats(loaded).items():
        for name, value in values.items():
            np.testing.assert_allclose(own_stats(made)[feature][name], value, rtol=1e-6)
    halved = {name: tensor.half().float() for name, tensor in loaded.policy.state_dict().items()}
    assert digest_tensors(dict(made.policy.state_dict())) == digest_tensors(halved)  # nothing trained at rate 0
    assert made.policy.config.train_expert_only


def test_another_architecture_is_refused_before_anything_is_recorded(tmp_path: Path) -> None:
    from zk0.policy import embedded
    from zk0.policy.checkpoint import with_stats
    from zk0.policy.start import CAMERAS, build_nano

    embedded.write_vlm(tmp_path / "vlm", replace(embedded.NANO, vision=(96, 192, 4, 4)))
    narrow = with_stats(build_nano(tmp_path / "vlm", CAMERAS, 0), own_stats(load_start(tmp_path, "random:nano", "cpu")))
    save_checkpoint(narrow, tmp_path / "narrow")

    with pytest.raises(
        StageError, match=r"/narrow is of another architecture than the embedded base: .* is \[128, 384\]"
    ):
        pretrain(TINY, tmp_path / "work", tmp_path / "out", tmp_path / "narrow", quiet)
    assert not (tmp_path / "work" / "episodes").exists()


def test_work_begun_with_other_settings_is_refused(work: Path, tmp_path: Path) -> None:
    pretrain(replace(TINY, steps=1), work, tmp_path / "out", None, quiet)

    with pytest.raises(StageError, match=r"was begun with rooms 0.5, and 1.0 is asked for; take another --work"):
        pretrain(replace(TINY, steps=1, rooms=1.0), work, tmp_path / "out", None, quiet)
    with pytest.raises(StageError, match=r"must be from 0 to 1 \(got 1.5\)"):
        replace(TINY, rooms=1.5)


def test_the_command_goes_on_from_a_checkpoint_at_a_lower_rate(
    work: Path, tmp_path: Path, loaded: LoadedPolicy
) -> None:
    save_checkpoint(loaded, tmp_path / "start")
    line = ["base", "build", "--rooms", "0.5", "--episodes", "4", "--steps", "1", "--threads", "1"]
    folders = ["--from", str(tmp_path / "start"), "--work", str(work), "--out", str(tmp_path / "out")]

    done = CliRunner().invoke(app, [*line, *folders])

    assert done.exit_code == 0, done.output
    begun = read_mapping(work / "settings.json")
    assert (begun["rooms"], begun["from"]) == (0.5, digest_folder(tmp_path / "start"))
    assert 0 < begun["learning_rate"] < PretrainConfig().learning_rate
    assert load_checkpoint(tmp_path / "out").chunk == loaded.chunk


def test_scores_are_of_the_shared_room_and_of_rooms_that_nothing_was_recorded_in(
    tmp_path: Path, loaded: LoadedPolicy
) -> None:
    save_checkpoint(loaded, tmp_path / "policy")
    line = ["base", "score", "--policy", str(tmp_path / "policy"), "--rollouts", "2", "--threads", "1"]

    plain = CliRunner().invoke(app, line)
    rooms = CliRunner().invoke(app, [*line, "--rooms", "2"])

    assert plain.exit_code == rooms.exit_code == 0, plain.output + rooms.output
    lines = rooms.output.splitlines()
    assert lines[:4] == plain.output.splitlines() and len(lines) == 8
    assert [line.split()[0] for line in lines] == 2 * [*(task.name for task in PUBLIC), "all"]
    assert all("in 2 rooms" in line for line in lines[4:]) and "/6 " in lines[-1]
