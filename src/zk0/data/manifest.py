"""Partitions: whose episodes are trained on and tested on, and the manifest that says so to all later stages."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from zk0.data.conventions import JointMap
from zk0.digests import digest_value
from zk0.errors import DataError
from zk0.files import read_json, write_json
from zk0.params import Convention, PartitionParams
from zk0.words import check_site_name, fault

MANIFESTS = Path("data/manifests")
REPORT = Path("results/data.json")
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

    def content(self) -> dict[str, Any]:
        """As JSON takes it, without the episodes' digests: what a site tells of its data, and run.json."""
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
        raise DataError(f"{path}: {fault(error)}") from error


def read_manifests(root: Path) -> tuple[list[Manifest], list[Manifest]]:
    """All manifests: the sites in partition order, and the unseen tasks by name."""
    manifests = [read_manifest(path) for path in sorted((root / MANIFESTS).glob("*.json"))]
    sites = sorted((m for m in manifests if m.role == "site"), key=lambda m: m.partition)
    if not sites:
        raise DataError(f"{root / MANIFESTS} holds no site's manifest; run `zk0 prepare`")
    check_disjoint(sites)
    return sites, [m for m in manifests if m.role == "unseen"]


def unfit_sites(root: Path) -> dict[str, str]:
    """The sites that the last `zk0 prepare` left out, each with why its data is not fit; see ``data.unfit``."""
    found: dict[str, str] = read_json(root / REPORT).get("unfit", {}) if (root / REPORT).is_file() else {}
    return found


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


def hold_out(
    motions: Mapping[int, str], share: float, seed: int, left_out: Collection[int] = ()
) -> tuple[list[int], list[int]]:
    """Split a site's episodes into (training, held-out), at least one of each.

    An episode's side is decided by its own digest and the seed, as a number below ``share`` or not. So
    whatever is recorded, left out or deleted later, an episode that was trained on is never held out,
    and copies of one, at whatever sites, lie on one side. The price is that ``share`` is met on average
    only: of 30 episodes at 0.2, 6 are held out, give or take 2. A rule that counts would meet it, but
    one episode less would move all those after it.

    Two exceptions give each side an episode. The first always trains, and its copies. Where no number is
    below ``share``, the episode with the lowest is held out; it trains once another has a lower one,
    which cannot have been trained on before.

    Sides are decided before anything is left out, so that this moves no episode either.

    Args:
        motions: Episode to the digest of what was done in it, of all that the site has.
        share: Chance of an episode to be held out. Raising it later holds out what was trained on.
        seed: The run's; another one splits anew.
        left_out: Episodes to leave out of both sides.

    Raises:
        DataError: Fewer than two episodes, or one side would be left empty.
    """
    if len(motions) < 2:
        raise DataError(f"{len(motions)} episode cannot be split into training and held-out; record at least two")
    first = motions[min(motions)]
    numbers = {episode: _number(seed, motion) for episode, motion in motions.items() if motion != first}
    if not numbers:
        raise DataError(f"all {len(motions)} episodes are the same one and cannot be split; record another")
    lowest = min(numbers.values())
    apart = {episode for episode, number in numbers.items() if number < share or number == lowest}
    held_out = sorted(apart.difference(left_out))
    train = sorted(set(motions) - apart.union(left_out))
    for side, episodes, whole in (("held-out", held_out, apart), ("training", train, set(motions) - apart)):
        if not episodes:
            raise DataError(
                f"data.leave_out leaves no {side} episode of {sorted(whole)}; keep one of them, or record more"
            )
    return train, held_out


def _number(seed: int, motion: str) -> float:
    """In [0, 1): the same for the same motion and seed."""
    return int(digest_value(["held-out", seed, motion], size=8), 16) / 2**64


def partition(
    episodes: Sequence[int], tasks: Sequence[int], params: PartitionParams, rng: np.random.Generator
) -> list[list[int]]:
    """Deal the episodes of one dataset to several sites.

    ``equal`` deals them round, each round in another order, and goes on with it when the dataset has
    grown. By the other schemes episodes then move between sites; that none moves from training to
    held-out is :func:`hold_out`'s doing, which looks at the episode alone. ``sizes`` draws the sites'
    shares from a Dirichlet distribution; ``tasks`` draws, for each task, its spread over the sites
    (Hsu, Qi and Brown, "Measuring the effects of non-identical data distribution for federated visual
    classification", 2019); ``by-task`` gives each task to one site.

    Args:
        episodes: Episode indices.
        tasks: The task of each.
        params: Scheme, number of sites, concentration.
        rng: Decides the draw.

    Returns:
        One sorted list of episodes per site.

    Raises:
        DataError: A site would get fewer than two episodes; says what to change.
    """
    count = params.sites
    rounds = [rng.permutation(count) for _ in range(0, len(episodes), count)] if params.scheme == "equal" else []
    order = rng.permutation(len(episodes))
    indices, labels = np.asarray(episodes)[order], np.asarray(tasks)[order]
    if params.scheme == "equal":
        dealt = np.concatenate(rounds)[: len(episodes)]
        parts = [np.asarray(episodes)[dealt == site] for site in range(count)]
    elif params.scheme == "sizes":
        parts = _cut(indices, rng.dirichlet([params.alpha] * count))
    elif params.scheme == "tasks":
        spread = [_cut(indices[labels == t], rng.dirichlet([params.alpha] * count)) for t in np.unique(labels)]
        parts = [np.concatenate(pieces) for pieces in zip(*spread, strict=True)]
    else:
        groups = np.array_split(np.unique(labels), count)
        parts = [indices[np.isin(labels, group)] for group in groups]
    for site, part in enumerate(parts):
        if len(part) < 2:
            raise DataError(
                f"partition {site} would get {len(part)} of {len(episodes)} episodes and needs two; lower "
                "data.partition.sites, raise data.partition.alpha, or choose another scheme"
            )
    return [sorted(int(e) for e in part) for part in parts]


def _cut(items: np.ndarray, shares: np.ndarray) -> list[np.ndarray]:
    """Cut an array into consecutive pieces of about these shares."""
    return np.split(items, np.round(np.cumsum(shares)[:-1] * len(items)).astype(int))
