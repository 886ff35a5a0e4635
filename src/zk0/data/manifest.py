"""A partition's manifest: which episodes of which dataset a site trains on and is tested on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from zk0.data.conventions import JointMap
from zk0.errors import DataError
from zk0.files import read_json, write_json
from zk0.params import Convention
from zk0.words import check_site_name

MANIFESTS = Path("data/manifests")
MOST_FRAMES = 10**9  # a year of recordings at 30 frames a second

# A manifest also comes from a site, over the network: nothing in it is without bounds.
_Index = Annotated[int, Field(ge=0, le=10**9)]
_Text = Annotated[str, Field(max_length=1000)]
_Extent = Annotated[int, Field(ge=1, le=100_000)]


class Manifest(BaseModel):
    """What ``prepare`` writes for each site, and all that later stages know of its data.

    Attributes:
        site: Name, also the file's.
        partition: Index in the federation; -1 for data of no site.
        role: ``site``, or ``unseen`` for a task kept for evaluation.
        source: As written in params.
        revision: Commit of a hub source, digest of what was recorded or found otherwise.
        root: Dataset folder, relative to the project where it lies inside.
        repo_id: The dataset's name for LeRobot.
        cameras: Image features as the policy names them.
        camera_sources: Those names to the dataset's own.
        episode_digests: Episode index to what identifies it: states, actions and words as recorded, and the pictures of
            the cameras that are used; see :func:`zk0.data.clips.identity`.
        fps: Frames per second of what is taken: the recording's, divided by ``every``.
        every: One frame in so many is taken.
        convention: How the recording's joint values are written.
        joint_map: How they become degrees; None where they are.
        digest: Over everything above; two manifests with equal digests hold the same data.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    site: Annotated[str, Field(max_length=100), AfterValidator(check_site_name)]
    partition: int = Field(ge=-1, le=10**9)
    role: Literal["site", "unseen"]
    source: _Text
    revision: _Text
    repo_id: _Text
    root: _Text
    robot_type: _Text
    fps: int = Field(ge=1, le=1000)
    cameras: tuple[_Text, ...] = Field(max_length=64)
    camera_sources: dict[_Text, _Text] = Field(max_length=64)
    image_shapes: dict[_Text, tuple[_Extent, _Extent, _Extent]] = Field(max_length=64)
    joints: tuple[_Text, ...] = Field(max_length=64)
    tasks: tuple[_Text, ...] = Field(max_length=10_000)
    train_episodes: tuple[_Index, ...]
    held_out_episodes: tuple[_Index, ...] = Field(min_length=1)
    train_frames: int = Field(ge=0, le=MOST_FRAMES)
    held_out_frames: int = Field(ge=1, le=MOST_FRAMES)
    episode_digests: dict[int, str]
    digest: str = Field(pattern=r"^[\w-]{1,100}$")
    every: int = Field(1, ge=1, le=1000)
    convention: Convention = "degrees"
    joint_map: JointMap | None = None

    @model_validator(mode="after")
    def _held_out_stays_out(self) -> Manifest:
        if shared := set(self.train_episodes) & set(self.held_out_episodes):
            raise ValueError(
                f"partition '{self.site}': held-out episodes {sorted(shared)} are also trained on; run `zk0 prepare`"
            )
        if self.role == "site" and not self.train_episodes:
            raise ValueError(f"partition '{self.site}' is empty: it has no training episode")
        return self

    def summary(self) -> dict[str, Any]:
        """The manifest without the per-episode digests, for run.json."""
        return self.model_dump(mode="json", exclude={"episode_digests"})


def write_manifest(root: Path, manifest: Manifest) -> None:
    """Write ``data/manifests/<site>.json``."""
    write_json(root / MANIFESTS / f"{manifest.site}.json", manifest.model_dump(mode="json"))


def read_manifest(path: Path) -> Manifest:
    """Read one manifest.

    Raises:
        DataError: Missing, or not a valid manifest; names file and field.
    """
    try:
        return Manifest.model_validate(read_json(path))
    except FileNotFoundError as error:
        raise DataError(f"{path} not found; `zk0 prepare` writes it") from error
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(p) for p in problem["loc"]) or "manifest"
        raise DataError(f"{path}: {where}: {problem['msg'].removeprefix('Value error, ')}") from error


def read_manifests(root: Path) -> tuple[list[Manifest], list[Manifest]]:
    """All manifests: the sites in partition order, and the unseen tasks by name."""
    manifests = [read_manifest(path) for path in sorted((root / MANIFESTS).glob("*.json"))]
    sites = sorted((m for m in manifests if m.role == "site"), key=lambda m: m.partition)
    if not sites:
        raise DataError(f"{root / MANIFESTS} holds no site's manifest; run `zk0 prepare`")
    check_disjoint(sites)
    return sites, [m for m in manifests if m.role == "unseen"]


def check_disjoint(sites: list[Manifest]) -> None:
    """Refuse sites that share an episode of one dataset.

    Raises:
        DataError: Names both sites and the shared episodes.
    """
    owners: dict[tuple[str, str, int], Manifest] = {}
    for site in sites:
        mine = {*site.train_episodes, *site.held_out_episodes}
        for episode in sorted(mine):
            owner = owners.setdefault((site.root, site.revision, episode), site)
            if owner is not site:
                shared = mine & {*owner.train_episodes, *owner.held_out_episodes}
                raise DataError(
                    f"partitions '{owner.site}' and '{site.site}' overlap: both hold episodes {sorted(shared)[:10]}"
                )
