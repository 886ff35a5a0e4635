"""`zk0 view`: what of an episode, and what a policy would send in it, is shown in Rerun."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from zk0.data.load import load_frames, recorded_frames
from zk0.data.manifest import MANIFESTS, Manifest, read_manifest
from zk0.errors import StageError
from zk0.evaluation.held_out import predictions
from zk0.federation.start import locked_base
from zk0.params import load_params
from zk0.pipeline.data import open_source
from zk0.policy.checkpoint import LoadedPolicy, load_checkpoint
from zk0.policy.start import load_start, resolve_device
from zk0.records.files import read
from zk0.records.run import Run
from zk0.reporting.in_rerun import write_episode
from zk0.so100 import ACTION, STATE
from zk0.sources import Source
from zk0.words import nearest_hint, stretches

_LOOKS = 16  # at which a policy looks at once


def view(root: Path, file: Path, what: str, episode: int | None, policy: str | None, params: Path) -> None:
    """Write an episode of a partition, as it is trained on, or of a dataset, as it was recorded.

    Args:
        root: Project folder.
        file: To be written.
        what: A partition's name, or a source as its owner writes it.
        episode: Which; None = the first, of a partition the first that is held out.
        policy: Of a partition, whose actions to show beside the recorded ones: ``best``, the last run's; ``base``; or
            see :func:`zk0.tracking.registry.read_checkpoint`.
        params: The params file, for a policy.

    Raises:
        StageError: There is no such partition, dataset, episode or policy; says what there is.
    """
    partition = _partition(root, what)
    if partition is None:
        if policy:
            raise StageError(f"--policy is for a partition, of which cameras and units are known; {what} is a dataset")
        dataset = open_source(root, Source.of_owner(what))[1]
        number, about, hz = _episode(episode, list(dataset.rows.bounds), what), "as recorded", dataset.fps
        frames = recorded_frames(dataset, number)
        names = {feature: dataset.joint_names(feature) for feature in (ACTION, STATE)}
    else:
        known = [*partition.held_out_episodes, *partition.train_episodes]
        number, hz = _episode(episode, known, what), partition.fps
        about = "held out" if number in partition.held_out_episodes else "trained on"
        frames = load_frames(partition, root, [number], decoded_limit_bytes=0)
        names = dict.fromkeys((ACTION, STATE), partition.joints)
    lines = {"action": _named(names[ACTION], frames.actions), "state": _named(names[STATE], frames.states)}
    if policy:
        settings = load_params(params)
        torch.set_num_threads(settings.threads)
        loaded = _policy(root, settings.policy.device, settings.tracking.model, policy)
        looks = np.arange(0, len(frames), loaded.chunk)  # one chunk begins where the one before it has ended
        batches = np.split(looks, range(_LOOKS, len(looks), _LOOKS))
        chunks = np.concatenate([found for _, found in predictions(loaded, frames, settings.seed, batches=batches)])
        lines["chunk"] = _named(names[ACTION], np.concatenate(chunks)[: len(frames)])
        about += f", chunks of {policy}"
    write_episode(file, f"{what}, episode {number}, {about}: {frames.sentences[0]}", frames, hz, lines)


def _partition(root: Path, name: str) -> Manifest | None:
    """The partition of that name; None where a dataset is meant."""
    known = {file.stem: file for file in (root / MANIFESTS).glob("*.json")}
    if name in known:
        return read_manifest(known[name])
    if ":" not in name and not (root / Path(name).expanduser()).is_dir():
        hint = nearest_hint(name, known) if known else "; `zk0 prepare` makes partitions"
        raise StageError(f"'{name}' is neither rollouts, nor a partition, nor a dataset's folder{hint}")
    return None


def _episode(wanted: int | None, known: list[int], what: str) -> int:
    number = known[0] if wanted is None and known else wanted
    if number is None or number not in known:
        raise StageError(f"{what} has no such episode: it has {stretches(known) or 'none'}")
    return number


def _named(names: tuple[str, ...], values: np.ndarray) -> dict[str, np.ndarray]:
    """By joint; by number where the recorder gave joints no names of their own."""
    whole = len(set(names)) == values.shape[1]
    return dict(zip(names if whole else map(str, range(values.shape[1])), values.T, strict=True))


def _policy(root: Path, device: str, model_name: str, policy: str) -> LoadedPolicy:
    device = resolve_device(device)
    if policy == "base":
        return load_start(root, locked_base(root)[0], device)
    if policy == "best":
        return load_checkpoint(root / read(root, Run).checkpoints.best.path, device)
    if (folder := root / policy).is_dir():
        return load_checkpoint(folder, device)
    from zk0.tracking.registry import read_checkpoint  # noqa: PLC0415 - with MLflow, which a site does without

    return load_checkpoint(read_checkpoint(root, model_name, policy)[0], device)
