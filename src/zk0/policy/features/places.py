"""Where features lie, how much room they take, and how they are cleaned away."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from zk0.files import read_json, remove_leftovers
from zk0.policy.features.store import SUFFIX, FeatureCacheError, FeatureFile

FOLDER_VARIABLE = "ZK0_FEATURES"
ABOUT = "about.json"
MEMO = "clips"


def features_folder(root: Path) -> Path:
    """Where a project keeps features: ``ZK0_FEATURES``, or ``.cache/features`` below its root."""
    named = os.environ.get(FOLDER_VARIABLE)
    return root / Path(named).expanduser() if named else root / ".cache" / "features"


def check_space(folder: Path, needed: int) -> int:
    """Refuse to begin what cannot be finished.

    Args:
        folder: Where it would be written; need not exist yet.
        needed: Bytes.

    Returns:
        Bytes that are free there.

    Raises:
        FeatureCacheError: Says how much is needed, how much is free, where, and what to do.
    """
    place = folder
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if needed > free:
        raise FeatureCacheError(
            f"features need {size_text(needed)} in {folder}, but {size_text(free)} are free there. Name another "
            f"folder in {FOLDER_VARIABLE}, make room with `zk0 features clean`, or set features.cache to off"
        )
    return free


def size_text(size: float) -> str:
    """Bytes in the largest unit that leaves a number above one.

    >>> size_text(37_100_000)
    '37.1 MB'
    """
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


@dataclass(frozen=True)
class Usage:
    """What one backbone's features take up.

    Attributes:
        folder: Its folder.
        about: What it is, in words.
        files: One for every episode and camera, or every episode.
        frames: Frames in these files.
        filled: How many of them have been computed.
        size: Bytes.
    """

    folder: Path
    about: str
    files: int
    frames: int
    filled: int
    size: int


def usage(folder: Path) -> list[Usage]:
    """What is there, by backbone; files that cannot be read count with their size only."""
    found = []
    for place in sorted(path.parent for path in folder.glob(f"*/{ABOUT}")):
        files = sorted(place.glob(f"*{SUFFIX}"))
        frames = filled = 0
        for path in files:
            try:
                missing = FeatureFile(path).missing()
            except FeatureCacheError:
                continue
            frames, filled = frames + len(missing), filled + int((~missing).sum())
        size = sum(path.stat().st_size for path in files)
        found.append(Usage(place, str(read_json(place / ABOUT)["what"]), len(files), frames, filled, size))
    return found


def clean(folder: Path, keep: Collection[Path] = ()) -> tuple[int, int]:
    """Delete features and what is remembered of videos; anything else in the folder stays.

    Args:
        folder: See :func:`features_folder`.
        keep: Files of features to leave, with what belongs to them.

    Returns:
        Number of files of features deleted, and their bytes.
    """
    kept = set(keep)
    count = size = 0
    for place in sorted(path.parent for path in folder.glob(f"*/{ABOUT}")):
        remove_leftovers(place)
        for path in place.glob(f"*{SUFFIX}"):
            if path not in kept:
                count, size = count + 1, size + path.stat().st_size
                path.unlink()
        if not any(path.suffix == SUFFIX for path in place.iterdir()):
            (place / ABOUT).unlink()
            _remove_if_empty(place)
    if not kept:
        for note in (folder / MEMO).glob("*.json"):
            note.unlink()
        _remove_if_empty(folder / MEMO)
    return count, size


def _remove_if_empty(folder: Path) -> None:
    if folder.exists() and not any(folder.iterdir()):
        folder.rmdir()
