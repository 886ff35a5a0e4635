"""Datasets as robot owners have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from real_sites import MAIN, STEPS, Prepare, episodes
from so100_recordings import (
    as_old_lerobot,
    write_v3,
)

from zk0.files import write_json
from zk0.params import Params, parse_params
from zk0.pipeline import prepare
from zk0.sources_lock import resolve_sources


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Datasets of three owners, by what they are; read only."""
    root = tmp_path_factory.mktemp("owners")
    write_v3(root / "degrees", episodes(0, "degrees"))
    write_v3(root / "so100", episodes(1, "degrees"), robot_type="so100_follower")
    write_v3(root / "normalised", episodes(1, "range_m100_100"))
    write_v3(root / "old", [as_old_lerobot(steps) for steps in STEPS[2]], robot_type="so100", names=MAIN)
    write_v3(
        root / "other-cameras",
        episodes(1, "degrees"),
        cameras={"overhead": (48, 64), "hand": (32, 32), "side": (32, 32)},
    )
    write_v3(root / "one-camera", episodes(1, "degrees"), cameras=["top"])
    write_v3(root / "fast", episodes(1, "degrees"), fps=30)
    write_v3(root / "odd", episodes(1, "degrees"), fps=25)
    write_v3(root / "pictures", episodes(1, "degrees"), use_videos=False)
    return root


@pytest.fixture
def run(tmp_path: Path, library: Path) -> Prepare:
    """Resolves and prepares in ``tmp_path``: ``run({site: dataset}, **data)``."""

    def prepare_project(sites: dict[str, str], **data: Any) -> Params:
        named = {name: f"local:{library / folder}" for name, folder in sites.items()}
        params = parse_params({"threads": 1, "policy": {"base": "random:nano"}, "data": {"sites": named, **data}})
        write_json(tmp_path / "sources.lock.json", resolve_sources(params, tmp_path))
        prepare.run(tmp_path, params)
        return params

    return prepare_project
