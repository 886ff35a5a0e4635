"""Machines without the project's disk: what a worker needs reaches each once, and what a site keeps comes back.

Recordings and the starting policy are kept there by digest, for later runs as well. What belongs to a run (a site's
versions, its privacy's ledger) stays on the project's disk: a worker gets it with a task, and hands it back before its
reply counts. So a machine that is lost takes nothing along.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import ray
from filelock import FileLock

from zk0.data.manifest import MANIFESTS, read_manifests
from zk0.digests import digest_folder, key_of
from zk0.errors import StageError
from zk0.federation.home import Home
from zk0.federation.privacy.site import ledger_of
from zk0.federation.protocol import SiteTask
from zk0.federation.state import SiteMemory
from zk0.files import replaced_folder, write_bytes
from zk0.hub import fetch_policy
from zk0.sources import Source

NODE = "ZK0_NODE"  # a machine's own folder; where it is set, the machine counts as one without the project's disk
_PIECE = 32 << 20  # bytes

Files = dict[str, np.ndarray]


class Library:
    """An actor beside the project's disk: it gives out what is there, and keeps what sites keep.

    Args:
        root: Project folder.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def manifests(self) -> Files:
        """The manifests, by file name."""
        return _read(self._root / MANIFESTS)

    def contents(self, place: str) -> tuple[str, dict[str, int]] | None:
        """Digest of a folder, and its files with their sizes; None where the place is no folder.

        Args:
            place: Relative to the project, or ``hub:OWNER/NAME@COMMIT`` of a policy.
        """
        if not (folder := self._folder(place)).is_dir():
            return None
        sizes = {str(p.relative_to(folder)): p.stat().st_size for p in sorted(folder.rglob("*")) if p.is_file()}
        return digest_folder(folder), sizes

    def read(self, place: str, name: str, start: int) -> np.ndarray:
        """A piece of a file."""
        return np.fromfile(self._folder(place) / name, np.uint8, _PIECE, offset=start)

    def recall(self, task: SiteTask) -> tuple[dict[str, Files], Files]:
        """The versions, by folder, and the ledger that a site goes on from; those that nobody asks for are dropped."""
        memory = SiteMemory.of(self._root, task.run, task.partition)
        memory.prune(task.keep)
        own = Home.of(memory, ()).memory
        folders = {memory.version(task.used), *(own.version(own.last(most)) for most in (task.used, task.round))}
        found = {str(folder.relative_to(memory.folder)): _read(folder) for folder in folders}
        return found, _ledger(self._root, task.partition)

    def remember(self, task: SiteTask, versions: Mapping[str, Files], ledger: Files) -> None:
        """Keep what a task left: a site's versions of the round, and its ledger."""
        for name, version in versions.items():
            _write(SiteMemory.of(self._root, task.run, task.partition).folder / name, version)
        for content in ledger.values():
            write_bytes(ledger_of(self._root, task.partition), content.tobytes())

    def _folder(self, place: str) -> Path:
        if place.startswith("hub:"):
            source = Source.parse(place)
            return fetch_policy(source.name, source.revision or "main")
        return self._root / place


class Mirror:
    """A worker's stand-in for the project folder.

    Args:
        library: Ray's handle of the :class:`Library`.
        home: The machine's folder.
    """

    def __init__(self, library: Any, home: Path) -> None:
        self._library, self._home = library, home
        manifests = ray.get(library.manifests.remote())
        key = key_of({name: content.tobytes().decode() for name, content in manifests.items()})
        self.root = home / "projects" / key
        with FileLock(_made(home / f"{key}.lock")):
            if not (self.root / MANIFESTS).is_dir():
                _write(self.root / MANIFESTS, manifests)
        self._recordings = {manifest.partition: manifest.root for manifest in read_manifests(self.root)[0]}
        self.folder = cache(self._folder)

    def config(self, partition: int, task: SiteTask | None) -> dict[str, str]:
        """What a node's config says more here: where the recordings and the starting policy are."""
        found = {"recordings": self.folder(self._recordings[partition])}
        if task is not None and not task.base.startswith("random:"):
            found["base"] = self.folder(task.base)
        return {name: str(path) for name, path in found.items()}

    @contextmanager
    def memory(self, task: SiteTask, trains: bool) -> Iterator[None]:
        """What a site keeps is here within the block, and back on the project's disk after it."""
        memory, ledger = SiteMemory.of(self.root, task.run, task.partition), ledger_of(self.root, task.partition)
        shutil.rmtree(memory.folder, ignore_errors=True)
        versions, spent = ray.get(self._library.recall.remote(task))
        for name, version in versions.items():
            _write(memory.folder / name, version)
        ledger.unlink(missing_ok=True)
        for content in spent.values():
            write_bytes(ledger, content.tobytes())
        yield
        of_round = [memory.version(task.round), Home.of(memory, ()).memory.version(task.round)] if trains else []
        made = {str(folder.relative_to(memory.folder)): _read(folder) for folder in of_round}
        ray.get(self._library.remember.remote(task, made, _ledger(self.root, task.partition)))
        shutil.rmtree(memory.folder, ignore_errors=True)
        ledger.unlink(missing_ok=True)

    def _folder(self, place: str) -> Path:
        """A copy of a folder of the project's, fetched if no worker of this machine has yet.

        Raises:
            StageError: It is not there, or what came is not what was sent.
        """
        found: tuple[str, dict[str, int]] | None = ray.get(self._library.contents.remote(place))
        if found is None:
            raise StageError(f"there is no folder {place} where the run was started")
        digest, sizes = found
        folder = self._home / "store" / digest
        with FileLock(_made(Path(f"{folder}.lock"))):
            if not folder.is_dir():
                with replaced_folder(folder) as temporary:
                    self._fetch(place, sizes, temporary)
                    if (came := digest_folder(temporary)) != digest:
                        raise StageError(f"{place} arrived with digest {came}, but was sent with {digest}; try again")
        return folder

    def _fetch(self, place: str, sizes: Mapping[str, int], folder: Path) -> None:
        for name, size in sizes.items():
            with _made(folder / name).open("wb") as stream:
                for start in range(0, size, _PIECE):
                    stream.write(ray.get(self._library.read.remote(place, name, start)))


def home() -> Path:
    """The folder of a machine that does not have the project's disk."""
    return Path(os.environ.get(NODE) or Path.home() / ".cache/zk0/node")


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _ledger(root: Path, partition: int) -> Files:
    ledger = ledger_of(root, partition)
    return {ledger.name: np.fromfile(ledger, np.uint8)} if ledger.is_file() else {}


def _read(folder: Path) -> Files:
    return {path.name: np.fromfile(path, np.uint8) for path in sorted(folder.glob("*")) if path.is_file()}


def _write(folder: Path, files: Files) -> None:
    """Make a folder that holds these files; none where there are none."""
    if not files:
        shutil.rmtree(folder, ignore_errors=True)
        return
    with replaced_folder(folder) as temporary:
        for name, content in files.items():
            content.tofile(temporary / name)
