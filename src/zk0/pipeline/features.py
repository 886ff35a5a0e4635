"""features: compute what is constant of every frame ahead of time, say how large it is, clean it away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from zk0.console import console, progress_bar
from zk0.data.load import load_frames
from zk0.data.manifest import Manifest, read_manifests
from zk0.errors import StageError
from zk0.federation.start import locked_base
from zk0.params import Params
from zk0.policy.checkpoint import LoadedPolicy
from zk0.policy.features import FrameFeatures, clean, features_folder, features_for
from zk0.policy.features.places import check_space, size_text
from zk0.policy.start import load_start


def build(root: Path, params: Params) -> None:
    """Compute what is missing for all sites' training and held-out frames and the unseen tasks.

    A stopped call goes on where it was. The starting policy's backbone counts: it is frozen, so every round's model and
    the global model have the same.

    Raises:
        StageError: Features are switched off or would not stay true, or there is no room for them.
    """
    torch.set_num_threads(params.threads)
    loaded = load_start(root, locked_base(root)[0], params.policy.device)
    frames = todo = size = 0
    folder = features_folder(root)
    for features in _all_features(root, params, loaded):  # twice, so that only one site's frames are in memory
        rows = np.arange(len(features.frames))
        work = features.work(rows)
        frames, todo, size = frames + len(rows), todo + work.frames, size + work.file_bytes
    free = check_space(folder, size)
    console.print(f"{frames} frames; {size_text(size)} are added to {folder} ({size_text(free)} free)", markup=False)
    with progress_bar() as bar:
        line = bar.add_task("computing features", total=todo)
        for features in _all_features(root, params, loaded):
            features.ensure(np.arange(len(features.frames)), lambda count: bar.advance(line, count))


def clear(root: Path, params: Params, keep_current: bool) -> None:
    """Delete features, all or those that these params and manifests do not need."""
    keep: set[Path] = set()
    if keep_current:
        loaded = load_start(root, locked_base(root)[0], params.policy.device)
        keep = {path for features in _all_features(root, params, loaded) for path in features.paths()}
    count, size = clean(features_folder(root), keep)
    console.print(f"files of features deleted: {count} ({size_text(size)})")


def _all_features(root: Path, params: Params, loaded: LoadedPolicy) -> Iterator[FrameFeatures]:
    settings = params.features.model_copy(update={"ahead": False})
    if settings.cache == "off":
        raise StageError("features.cache is off; set it to tokens or prefix in params.yaml")
    for manifest, episodes in _parts(root):
        frames = load_frames(manifest, root, episodes, params.data.decoded_limit_bytes)
        features = features_for(loaded, frames, settings, root)
        if features is None:
            raise StageError(f"partition '{manifest.site}': its frames' features cannot be kept under this policy")
        yield features


def _parts(root: Path) -> Iterator[tuple[Manifest, tuple[int, ...]]]:
    sites, unseen = read_manifests(root)
    for manifest in [*sites, *unseen]:
        for episodes in (manifest.train_episodes, manifest.held_out_episodes):
            if episodes:
                yield manifest, episodes
