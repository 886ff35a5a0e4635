"""Laying a project out, and renewing what zk0 owns of it.

What was written is noted by digest. So a file that its owner has changed is told from one that is as zk0 wrote it, and
is never overwritten.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from zk0 import __version__
from zk0.digests import new_digest
from zk0.errors import StageError
from zk0.files import read_text, write_bytes, write_text
from zk0.machine.repository import first_commit, has_git, work_tree
from zk0.projects.template import content
from zk0.records.base import Record

MANIFEST = Path(".zk0.json")
# Once they are there, they are the owner's.
_OWNERS = (Path("params.yaml"), Path(".dvc/config"))
_OFFERED = ".new"
_DVC = Path(".dvc/config")


class Manifest(Record):
    """What zk0 wrote into a project: the version that did, and BLAKE2b of every file, by its path."""

    zk0: str
    files: dict[str, str]


@dataclass
class Renewed:
    """What an upgrade did, by paths in the project.

    Attributes:
        written: Renewed, or new.
        offered: Changed by their owner, who keeps them; zk0's own lie beside them as ``NAME.new``.
        removed: No longer a part of zk0, and unchanged since it wrote them.
    """

    written: list[Path] = field(default_factory=list)
    offered: list[Path] = field(default_factory=list)
    removed: list[Path] = field(default_factory=list)


def lay_out(folder: Path) -> tuple[int, str]:
    """Make a project.

    Args:
        folder: Where; made if need be. What else is in it stays.

    Returns:
        The number of files, and what git knows of them, in words.

    Raises:
        StageError: There is a project already, or something in the way; nothing was written.
    """
    for mark in (MANIFEST, Path("params.yaml"), Path("dvc.yaml")):
        if (folder / mark).exists():
            raise StageError(
                f"{folder} holds a project already ({mark}); `zk0 init --upgrade {folder}` renews what zk0 laid out"
            )
    files = content()
    for path in files:
        for place in (path, *path.parents):
            at = folder / place
            if (at.is_symlink() or at.exists()) and (place == path or not at.is_dir()):
                raise StageError(f"{at} is there, and would be overwritten; choose another folder, or move it away")
    inside = work_tree(folder)
    if not has_git():
        files[_DVC] += b"    no_scm = true\n"  # or DVC would ask for git
    with _removed_if_it_fails(folder) as written:
        for path, raw in files.items():
            written.append(folder / path)
            _write(folder / path, raw)
        written.append(folder / MANIFEST)
        _note(folder, files)
        told = f"commit them to git, which has {inside}" if inside else first_commit(folder, [*files, MANIFEST])
    return len(files), told


def upgrade(folder: Path) -> Renewed:
    """Renew what zk0 owns of a project. What its owner has changed stays, and zk0's is put beside it.

    Raises:
        StageError: ``zk0 init`` made no project there.
    """
    before, now, done = _noted(folder), content(), Renewed()
    for path, raw in now.items():
        mine, there = _digest(raw), folder / path
        if not there.exists():
            _write(there, raw)
            done.written.append(path)
            continue
        if path in _OWNERS or (found := _digest(there.read_bytes())) == mine:
            continue
        if found == before.get(path):
            _write(there, raw)
            done.written.append(path)
        elif before.get(path) != mine:  # else it was offered before
            _write(there.with_name(there.name + _OFFERED), raw)
            done.offered.append(path)
    for path in before.keys() - now.keys():
        if (folder / path).is_file() and _digest((folder / path).read_bytes()) == before[path]:
            (folder / path).unlink()
            done.removed.append(path)
    _note(folder, now)
    return done


def _write(path: Path, raw: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, raw)


def _note(folder: Path, files: dict[Path, bytes]) -> None:
    digests = {path.as_posix(): _digest(raw) for path, raw in sorted(files.items())}
    write_text(folder / MANIFEST, Manifest(zk0=__version__, files=digests).model_dump_json(indent=2))


def _noted(folder: Path) -> dict[Path, str]:
    """By path, the digest of what was written there."""
    try:
        found = Manifest.model_validate_json(read_text(folder / MANIFEST))
    except FileNotFoundError as error:
        raise StageError(f"{folder} is no project that `zk0 init` laid out: it has no {MANIFEST}") from error
    except ValidationError as error:
        raise StageError(f"{folder / MANIFEST} is not as zk0 wrote it; take it from git, or an earlier copy") from error
    noted = {Path(path): digest for path, digest in found.files.items()}
    return {path: digest for path, digest in noted.items() if not path.is_absolute() and ".." not in path.parts}


def _digest(raw: bytes) -> str:
    return new_digest(raw).hexdigest()


@contextmanager
def _removed_if_it_fails(folder: Path) -> Iterator[list[Path]]:
    """Collect what is written; an error in the block undoes all of it."""
    there = {place for place in (folder, *folder.rglob("*"), *folder.parents) if place.is_dir()}
    written: list[Path] = []
    try:
        yield written
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
            for place in path.parents:
                if place in there or not place.is_dir() or any(place.iterdir()):
                    break
                place.rmdir()
        raise
