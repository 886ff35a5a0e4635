"""`zk0 view`: what it writes, as Rerun's own reader finds it."""

from __future__ import annotations

import io
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from docs_commands import documented
from PIL import Image
from typer.testing import CliRunner

from zk0.cli.app import app
from zk0.data.dataset import DatasetFolder
from zk0.data.load import load_frames
from zk0.data.manifest import read_manifests
from zk0.data.sim.simulation import CONTROL_HZ
from zk0.errors import StageError
from zk0.evaluation.held_out import predictions
from zk0.evaluation.judge import JudgedTask
from zk0.evaluation.rollouts import Driven, roll_out
from zk0.machine import packages
from zk0.pipeline.evaluate import _film
from zk0.policy.start import load_start
from zk0.records.files import write
from zk0.records.results import Evaluation, TaskScore
from zk0.so100 import JOINTS

pytest.importorskip("rerun")
CAMERAS = {"/observation.images.top", "/observation.images.wrist"}
UNTIMED = {"rerun.controls.RowId", "frame_index", "timestamp", "log_time", "log_tick"}
Found = dict[str, tuple[list[float], list[Any]]]


@pytest.fixture
def project(prepared: Path, params_content: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The prepared project with params of its own, the working directory."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params_content))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def told_to_type(start: str, **names: str) -> list[str]:
    """The words of a line of docs/data.md, with other names than that page's."""
    words = shlex.split(documented("data.md", start), comments=True)[2:]
    return [names.get(word.replace("-", "_"), word) for word in words]


def shown(*words: str) -> Found:
    """What the command writes: entity to seconds and values, a picture's bytes or a number, in order."""
    done = CliRunner().invoke(app, ["view", *words, "--save", "it.rrd"], catch_exceptions=False)
    assert done.exit_code == 0 and "wrote it.rrd" in done.stdout
    return contents(Path("it.rrd"))


def contents(file: Path) -> Found:
    from rerun.experimental import RrdReader

    found: Found = {}
    for chunk in RrdReader(file).store().stream():
        if chunk.is_static or chunk.entity_path.startswith("/__"):
            continue
        batch = chunk.to_record_batch()
        (name,) = [one for one in batch.schema.names if one not in UNTIMED and not one.endswith("media_type")]
        seconds, values = found.setdefault(chunk.entity_path, ([], []))
        seconds += [time.total_seconds() for time in batch.column("timestamp").to_pylist()]
        values += [row[0] for row in batch.column(name).to_pylist()]
    return found


def by_joint(found: Found, name: str) -> np.ndarray:
    return np.array([found[f"/{name}/{joint}"][1] for joint in JOINTS]).T


def pictures(found: Found, camera: str) -> Iterator[np.ndarray]:
    for blob in found[camera][1]:
        yield np.asarray(Image.open(io.BytesIO(bytes(blob))))


def test_an_episode_of_a_partition_is_shown_as_it_is_trained_on(project: Path) -> None:
    site = read_manifests(project)[0][0]
    frames = load_frames(site, project, site.held_out_episodes[:1], 10**9)

    found = shown(*told_to_type("zk0 view red-cube  ", red_cube=site.site))

    assert set(found) == CAMERAS | {f"/{name}/{joint}" for name in ("action", "state") for joint in JOINTS}
    np.testing.assert_array_equal(by_joint(found, "action"), frames.actions)
    np.testing.assert_array_equal(by_joint(found, "state"), frames.states)
    assert all(seconds == pytest.approx(np.arange(len(frames)) / site.fps) for seconds, _ in found.values())
    for camera in CAMERAS:
        own = frames.images.read(camera[1:], np.arange(len(frames))).permute(0, 2, 3, 1).numpy() * 255
        for picture, wanted in zip(pictures(found, camera), own, strict=True):
            assert np.abs(picture - wanted).mean() < 6  # of 255: it is a JPEG


def test_an_episode_of_a_dataset_is_shown_as_it_was_recorded(project: Path, recorded: Path) -> None:
    rows = DatasetFolder(recorded, "zk0/cubes").rows
    start, stop = rows.bounds[3]

    found = shown(*told_to_type("zk0 view local:cups", **{"local:cups": str(recorded)}))

    np.testing.assert_array_equal(by_joint(found, "action"), rows.actions[start:stop])
    assert {len(values) for _, values in found.values()} == {stop - start}


def test_a_policys_chunks_stand_beside_the_recorded_actions(project: Path) -> None:
    site = read_manifests(project)[0][0]
    frames = load_frames(site, project, site.held_out_episodes[:1], 10**9)
    base = load_start(project, "random:nano", "cpu")
    looks = np.arange(0, len(frames), base.chunk)
    ((_, sent),) = predictions(base, frames, seed=1, batches=[looks])

    found = shown(*told_to_type("zk0 view red-cube --policy", red_cube=site.site, best="base"))

    chunks = by_joint(found, "chunk")
    assert chunks.shape == frames.actions.shape and len(looks) > 1
    np.testing.assert_allclose(chunks[: base.chunk], sent[0], atol=1e-4)
    np.testing.assert_allclose(chunks[looks], sent[:, 0], atol=1e-4)
    np.testing.assert_array_equal(by_joint(found, "action"), frames.actions)


def test_rollouts_show_the_film_and_what_was_asked_and_cut(project: Path, loaded: Any, cube_task: Any) -> None:
    longest = dict.fromkeys(JOINTS, 0.5)
    (rollout,) = roll_out(loaded, cube_task, [100_000], longest=longest, max_steps=3, filmed=1)
    judged = JudgedTask(read_manifests(project)[0][0], TaskScore(), {}, Driven([rollout]))
    videos = [_film(project, model, judged, rollout) for model in ("base", "global")]
    both = {"base": {}, "global": {}}
    models, safety = (dict.fromkeys(both, of) for of in ({"digest": "0"}, {"passed": True}))
    write(project, Evaluation(models=models, tasks={}, overall=both, safety=safety, videos=videos))

    found = shown(*told_to_type("zk0 view  "))

    scene = f"/{judged.manifest.site}/100000"
    assert rollout.cut and len(found[f"{scene}/base"][1]) == len(found[f"{scene}/global"][1]) > rollout.steps
    film = next(pictures(found, f"{scene}/global"))
    assert np.abs(film - rollout.frames[0].astype(float)).mean() < 12
    np.testing.assert_allclose(by_joint(found, f"{scene[1:]}/was"), rollout.states, atol=0.006)
    np.testing.assert_allclose(by_joint(found, f"{scene[1:]}/asked"), rollout.actions, atol=0.006)
    for number, joint in enumerate(JOINTS):
        apart = np.flatnonzero(rollout.sent[:, number].round(2) != rollout.actions[:, number].round(2))
        seconds, values = found.get(f"{scene}/cut/{joint}", ([], []))
        assert seconds == pytest.approx(apart / CONTROL_HZ)
        assert values == pytest.approx(rollout.sent[apart, number], abs=0.006)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["cubes-00"], "neither rollouts, nor a partition, nor a dataset's folder; did you mean 'cubes-0'"),
        (["cubes-0", "--episode", "99"], "cubes-0 has no such episode: it has "),
        (["cubes-0", "--policy", "best"], "run.json"),
        (["sim:press-magenta-disc"], "recorded by `zk0 prepare`"),
        (["local:data", "--policy", "base"], "--policy is for a partition"),
        ([], "evaluation.json"),
        (["--policy", "best"], "say which"),
    ],
)
def test_what_is_not_there_is_said_and_nothing_is_written(project: Path, words: list[str], told: str) -> None:
    with pytest.raises(StageError, match=told.replace(".", r"\.")):
        shown(*words)

    assert not Path("it.rrd").exists() and not list(Path().glob(".it.rrd*"))


def test_without_rerun_the_report_is_named(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = packages.installed
    monkeypatch.setattr(packages, "installed", lambda name: None if name == "rerun-sdk" else there(name))
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    missing = "`zk0 view` needs zk0[view], of which is missing: rerun-sdk; `make install` installs it"

    with pytest.raises(StageError) as refused:
        CliRunner().invoke(app, ["view"], catch_exceptions=False)
    assert str(refused.value) == missing

    (project / "results" / "report.html").touch()
    done = CliRunner().invoke(app, ["view"], catch_exceptions=False)

    assert done.exit_code == 0 and done.stderr.strip() == missing
    assert done.stdout == f"{(project / 'results/report.html').resolve()} shows a part of it\n"
