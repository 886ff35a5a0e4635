"""A prepared project that all arms of a study train in: one set of recordings, manifests and features."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from zk0.data.frames import Frames
from zk0.data.load import load_frames
from zk0.data.manifest import Manifest, read_manifests
from zk0.errors import StageError
from zk0.federation.protocol import Adapters
from zk0.federation.run import locked_base
from zk0.federation.site import Site, Warm, forget, open_site, warm_policy
from zk0.params import Params
from zk0.words import nearest_hint


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
        """A site's manifest.

        Raises:
            StageError: There is no such site; names the nearest.
        """
        found = {manifest.site: manifest for manifest in self.sites}
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

    def train_frames(self, manifest: Manifest, share: float = 1.0) -> Frames:
        """A site's training frames, of a share of its training episodes, see :func:`first_episodes`."""
        if share == 1:
            return self.site(manifest).train_frames
        return load_frames(manifest, self.root, first_episodes(manifest, share), self.decoded_limit_bytes)

    def policy(self, params: Params) -> Warm:
        """The starting policy of these params, loaded once in a process and shared with the federation's sites."""
        adapters = Adapters(rank=params.policy.lora_rank, alpha=params.policy.lora_alpha)
        seed = params.seed if adapters.rank else 0
        return warm_policy(self.root, self.base[0], params.policy.device, adapters, seed)

    def forget(self) -> None:
        """Drop policies, frames and features that are kept warm."""
        forget()
        self._unseen.clear()


def first_episodes(manifest: Manifest, share: float) -> tuple[int, ...]:
    """The first training episodes, a share of them and at least one."""
    return manifest.train_episodes[: max(1, round(len(manifest.train_episodes) * share))]
