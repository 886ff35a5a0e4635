"""prepare: record or find every source, check it, split it, write the manifests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from zk0.console import console
from zk0.data.cameras import check_alike
from zk0.data.clips import CLIPS, identity
from zk0.data.dataset import DatasetFolder
from zk0.data.formats import fetch_dataset
from zk0.data.manifest import MANIFESTS, REPORT, Manifest, check_disjoint, hold_out, partition, write_manifest
from zk0.data.recorders import record_all
from zk0.data.survey import Survey, check_robots, markdown_of, report_of, survey
from zk0.digests import digest_value
from zk0.errors import DataError
from zk0.files import write_json, write_text
from zk0.params import Params
from zk0.seeding import numpy_rng
from zk0.sources import Source, SourcesLock, read_lock

RECORDINGS = Path("data/recordings")
REPORT_FOR_PEOPLE = REPORT.with_suffix(".md")


def run(root: Path, params: Params, recorded: bool = False) -> None:
    """Write recordings, manifests and the data check report, ``results/data.json`` and ``results/data.md``.

    Args:
        root: Project folder.
        params: The run's.
        recorded: The simulated sources lie in ``data/recordings`` as these params would record them.

    Raises:
        DataError: A source is not fit to train on, and params do not let it be left out, or too few are left; nothing
            of this call's manifests is left behind.
        StageError: Sources have not been resolved.
    """
    lock = read_lock(root, "sources", "unseen")
    sources = {**params.data.sites, **params.data.unseen}
    kinds = {name: Source.parse(text) for name, text in sources.items()}
    if not recorded:
        record_all(root / RECORDINGS, params, {n: s for n, s in kinds.items() if s.kind == "sim"})
    surveys, unfit = survey_all(root, params, lock, sources)
    sites = _site_manifests(root, params, surveys)
    unseen = [
        _manifest(root, surveys[name], name, -1, "unseen", [], surveys[name].episodes) for name in params.data.unseen
    ]
    check_disjoint(sites + unseen)
    for stale in (root / MANIFESTS).glob("*.json"):
        stale.unlink()
    for manifest in sites + unseen:
        write_manifest(root, manifest)
    entries = [report_of(one) for one in surveys.values()]
    write_json(root / REPORT, {"sources": entries, "partitions": [m.content() for m in sites + unseen], "unfit": unfit})
    write_text(root / REPORT_FOR_PEOPLE, markdown_of(surveys.values()))
    frames = sum(m.train_frames for m in sites)
    real = any(source.kind != "sim" for source in kinds.values())
    console.print(
        f"{len(sites)} sites with {frames} training frames, {len(unseen)} unseen tasks; see {REPORT_FOR_PEOPLE}"
        + ("; are they good recordings? `zk0 data check` says" if real else ""),
        markup=False,
    )


def survey_all(
    root: Path, params: Params, lock: SourcesLock, sources: Mapping[str, str]
) -> tuple[dict[str, Survey], dict[str, str]]:
    """Check all sources, each by itself and beside the others.

    Returns:
        What the sources are, and which sites are left out as params allow, each with its reason.

    Raises:
        DataError: Names every source that is not fit, with its reason; and what the others are, where that matters.
    """
    surveys: dict[str, Survey] = {}
    problems: dict[str, str] = {}
    for name, text in sources.items():
        revision = _revision(lock, name)
        try:
            dataset = find_dataset(root, name, Source.parse(text), revision)
            surveys[name] = survey(name, text, revision, dataset, params.data, root)
        except DataError as error:
            problems[name] = str(error)
    if problems and not _may_go_on(params, problems):
        lines = list(problems.values())
        if any("data.conventions" in line for line in lines):
            lines += [f"'{s.name}' is {s.joints.convention}, by {s.joints.by}" for s in surveys.values()]
        raise DataError("\n".join(lines))
    check_robots(list(surveys.values()))
    check_alike({one.name: one.cameras.sources for one in surveys.values()}, params.data.missing_cameras)
    return surveys, problems


def _may_go_on(params: Params, problems: dict[str, str]) -> bool:
    """Whether a run may go on without these; says who is left out, or adds to the problems why too few are left.

    What no site has is judged on and trains nothing: an unseen task that is not fit is for params to mend.
    """
    sites = params.data.sites
    if params.data.unfit == "refuse" or problems.keys() - sites.keys():
        return False
    left, needed = len(sites) - len(problems), params.federation.min_replies * len(sites)
    if not left or left < needed:
        problems[""] = (
            f"without them {left} of {len(sites)} sites are left, and federation.min_replies asks for "
            f"{params.federation.min_replies:g} of them: mend their data, or lower it"
        )
        return False
    for name, reason in problems.items():
        console.print(f"'{name}' is left out, its data is not fit: {reason}", style="yellow", markup=False)
    return True


def find_dataset(root: Path, name: str, source: Source, revision: str, any_format: bool = False) -> DatasetFolder:
    """The folder of a recorded, local or downloaded source.

    Args:
        root: Project folder.
        name: The source's, in params.
        source: Where it comes from.
        revision: Of a hub source, the commit.
        any_format: See :func:`zk0.data.hub.fetch_dataset`.
    """
    if source.kind == "sim":
        return DatasetFolder(root / RECORDINGS / name, f"zk0/{name}")
    if source.kind == "local":
        return DatasetFolder(root / Path(source.name).expanduser(), source.name)
    return DatasetFolder(fetch_dataset(source.name, revision, any_format), source.name)


def _revision(lock: SourcesLock, name: str) -> str:
    entry = {**lock["sources"], **lock["unseen"]}.get(name)
    if entry is None:
        raise DataError(f"sources.lock.json does not know '{name}'; run `zk0 validate` after changing params")
    return str(entry["digest"])


def _site_manifests(root: Path, params: Params, surveys: Mapping[str, Survey]) -> list[Manifest]:
    """One manifest per source, or many from one source."""
    manifests = []
    if params.data.partition.scheme == "none":
        parts = [(name, name, list(surveys[name].dataset.rows.bounds)) for name in params.data.sites if name in surveys]
    else:
        (name,) = params.data.sites
        rows = surveys[name].dataset.rows
        tasks = [int(rows.tasks[start]) for start, _ in rows.bounds.values()]
        rng = numpy_rng(params.seed, "partition")
        dealt = partition(list(rows.bounds), tasks, params.data.partition, rng)
        parts = [(f"{name}-{number}", name, part) for number, part in enumerate(dealt)]
    for number, (site, name, episodes) in enumerate(parts):
        motions = {episode: surveys[name].dataset.episode_digest(episode) for episode in episodes}
        try:
            train, held_out = hold_out(motions, params.data.held_out, params.seed, surveys[name].left_out)
        except DataError as error:
            raise DataError(f"site '{site}': {error}") from error
        manifests.append(_manifest(root, surveys[name], site, number, "site", train, held_out))
    return manifests


def _manifest(
    root: Path,
    source: Survey,
    site: str,
    number: int,
    role: Literal["site", "unseen"],
    train: list[int],
    held_out: list[int],
) -> Manifest:
    dataset, cameras, every = source.dataset, dict(source.cameras.sources), source.every
    bounds = {episode: dataset.rows.bounds[episode] for episode in [*train, *held_out]}
    digests = {episode: identity(dataset, episode, cameras.values(), root / CLIPS) for episode in bounds}
    tasks = Counter(
        dataset.task_names[int(t)] for start, stop in bounds.values() for t in dataset.rows.tasks[start:stop]
    )
    content: list[Any] = [site, role, sorted(digests.items()), train, held_out, sorted(cameras.items())]
    if every > 1 or source.joints.map is not None:
        content += [every, source.joints.map and source.joints.map.model_dump(mode="json")]
    inside = dataset.root.is_relative_to(root)

    def frames(episodes: list[int]) -> int:
        return sum(len(range(*bounds[episode], every)) for episode in episodes)

    return Manifest(
        site=site,
        partition=number,
        role=role,
        source=source.source,
        revision=source.revision,
        repo_id=dataset.repo_id,
        root=str(dataset.root.relative_to(root) if inside else dataset.root),
        robot_type=dataset.robot_type,
        fps=int(dataset.fps) // every,
        cameras=tuple(sorted(cameras)),
        camera_sources=cameras,
        image_shapes={camera: dataset.image_shape(own) for camera, own in cameras.items()},
        joints=dataset.joint_names("action"),
        tasks=tuple(task for task, _ in tasks.most_common()),
        train_episodes=tuple(train),
        held_out_episodes=tuple(held_out),
        train_frames=frames(train),
        held_out_frames=frames(held_out),
        episode_digests=digests,
        digest=digest_value(content),
        every=every,
        convention=source.joints.convention,
        joint_map=source.joints.map,
    )
