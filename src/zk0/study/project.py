"""A prepared project that all arms of a study train in: one set of recordings, manifests and features.

It is a folder of its own below .cache/studies, named by what decides its data.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import xxhash

from zk0.data.clips import motion_of
from zk0.data.frames import Frames, ImageStore
from zk0.data.load import load_frames
from zk0.data.manifest import MANIFESTS, Manifest, read_manifests
from zk0.data.readings import MEASURED
from zk0.digests import digest_value
from zk0.errors import DataError, StageError
from zk0.evaluation.limits import Limits
from zk0.federation.site import Site, Warm, forget, open_site, recorded_limits
from zk0.federation.start import locked_base, warm_start
from zk0.files import read_json, write_json
from zk0.params import Params, with_changes
from zk0.pipeline import prepare
from zk0.sources import LOCK, Source
from zk0.sources_lock import base_folder, resolve_sources
from zk0.words import nearest_hint

WORK = Path(".cache/studies")
_DONE = "prepared.json"


@dataclass
class StudyProject:
    """A folder whose data is prepared, and what there is in it.

    Attributes:
        root: The folder. Everything that the study keeps besides its results lies below.
        base: Starting policy and its digest.
        sites: Manifests in partition order.
        unseen: Manifests of tasks that no site has.
        decoded_limit_bytes: Images are decoded into memory up to this size.
    """

    root: Path
    base: tuple[str, str]
    sites: list[Manifest]
    unseen: list[Manifest]
    decoded_limit_bytes: int
    _unseen: dict[str, Site] = field(default_factory=dict)

    @classmethod
    def open(cls, root: Path, params: Params) -> StudyProject:
        """Open a prepared folder.

        Raises:
            DataError: It holds no manifest, or one that is not valid.
        """
        sites, unseen = read_manifests(root)
        return cls(root, locked_base(root), sites, unseen, params.data.decoded_limit_bytes)

    @property
    def manifests(self) -> list[Manifest]:
        """All tasks: sites first, then what no site has."""
        return [*self.sites, *self.unseen]

    def manifest(self, site: str) -> Manifest:
        """The manifest of a site, or of a task that no site has.

        Raises:
            StageError: There is no such site; names the nearest.
        """
        found = {manifest.site: manifest for manifest in self.manifests}
        if site not in found:
            raise StageError(f"the study has no site '{site}'{nearest_hint(site, found)}")
        return found[site]

    def site(self, manifest: Manifest) -> Site:
        """Frames and features of a manifest, kept warm."""
        if manifest.role == "site":
            return open_site(self.root, manifest.partition, self.decoded_limit_bytes)
        if manifest.site not in self._unseen:
            self._unseen[manifest.site] = Site(self.root, manifest, self.decoded_limit_bytes)
        return self._unseen[manifest.site]

    @cached_property
    def limits(self) -> Limits:
        """What the sites' recordings show the arm doing: the same for every arm of a study."""
        return recorded_limits([self.site(manifest) for manifest in self.sites])

    def with_newcomers(self) -> StudyProject:
        """The same project in which those who have the unseen tasks may train, on the first two thirds of theirs."""
        newcomers = []
        for manifest in self.unseen:
            episodes = self.site(manifest).held_out_frames.episodes  # of all: nothing of it was to be trained on
            recorded = manifest.held_out_episodes
            most = max(1, len(recorded) * 2 // 3)
            train = int(np.isin(episodes, recorded[:most]).sum())
            changes = {
                "train_episodes": recorded[:most],
                "held_out_episodes": recorded[most:],
                "train_frames": train,
                "held_out_frames": len(episodes) - train,
                "digest": digest_value([manifest.digest, recorded[:most]]),
            }
            newcomers.append(manifest.model_copy(update=changes))
        return replace(self, unseen=newcomers, _unseen={})

    def train_frames(self, manifest: Manifest, share: float = 1.0, most: int | None = None) -> Frames:
        """A site's training frames, of some of its training episodes, see :func:`first_episodes`."""
        chosen = first_episodes(manifest, share, most)
        if chosen == manifest.train_episodes:
            return self.site(manifest).train_frames
        return load_frames(manifest, self.root, chosen, self.decoded_limit_bytes)

    def policy(self, params: Params) -> Warm:
        """The starting policy of these params, loaded once in a process and shared with the federation's sites."""
        return warm_start(self.root, params, self.base[0])

    def forget(self) -> None:
        """Drop policies, frames and features that are kept warm."""
        forget()
        self._unseen.clear()


def first_episodes(manifest: Manifest, share: float, most: int | None = None) -> tuple[int, ...]:
    """The first training episodes, a share of them and at least one; at most so many (None = any number)."""
    return manifest.train_episodes[: max(1, round(len(manifest.train_episodes) * share))][:most]


def prepared(root: Path, params: Params) -> StudyProject:
    """The study's project, its data recorded or found, checked and split; done once for each set of data."""
    decides = params.model_dump(mode="json", include={"seed": True, "data": True, "policy": {"base"}})
    digest = xxhash.xxh3_64_hexdigest(json.dumps(decides).encode())[:12]
    folder = (root / WORK / digest).resolve()
    lock = resolve_sources(params, folder)
    done = folder / _DONE
    if not done.exists() or read_json(done) != lock or not (folder / MANIFESTS).is_dir():
        write_json(folder / LOCK, lock)
        prepare.run(folder, params)
        write_json(done, lock)
    return StudyProject.open(folder, params)


def with_absolute_paths(root: Path, params: Params) -> Params:
    """A project's params as they hold in another folder: every path is absolute."""

    def absolute(path: str) -> str:
        return str((root / Path(path).expanduser()).resolve())

    def source(text: str) -> str:
        found = Source.parse(text)
        return text if found.kind != "local" else f"local:{absolute(found.name)}"

    changes: dict[str, object] = {
        "data.sites": {name: source(text) for name, text in params.data.sites.items()},
        "data.unseen": {name: source(text) for name, text in params.data.unseen.items()},
        "data.calibrations": {
            name: str((root / Path(file).expanduser()).resolve())
            if isinstance(file, str) and file != MEASURED
            else file
            for name, file in params.data.calibrations.items()
        },
    }
    if (folder := base_folder(params.policy.base, params.tracking.model, root)) is not None:
        changes["policy.base"] = str(folder.resolve())
    return with_changes(params, changes)


def refuse_leakage(trained: Sequence[tuple[Manifest, Sequence[int]]], judged: Sequence[Manifest]) -> None:
    """Refuse to judge a model on an episode that it was trained on, by the digests of the episodes' motion.

    So also a copy under another name, in another dataset or with other videos is found.

    Args:
        trained: Manifests, and which of their episodes were trained on.
        judged: Manifests, on whose held-out episodes a model is judged.

    Raises:
        StageError: Names both sites and episodes.
    """
    seen = {
        motion_of(manifest.episode_digests[e]): (manifest.site, e) for manifest, episodes in trained for e in episodes
    }
    for manifest in judged:
        for episode in manifest.held_out_episodes:
            if (found := seen.get(motion_of(manifest.episode_digests[episode]))) is not None:
                raise StageError(
                    f"leakage: held-out episode {episode} of '{manifest.site}' is the same as episode {found[1]} of "
                    f"'{found[0]}', which was trained on; remove the copy from one of the two sources"
                )


@dataclass(frozen=True, eq=False)
class _JoinedImages:
    """The pictures of several stores, one after the other.

    Attributes:
        parts: The stores; all know the same cameras.
        starts: (P,) first row of each.
    """

    parts: tuple[ImageStore, ...]
    starts: np.ndarray

    @property
    def cameras(self) -> tuple[str, ...]:
        return self.parts[0].cameras

    @property
    def fits(self) -> bool:
        return all(part.fits for part in self.parts)

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.parts)

    def shape(self, camera: str) -> tuple[int, int, int]:
        return self.parts[0].shape(camera)

    def read(self, camera: str, rows: np.ndarray, keep: bool = True) -> torch.Tensor:
        out = torch.empty((len(rows), *self.shape(camera)), dtype=torch.float32)
        owners = self._owners(rows)
        for owner in np.unique(owners).tolist():
            places = np.flatnonzero(owners == owner)
            out[torch.from_numpy(places)] = self.parts[owner].read(camera, rows[places] - self.starts[owner], keep)
        return out

    def digest(self, camera: str, start: int, stop: int, memo: Path | None = None) -> str:
        (owner,) = self._owners(np.array([start])).tolist()
        first = int(self.starts[owner])
        digest: str = self.parts[owner].digest(camera, start - first, stop - first, memo)
        return digest

    def _owners(self, rows: np.ndarray) -> np.ndarray:
        return np.searchsorted(self.starts, rows, side="right") - 1


def join_frames(parts: Sequence[Frames]) -> Frames:
    """Frames of several sites, one site after the other; episodes keep their indices and their pictures' digests.

    So what is kept of a site's frames (features) is found by whoever trains on several.

    Args:
        parts: At least one.

    Raises:
        DataError: Cameras, their sizes, or the numbers of joints differ.
    """
    if len(parts) == 1:
        return parts[0]
    first = _form(parts[0])
    for number, part in enumerate(parts):
        if (found := _form(part)) != first:
            raise DataError(f"frames of part {number} are {found}, those of part 0 {first}; they cannot be joined")
    lengths = [len(part) for part in parts]
    starts = np.cumsum([0, *lengths[:-1]])
    return Frames(
        states=np.concatenate([part.states for part in parts]),
        actions=np.concatenate([part.actions for part in parts]),
        last=np.concatenate([part.last + start for part, start in zip(parts, starts, strict=True)]),
        episodes=np.concatenate([part.episodes for part in parts]),
        sentences=tuple(sentence for part in parts for sentence in part.sentences),
        images=_JoinedImages(tuple(part.images for part in parts), starts),
    )


def _form(frames: Frames) -> str:
    """What has to be alike, in words."""
    cameras = ", ".join(f"{camera} {frames.images.shape(camera)}" for camera in frames.images.cameras)
    return f"{frames.states.shape[1]} states, {frames.actions.shape[1]} actions, {cameras or 'no camera'}"
