"""A site: its manifest, its frames and a policy to train, warm across messages."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from zk0.data.frames import Frames
from zk0.data.load import load_frames
from zk0.data.manifest import MANIFESTS, Manifest, read_manifests
from zk0.errors import DataError
from zk0.evaluation.limits import Limits
from zk0.federation.agreement import agree
from zk0.federation.broadcast import Held
from zk0.federation.protocol import Adapters
from zk0.federation.statistics import moments_of
from zk0.params import FeatureParams
from zk0.policy.checkpoint import LoadedPolicy, Stats, with_stats
from zk0.policy.features import FrameFeatures, features_for
from zk0.policy.start import load_start
from zk0.policy.trainable import Tensors, load_trainable, trainable_tensors
from zk0.training.processes import dismiss

_NO_ADAPTERS = Adapters()
_MOST_OPEN = 128


@dataclass
class Site:
    """One partition of a project's data.

    Attributes:
        root: Project folder.
        manifest: Which episodes.
        decoded_limit_bytes: Images are decoded into memory up to this size.
        recordings: Where the dataset is, if it is not where the manifest says.
    """

    root: Path
    manifest: Manifest
    decoded_limit_bytes: int
    recordings: str | None = None
    _frames: dict[str, Frames] = field(default_factory=dict)
    _features: dict[tuple[str, int, FeatureParams], FrameFeatures | None] = field(default_factory=dict)

    @property
    def train_frames(self) -> Frames:
        """Frames of the training episodes, loaded once."""
        return self._load("train", self.manifest.train_episodes)

    @property
    def held_out_frames(self) -> Frames:
        """Frames of the held-out episodes, loaded once."""
        return self._load("held-out", self.manifest.held_out_episodes)

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the frames hold at present."""
        return sum(frames.nbytes for frames in self._frames.values())

    def features(self, part: str, loaded: LoadedPolicy, settings: FeatureParams) -> FrameFeatures | None:
        """The kept features of the ``train`` or ``held-out`` frames; None where there is no use for them."""
        key = (part, id(loaded.policy), settings)
        if key not in self._features:
            frames = self.train_frames if part == "train" else self.held_out_frames
            self._features[key] = features_for(loaded, frames, settings, self.root)
        return self._features[key]

    @contextmanager
    def training_on(self, frames: Frames) -> Iterator[None]:
        """Within the block these are the training frames: the same pictures, with something else about them changed."""
        own = self.train_frames
        self._frames["train"] = frames
        try:
            yield
        finally:
            self._frames["train"] = own

    def _load(self, name: str, episodes: tuple[int, ...]) -> Frames:
        if name not in self._frames:
            place = {} if self.recordings is None else {"root": self.recordings}
            manifest = self.manifest.model_copy(update=place)
            self._frames[name] = load_frames(manifest, self.root, episodes, self.decoded_limit_bytes)
        return self._frames[name]


def recorded_limits(sites: Sequence[Site]) -> Limits:
    """What the sites' training recordings show the arm doing, no site alone having the word: see :func:`agree`."""
    moments = {site.manifest.site: moments_of(site.train_frames) for site in sites}
    return agree(moments, sites[0].manifest.fps).moments.limits()


class _Sites:
    """Sites that were opened; the least recently used are dropped when they are too many or hold too much."""

    def __init__(self) -> None:
        self._open: OrderedDict[tuple[Path, int, int, int], Site] = OrderedDict()

    def get(self, root: Path, partition: int, limit: int, recordings: str | None = None) -> Site:
        """The site of a partition, opened if it is not; see :func:`open_site`."""
        prepared = (root / MANIFESTS).stat().st_mtime_ns if (root / MANIFESTS).is_dir() else 0
        key = (root, prepared, partition, limit)
        if key not in self._open:
            sites = _manifests(root, prepared)
            if partition not in sites:
                there = ", ".join(map(str, sites))
                raise DataError(f"there is no partition {partition}: the manifests are of {there}")
            self._open[key] = Site(root, sites[partition], limit, recordings)
        self._open.move_to_end(key)
        while len(self._open) > 1 and (
            len(self._open) > _MOST_OPEN or sum(site.nbytes for site in self._open.values()) > limit
        ):
            self._open.popitem(last=False)
        return self._open[key]

    def clear(self) -> None:
        """Forget all sites and what they hold in memory."""
        self._open.clear()


_sites = _Sites()


@cache
def _manifests(root: Path, _prepared: int) -> dict[int, Manifest]:
    """Manifests by partition, read again once they were written anew."""
    return {manifest.partition: manifest for manifest in read_manifests(root)[0]}


def open_site(root: Path, partition: int, decoded_limit_bytes: int, recordings: str | None = None) -> Site:
    """The site of a partition, kept warm while the process's sites together hold no more than the limit.

    Args:
        root, partition, decoded_limit_bytes, recordings: See :class:`Site`.

    Raises:
        DataError: No manifest has that partition.
    """
    return _sites.get(root, partition, decoded_limit_bytes, recordings)


def site_at(config: Mapping[str, Any]) -> Site:
    """The site that a node serves, by the node's config; see :func:`open_site`."""
    known = (Path(str(config["project"])), int(config["partition-id"]), int(config["decoded-limit-bytes"]))
    return open_site(*known, recordings=config.get("recordings"))


@dataclass
class Warm:
    """The process's one policy and the global models it knows; all its sites use them in turn.

    Attributes:
        start: The starting policy, with its own normalisation.
        first: Its trainable tensors, before anything was trained into it.
        held: Global models that were received; the first is one of them.
        shown: Digest of the model that is in the policy (None = something else, such as a trained one).
    """

    start: LoadedPolicy
    shown: str | None = None
    _fitted: tuple[str, LoadedPolicy] | None = None

    def __post_init__(self) -> None:
        self.first = trainable_tensors(self.start.policy)
        self.held = Held(self.first)
        self._denoising: int = self.start.policy.config.num_steps

    def fitted(self, stats: Stats | None) -> LoadedPolicy:
        """The policy with processors for these statistics; None lets the starting policy's own stand."""
        if stats is None:
            return self.start
        key = repr(stats)
        if self._fitted is None or self._fitted[0] != key:
            self._fitted = (key, with_stats(self.start.policy, stats))
        return self._fitted[1]

    def set_denoising(self, steps: int) -> None:
        """How many steps make noise an action chunk, here and in what is saved; 0 = as many as the policy came with."""
        self.start.policy.config.num_steps = steps or self._denoising

    def show(self, digest: str, tensors: Tensors) -> None:
        """Put a model into the policy, unless it is there already."""
        if self.shown != digest:
            self.shown = None
            load_trainable(self.start.policy, tensors)
            self.shown = digest


@cache
def warm_policy(root: Path, base: str, device: str, adapters: Adapters = _NO_ADAPTERS, seed: int = 0) -> Warm:
    """The starting policy of these params, loaded once in a process.

    Args:
        root: Project folder.
        base, device: As in params.
        adapters: Low-rank adapters to train in its stead.
        seed: Decides the adapters' frozen half, so all sites must have the same.
    """
    return Warm(load_start(root, base, device, adapters.rank, adapters.alpha, seed))


def forget() -> None:
    """Drop everything kept warm; for tests and for runs that follow each other in one process."""
    _sites.clear()
    _manifests.cache_clear()
    warm_policy.cache_clear()
    dismiss()
