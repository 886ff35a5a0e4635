"""Files of features: what was written comes back, and nothing else is ever taken for it."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from zk0.policy.features.places import check_space, clean, size_text, usage
from zk0.policy.features.store import FeatureCacheError, FeatureFile, Layout, Shelf, create, write_frames

LAYOUT = Layout(key="a1", kind="tokens", shape=(3, 2), dtype="fp32", frames=5, block=2)
VALUES = np.arange(30, dtype=np.float32).reshape(5, 3, 2)


def rows_of(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values).reshape(len(values), -1).view(np.uint8)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Of a file whose frames 1 to 3 are there."""
    path = tmp_path / "a1.features"
    assert create(path, LAYOUT)
    write_frames(path, LAYOUT, 1, rows_of(VALUES[1:4]))
    return path


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """As on a disk with so much room."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_frames_come_back_and_the_others_are_missing(path: Path) -> None:
    file = FeatureFile(path)

    assert file.layout == LAYOUT
    assert file.missing().tolist() == [True, False, False, False, True]
    assert file.frame(0) is None
    for index in (1, 2, 3):
        assert np.array_equal(file.frame(index), VALUES[index])  # type: ignore[arg-type]
    assert path.stat().st_size == LAYOUT.file_bytes and LAYOUT.data_at % 4096 == 0


def test_open_file_sees_what_is_written_later(path: Path) -> None:
    file = FeatureFile(path)
    write_frames(path, LAYOUT, 4, rows_of(VALUES[4:]))

    assert np.array_equal(file.frame(4), VALUES[4])  # type: ignore[arg-type]


def test_room_is_reserved_when_a_file_is_made(tmp_path: Path) -> None:
    large = replace(LAYOUT, shape=(1000, 250))
    create(tmp_path / "a1.features", large)

    assert (tmp_path / "a1.features").stat().st_blocks * 512 >= large.file_bytes > 5_000_000


def test_frames_that_are_there_stay(path: Path) -> None:
    """Two processes may compute the same block."""
    assert not create(path, LAYOUT)
    write_frames(path, LAYOUT, 0, rows_of(VALUES[:3] + 100))
    file = FeatureFile(path)

    assert np.array_equal(file.frame(0), VALUES[0] + 100)  # type: ignore[arg-type]
    assert np.array_equal(file.frame(1), VALUES[1])  # type: ignore[arg-type]


def test_kill_leaves_only_whole_frames(tmp_path: Path) -> None:
    layout = replace(LAYOUT, shape=(2000, 100), frames=400)
    path = tmp_path / "a1.features"
    create(path, layout)
    frame = rows_of(np.arange(200_000, dtype=np.float32)[None])
    child = os.fork()
    if child == 0:
        for first in range(0, 400):
            write_frames(path, layout, first, frame)
        os._exit(0)
    while FeatureFile(path).missing().sum() > 395:
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)

    file = FeatureFile(path)
    there = np.flatnonzero(~file.missing())
    assert there.tolist() == list(range(len(there))) and len(there) >= 5
    for index in there.tolist():
        assert np.array_equal(file.frame(index).ravel(), frame.view(np.float32)[0])  # type: ignore[union-attr]


def test_processes_that_fill_one_file_together_spoil_nothing(tmp_path: Path) -> None:
    """Two write other values than each other into the same frames, as kernels that round otherwise would."""
    layout = replace(LAYOUT, shape=(100, 10), frames=500)
    path = tmp_path / "a1.features"
    start = time.monotonic() + 0.2
    children = []
    for value in (1.0, 2.0):
        child = os.fork()
        if child == 0:
            time.sleep(max(0.0, start - time.monotonic()))
            create(path, layout)
            frame = rows_of(np.full((1, 1000), value, dtype=np.float32))
            for first in range(500):
                write_frames(path, layout, first, frame)
            os._exit(0)
        children.append(child)

    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]
    file = FeatureFile(path)
    assert not file.missing().any()
    assert all(set(np.unique(file.frame(index))) in ({1.0}, {2.0}) for index in range(500))  # type: ignore[arg-type]
    assert [found.name for found in tmp_path.iterdir()] == ["a1.features"]


@pytest.mark.parametrize("size", [0, 5, 4000, 5000, LAYOUT.file_bytes - 1])
def test_truncated_file_is_refused(path: Path, size: int) -> None:
    os.truncate(path, size)

    with pytest.raises(FeatureCacheError, match=r"a1\.features .*Delete it, or run `zk0 features clean`"):
        FeatureFile(path)


def test_message_of_a_truncated_file_gives_both_sizes(path: Path) -> None:
    os.truncate(path, 5000)

    with pytest.raises(FeatureCacheError, match=f"has 5000 bytes where {LAYOUT.file_bytes} were expected: it was cut"):
        FeatureFile(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"PK\3\4" * 5000, "is no file of features"),
        (b"zk0feat1\x08\0\0\0not json" + bytes(9000), "has a header that cannot be read"),
        (b"zk0feat1\x02\0\0\0{}" + bytes(9000), "has a header that cannot be read"),
        (b"zk0feat1\xff\xff\xff\xff{}" + bytes(9000), "has a header that cannot be read"),
    ],
)
def test_foreign_file_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "a1.features").write_bytes(content)

    with pytest.raises(FeatureCacheError, match=rf"a1\.features {said}"):
        FeatureFile(tmp_path / "a1.features")


def test_flipped_byte_is_found_at_the_first_read(path: Path) -> None:
    with path.open("r+b") as stream:
        stream.seek(LAYOUT.data_at + 2 * LAYOUT.frame_bytes + 7)
        stream.write(b"\xff")
    file = FeatureFile(path)

    assert np.array_equal(file.frame(1), VALUES[1])  # type: ignore[arg-type]
    with pytest.raises(FeatureCacheError, match=r"a1\.features holds frame 2 with bytes that are not those written"):
        file.frame(2)


def test_full_disk_leaves_nothing(tmp_path: Path) -> None:
    large = replace(LAYOUT, shape=(1000, 250))

    with (
        files_no_larger_than(100_000),
        pytest.raises(FeatureCacheError, match=r"5\.0 MB of features cannot be written: .* name another folder in ZK0"),
    ):
        create(tmp_path / "features" / "a1.features", large)

    assert list((tmp_path / "features").iterdir()) == []


def test_write_that_fails_leaves_the_frames_missing(path: Path) -> None:
    with files_no_larger_than(LAYOUT.data_at), pytest.raises(FeatureCacheError, match="cannot be written"):
        write_frames(path, LAYOUT, 4, rows_of(VALUES[4:]))

    assert FeatureFile(path).missing().tolist() == [True, False, False, False, True]


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "features").write_text("in the way")

    with pytest.raises(FeatureCacheError, match="cannot be written"):
        create(tmp_path / "features" / "a1.features", LAYOUT)


def test_more_than_is_free_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    free = check_space(tmp_path / "not" / "yet", 0)

    with pytest.raises(
        FeatureCacheError, match=r"features need 1000000\.0 TB in .*yet, but .* are free there.*ZK0_FEAT"
    ):
        check_space(tmp_path / "not" / "yet", 10**18)
    assert free > 0 and not (tmp_path / "not").exists()


def test_shelf_closes_the_least_recently_used(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.features" for number in range(3)]
    for path in paths:
        create(path, LAYOUT)
    shelf = Shelf(most=2)
    first, second = shelf.get(paths[0]), shelf.get(paths[1])
    assert shelf.get(paths[0]) is first
    shelf.get(paths[2])

    assert shelf.get(paths[0]) is first
    assert shelf.get(paths[1]) is not second
    assert shelf.get(tmp_path / "none.features") is None


def test_shelf_notices_a_file_that_was_replaced(path: Path) -> None:
    shelf = Shelf()
    before = shelf.get(path)
    path.unlink()
    create(path, LAYOUT)

    assert shelf.get(path) is before
    after = shelf.get(path, fresh=True)
    assert after is not None and after.missing().all()


def test_usage_and_clean_touch_nothing_else(tmp_path: Path) -> None:
    place, other = tmp_path / "tokens-fp32-77", tmp_path / "photos"
    for folder in (place, other):
        folder.mkdir()
    (other / "cat.features").write_text("not ours")
    (place / "about.json").write_text('{"what": "image tokens"}')
    kept, gone, spoilt = place / "kept.features", place / "gone.features", place / "spoilt.features"
    for path in (kept, gone):
        create(path, LAYOUT)
    write_frames(kept, LAYOUT, 0, rows_of(VALUES[:2]))
    spoilt.write_bytes(b"x")
    (place / ".a1.xyz.zk0-new").write_bytes(b"left by a kill")

    (used,) = usage(tmp_path)
    assert (used.folder, used.about, used.files, used.frames, used.filled) == (place, "image tokens", 3, 10, 2)
    assert used.size == 2 * LAYOUT.file_bytes + 1

    assert clean(tmp_path, keep=[kept]) == (2, LAYOUT.file_bytes + 1)
    assert sorted(path.name for path in place.iterdir()) == ["about.json", "kept.features"]
    assert clean(tmp_path) == (1, LAYOUT.file_bytes)
    assert [path.name for path in tmp_path.iterdir()] == ["photos"] and (other / "cat.features").exists()


def test_sizes_are_read_easily() -> None:
    assert [size_text(n) for n in (12, 1200, 37_100_000, 2.5e9, 3e15)] == [
        "12 bytes",
        "1.2 kB",
        "37.1 MB",
        "2.5 GB",
        "3000.0 TB",
    ]
