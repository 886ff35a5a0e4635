"""Whatever happens to a recording's files, it is refused in words, or trained on as it lies there."""

from __future__ import annotations

import resource
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st
from random_edits import ACTION, IMAGES, STATE, Read, edit_randomly, read_v3, read_v21
from so100_recordings import as_lerobot, motor_steps, write_v3, write_v21

from zk0.data.convert import convert_dataset
from zk0.data.load import load_frames
from zk0.data.manifest import read_manifests
from zk0.errors import DataError
from zk0.files import write_json
from zk0.params import parse_params
from zk0.pipeline import prepare

HANG_S = 60
MOST_KB = 2 << 20
PHASES = (Phase.generate, Phase.shrink)
EDITS_V3, EDITS_V21 = 200, 100


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A v3 and a v2.1 recording of two episodes of eight frames."""
    root = tmp_path_factory.mktemp("edited")
    episodes = [as_lerobot(motor_steps(8, seed), "degrees") for seed in range(2)]
    write_v3(root / "v3", episodes, cameras=["top"])
    write_v21(root / "v21", episodes, cameras=["top"], fps=10)
    return root


def prepared(folder: Path) -> Read:
    """What a federation would train on, through the stage's own code."""
    root = folder.parent / "project"
    data = {"sites": {"lab": f"local:{folder}"}, "fps": 10, "held_out": 0.5, "conventions": {"lab": "degrees"}}
    params = parse_params({"threads": 1, "policy": {"base": "random:nano"}, "data": data})
    write_json(root / "sources.lock.json", {"sources": {"lab": {"digest": "edited"}}, "unseen": {}})
    prepare.run(root, params)
    (site,) = read_manifests(root)[0]
    read: Read = {}
    for episode in (*site.train_episodes, *site.held_out_episodes):
        frames = load_frames(site, root, [episode], 10**9)
        found: dict[str, Any] = {STATE: frames.states, ACTION: frames.actions, "words": list(frames.sentences)}
        for camera in frames.images.cameras:
            pixels = frames.images.read(camera, np.arange(len(frames))).permute(0, 2, 3, 1)
            found[camera] = list((pixels * 255).round().byte().numpy())
        read[episode] = found
    return read


def assert_same(trained: Read, left: Read) -> None:
    assert sorted(trained) == sorted(left)
    for episode, found in trained.items():
        expected = left[episode]
        assert sorted(found) == sorted(expected)
        assert found["words"] == expected["words"]
        for name in (STATE, ACTION):
            assert np.array_equal(found[name], expected[name], equal_nan=True)
        for camera in (name for name in found if name.startswith(IMAGES)):
            assert len(found[camera]) == len(expected[camera])
            assert all(map(np.array_equal, found[camera], expected[camera])), f"{camera} of episode {episode}"


@contextmanager
def edited(recording: Path, draw: Any) -> Iterator[Path]:
    """An edited copy, beside which there is room; an end to whatever hangs or takes too much memory."""
    # What other tests of this process took before is not these edits'.
    most = edited.__dict__.setdefault("most", max(MOST_KB, _peak_kb() + MOST_KB // 2))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(shutil.copytree(recording, Path(place) / "cups"))
        note(edit_randomly(folder, draw))
        signal.alarm(HANG_S)  # its default action ends the process, and says so
        yield folder
        signal.alarm(0)
    edited.__dict__["most"] = max(most, _peak_kb())
    assert _peak_kb() <= most, f"more than {most >> 20} GB of memory"


def _peak_kb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def check_v3(recordings: Path, data: st.DataObject) -> None:
    with edited(recordings / "v3", data.draw) as folder:
        try:
            trained = prepared(folder)
        except DataError as error:
            note(f"refused: {error}")
            assert "Traceback" not in str(error)
            return
        assert_same(trained, read_v3(folder))


def check_v21(recordings: Path, data: st.DataObject) -> None:
    with edited(recordings / "v21", data.draw) as folder:
        try:
            converted = convert_dataset(folder, folder.parent / "new").folder
        except DataError as error:
            note(f"refused: {error}")
            assert not (folder.parent / "new").exists()
            return
        assert_same(read_v3(converted), read_v21(folder))


def edits(count: int) -> settings:
    quiet = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(
        max_examples=count, derandomize=True, deadline=None, database=None, phases=PHASES, suppress_health_check=quiet
    )


def test_the_recordings_as_they_are(recordings: Path, tmp_path: Path) -> None:
    assert_same(prepared(Path(shutil.copytree(recordings / "v3", tmp_path / "cups"))), read_v3(recordings / "v3"))
    assert_same(read_v3(convert_dataset(recordings / "v21", tmp_path / "new").folder), read_v21(recordings / "v21"))


test_edits_of_v3 = edits(EDITS_V3)(given(data=st.data())(check_v3))
test_edits_of_v21 = edits(EDITS_V21)(given(data=st.data())(check_v21))
