"""prepare: record or find every source, check it, split it, write the manifests."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Literal

import xxhash

from zk0.console import console
from zk0.data.check import check_dataset
from zk0.data.dataset import DatasetFolder
from zk0.data.frames import IMAGES
from zk0.data.manifest import MANIFESTS, Manifest, check_disjoint, write_manifest
from zk0.data.recordings import record_all
from zk0.data.split import hold_out, partition
from zk0.errors import DataError
from zk0.files import read_json, write_json
from zk0.params import Params
from zk0.seeding import numpy_rng
from zk0.sources import Source

RECORDINGS = Path("data/recordings")
REPORT = Path("results/data.json")


def run(root: Path, params: Params) -> None:
    """Write recordings, manifests and ``results/data.json``.

    Raises:
        DataError: A source is not fit to train on; nothing of this call's manifests is left behind.
    """
    lock = read_json(root / "sources.lock.json")
    sources = {name: Source.parse(text) for name, text in {**params.data.sites, **params.data.unseen}.items()}
    record_all(root / RECORDINGS, params, {n: s.name for n, s in sources.items() if s.kind == "sim"})
    folders = {name: _find(root, name, source, lock) for name, source in sources.items()}
    for dataset in folders.values():
        check_dataset(dataset, params.data.fps)
    sites = _site_manifests(root, params, folders, lock)
    unseen = [
        _manifest(
            root,
            folders[name],
            name,
            -1,
            "unseen",
            text,
            _revision(lock, name),
            [],
            _episodes(folders[name]),
            params.data.cameras,
        )
        for name, text in params.data.unseen.items()
    ]
    check_disjoint(sites + unseen)
    _check_alike(sites + unseen)
    for stale in (root / MANIFESTS).glob("*.json"):
        stale.unlink()
    for manifest in sites + unseen:
        write_manifest(root, manifest)
    write_json(root / REPORT, {"partitions": [m.summary() for m in sites + unseen]})
    frames = sum(m.train_frames for m in sites)
    console.print(f"{len(sites)} sites with {frames} training frames, {len(unseen)} unseen tasks")


def _find(root: Path, name: str, source: Source, lock: dict[str, dict[str, dict[str, str]]]) -> DatasetFolder:
    """The folder of a recorded, local or downloaded source."""
    if source.kind == "sim":
        return DatasetFolder(root / RECORDINGS / name, f"zk0/{name}")
    if source.kind == "local":
        folder = Path(source.name).expanduser()
        return DatasetFolder(folder if folder.is_absolute() else root / folder, source.name)
    from huggingface_hub import snapshot_download

    folder = Path(snapshot_download(source.name, repo_type="dataset", revision=_revision(lock, name)))
    return DatasetFolder(folder, source.name)


def _revision(lock: dict[str, dict[str, dict[str, str]]], name: str) -> str:
    entry = {**lock["sources"], **lock["unseen"]}.get(name)
    if entry is None:
        raise DataError(f"sources.lock.json does not know '{name}'; run `zk0 validate` after changing params")
    return entry["digest"]


def _episodes(dataset: DatasetFolder) -> list[int]:
    return list(dataset.rows.bounds)


def _site_manifests(
    root: Path, params: Params, folders: dict[str, DatasetFolder], lock: dict[str, dict[str, dict[str, str]]]
) -> list[Manifest]:
    """One manifest per source, or many from one source."""
    manifests = []
    if params.data.partition.scheme == "none":
        parts = [(name, name, _episodes(folders[name])) for name in params.data.sites]
    else:
        (name,) = params.data.sites
        rows = folders[name].rows
        tasks = [int(rows.tasks[start]) for start, _ in rows.bounds.values()]
        rng = numpy_rng(params.seed, "partition")
        dealt = partition(_episodes(folders[name]), tasks, params.data.partition, rng)
        parts = [(f"{name}-{number}", name, part) for number, part in enumerate(dealt)]
    for number, (site, name, episodes) in enumerate(parts):
        train, held_out = hold_out(episodes, params.data.held_out, numpy_rng(params.seed, "held-out", site))
        source, revision = params.data.sites[name], _revision(lock, name)
        manifests.append(
            _manifest(root, folders[name], site, number, "site", source, revision, train, held_out, params.data.cameras)
        )
    return manifests


def _manifest(
    root: Path,
    dataset: DatasetFolder,
    site: str,
    number: int,
    role: Literal["site", "unseen"],
    source: str,
    revision: str,
    train: list[int],
    held_out: list[int],
    names: dict[str, str],
) -> Manifest:
    bounds = {episode: dataset.rows.bounds[episode] for episode in [*train, *held_out]}
    digests = {episode: dataset.episode_digest(episode) for episode in bounds}
    tasks = Counter(
        dataset.task_names[int(t)] for start, stop in bounds.values() for t in dataset.rows.tasks[start:stop]
    )
    sources = _camera_sources(dataset, names)
    content = (site, role, sorted(digests.items()), train, held_out, sorted(sources.items()))
    whole = xxhash.xxh3_128(repr(content).encode()).hexdigest()
    inside = dataset.root.is_relative_to(root)
    return Manifest(
        site=site,
        partition=number,
        role=role,
        source=source,
        revision=revision,
        repo_id=dataset.repo_id,
        root=str(dataset.root.relative_to(root) if inside else dataset.root),
        robot_type=str(dataset.info.get("robot_type") or "unknown"),
        fps=int(dataset.info["fps"]),
        cameras=tuple(sorted(sources)),
        camera_sources=sources,
        image_shapes={camera: dataset.image_shape(own) for camera, own in sources.items()},
        joints=dataset.joint_names("action"),
        tasks=tuple(task for task, _ in tasks.most_common()),
        train_episodes=tuple(train),
        held_out_episodes=tuple(held_out),
        train_frames=_frames(bounds, train),
        held_out_frames=_frames(bounds, held_out),
        episode_digests=digests,
        digest=whole,
    )


def _frames(bounds: dict[int, tuple[int, int]], episodes: list[int]) -> int:
    return sum(bounds[episode][1] - bounds[episode][0] for episode in episodes)


def _camera_sources(dataset: DatasetFolder, names: dict[str, str]) -> dict[str, str]:
    """The policy's names of a dataset's cameras to the dataset's own."""
    sources: dict[str, str] = {}
    for own in dataset.cameras:
        short = own.removeprefix(f"{IMAGES}.")
        camera = f"{IMAGES}.{names.get(short, short)}"
        if camera in sources:
            raise DataError(f"data.cameras makes both {sources[camera]} and {own} of {dataset.repo_id} {camera}")
        sources[camera] = own
    return sources


def _check_alike(manifests: list[Manifest]) -> None:
    """One global model needs one kind of robot and one set of cameras."""
    first = manifests[0]
    for other in manifests[1:]:
        if other.robot_type != first.robot_type:
            raise DataError(
                f"mixed embodiments: '{first.site}' is a {first.robot_type}, '{other.site}' a {other.robot_type}"
            )
        if other.cameras != first.cameras:
            raise DataError(
                f"'{other.site}' has cameras {', '.join(other.cameras)}, '{first.site}' {', '.join(first.cameras)}"
            )
