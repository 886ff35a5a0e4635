"""A site: its manifest, its frames and a policy to train, warm across messages."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from zk0.data.frames import Frames
from zk0.data.load import load_frames
from zk0.data.manifest import Manifest, read_manifests
from zk0.errors import DataError
from zk0.policy.checkpoint import LoadedPolicy, Stats, with_stats
from zk0.policy.start import load_start


@dataclass
class Site:
    """One partition of a project's data.

    Attributes:
        root: Project folder.
        manifest: Which episodes.
        decoded_limit_bytes: Images are decoded into memory up to this size.
    """

    root: Path
    manifest: Manifest
    decoded_limit_bytes: int
    _frames: dict[str, Frames] = field(default_factory=dict)

    @property
    def train_frames(self) -> Frames:
        """Frames of the training episodes, loaded once."""
        return self._load("train", self.manifest.train_episodes)

    @property
    def held_out_frames(self) -> Frames:
        """Frames of the held-out episodes, loaded once."""
        return self._load("held-out", self.manifest.held_out_episodes)

    def _load(self, name: str, episodes: tuple[int, ...]) -> Frames:
        if name not in self._frames:
            self._frames[name] = load_frames(self.manifest, self.root, episodes, self.decoded_limit_bytes)
        return self._frames[name]


@cache
def open_site(root: Path, partition: int, decoded_limit_bytes: int) -> Site:
    """The site of a partition; kept for the life of the process.

    Raises:
        DataError: No manifest has that partition.
    """
    sites, _ = read_manifests(root)
    if partition >= len(sites):
        raise DataError(f"there is no partition {partition}: the manifests hold {len(sites)} sites")
    return Site(root, sites[partition], decoded_limit_bytes)


@cache
def _start_policy(root: Path, base: str, device: str) -> LoadedPolicy:
    return load_start(root, base, device)


def shared_policy(root: Path, base: str, device: str, stats: Stats | None) -> LoadedPolicy:
    """The process's one policy, with processors for these statistics (None: the base's own).

    All sites of a process use it in turn: each puts the tensors it was sent into it first.
    """
    loaded = _start_policy(root, base, device)
    return loaded if stats is None else with_stats(loaded.policy, stats)


def forget() -> None:
    """Drop everything kept warm; for tests and for runs that follow each other in one process."""
    open_site.cache_clear()
    _start_policy.cache_clear()
