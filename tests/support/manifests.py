"""Manifests of data that a test has changed."""

from __future__ import annotations

from pathlib import Path

from zk0.data.clips import identity
from zk0.data.load import dataset_of
from zk0.data.manifest import Manifest


def anew(manifest: Manifest, root: Path) -> Manifest:
    """With the digests that `zk0 prepare` would write of what there is now."""
    dataset, cameras = dataset_of(manifest, root), manifest.camera_sources.values()
    digests = {episode: identity(dataset, episode, cameras) for episode in manifest.episode_digests}
    return manifest.model_copy(update={"episode_digests": digests})
