"""A spoiled recording is refused in one line before anything trains on it; a sound one is not."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import av
import pytest
from so100_recordings import as_lerobot, motor_steps, write_v3
from spoiling import DATA, SOUND, SPOILED, TOP, VIDEO, edit_info

from zk0.data import pictures
from zk0.data.dataset import DatasetFolder
from zk0.data.pictures import check_pictures
from zk0.data.survey import Survey, survey
from zk0.errors import DataError
from zk0.params import DataParams


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four episodes of twelve frames, two cameras; copy it before changing it."""
    episodes = [as_lerobot(motor_steps(12, seed), "degrees") for seed in range(4)]
    return write_v3(tmp_path_factory.mktemp("sound") / "cups", episodes)


@pytest.fixture
def cups(sound: Path, tmp_path: Path) -> Path:
    """A copy, to be spoiled."""
    return Path(shutil.copytree(sound, tmp_path / "cups"))


def surveyed(folder: Path) -> Survey:
    params = DataParams(sites={"lab": f"local:{folder}"}, fps=10)
    return survey("lab", f"local:{folder}", "", DatasetFolder(folder, "owner/cups"), params, folder.parent)


def test_a_sound_recording_passes(cups: Path) -> None:
    assert surveyed(cups).tasks == ("lift the cube", "drop the cube")


@pytest.mark.parametrize("kind", SOUND)
def test_what_only_looks_like_a_fault_passes(cups: Path, kind: str) -> None:
    SOUND[kind](cups)

    assert surveyed(cups).tasks == ("lift the cube", "drop the cube")


@pytest.mark.parametrize("kind", SPOILED)
def test_a_spoiled_recording_is_refused_in_one_line(cups: Path, kind: str) -> None:
    spoil, pattern = SPOILED[kind]
    spoil(cups)

    with pytest.raises(DataError) as refused:
        surveyed(cups)

    message = str(refused.value)
    assert re.search(pattern, message), message
    assert "\n" not in message and len(message) < 1000
    assert any(named in message for named in ("owner/cups", str(cups), "'lab'"))


def test_a_declared_convention_changes_nothing_about_raw_counts(cups: Path) -> None:
    SPOILED["raw_counts"][0](cups)
    params = DataParams(sites={"lab": f"local:{cups}"}, fps=10, conventions={"lab": "degrees"})

    with pytest.raises(DataError, match="raw counts of the motors"):
        survey("lab", f"local:{cups}", "", DatasetFolder(cups, "owner/cups"), params, cups.parent)


def test_a_camera_that_is_left_out_may_be_broken(cups: Path) -> None:
    SPOILED["video_damaged"][0](cups)
    params = DataParams(sites={"lab": f"local:{cups}"}, fps=10, cameras={"lab": {"top": None}})

    survey("lab", f"local:{cups}", "", DatasetFolder(cups, "owner/cups"), params, cups.parent)


def test_pictures_are_decoded_once(cups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    surveyed(cups)
    monkeypatch.setattr(pictures, "decode_strictly", None)  # as good as gone: whatever decodes fails

    surveyed(cups)
    (cups / VIDEO).write_bytes((cups / VIDEO).read_bytes())
    with pytest.raises(TypeError):
        surveyed(cups)


def test_another_rate_takes_other_pictures_of_the_same_video(cups: Path) -> None:
    check_pictures(DatasetFolder(cups, "owner/cups"), [TOP], cups.parent)
    edit_info(cups, lambda info: info.update(fps=20))
    dataset = DatasetFolder(cups, "owner/cups")
    dataset.rows.timestamps[:] = dataset.rows.places / 20

    with pytest.raises(DataError, match="has no picture for episode 0, frame 1"):
        check_pictures(dataset, [TOP], cups.parent)


def test_the_hubs_cache_may_link_to_its_blobs(sound: Path, tmp_path: Path) -> None:
    folder = tmp_path / "snapshots" / ("0" * 40)
    shutil.copytree(sound, folder)
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    for file in (DATA, VIDEO):
        shutil.move(folder / file, blobs / file.name)
        (folder / file).symlink_to(blobs / file.name)

    surveyed(folder)


@pytest.mark.parametrize("key_frames", [2, 50])
def test_damage_in_the_middle_of_h264_is_found(sound: Path, tmp_path: Path, key_frames: int) -> None:
    """Of H.264 libav conceals what is lost unless told otherwise."""
    folder = Path(shutil.copytree(sound, tmp_path / "cups"))
    with av.open(str(sound / VIDEO)) as read, av.open(str(folder / VIDEO), "w") as write:
        stream = write.add_stream("h264", rate=10, options={"g": str(key_frames), "crf": "10"})
        stream.width = stream.height = 32
        for frame in read.decode(video=0):
            write.mux(stream.encode(av.VideoFrame.from_ndarray(frame.to_ndarray(format="rgb24"), format="rgb24")))
        write.mux(stream.encode())
    check_pictures(DatasetFolder(folder, "owner/cups"), [TOP], tmp_path)
    content = bytearray((folder / VIDEO).read_bytes())
    place = content.find(b"mdat") + (len(content) - content.find(b"mdat")) // 2
    content[place : place + 1200] = bytes(1200)
    (folder / VIDEO).write_bytes(content)

    with pytest.raises(DataError, match=r"the picture of episode \d, frame \d+, (cannot be decoded|is damaged)"):
        check_pictures(DatasetFolder(folder, "owner/cups"), [TOP], tmp_path)


def test_looking_at_a_dataset_loads_neither_torch_nor_lerobot(cups: Path) -> None:
    script = (
        "import sys; from zk0.cli.app import main; sys.argv = ['zk0', 'data', 'check', sys.argv[1]]\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end\n"
        "assert not {'torch', 'lerobot', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(cups)], capture_output=True, text=True, cwd=cups.parent)

    assert done.returncode == 0, done.stderr
    assert "degrees, by the data" in done.stdout
