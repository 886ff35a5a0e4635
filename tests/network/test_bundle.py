"""The app that travels to the sites."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

from flwr.cli.build import build_fab_from_disk
from flwr.common.constant import FAB_MAX_SIZE

from zk0.network.server.runs import CLIENT_APP, SERVER_APP, write_bundle


def test_flower_takes_it_and_it_holds_names_and_no_code(tmp_path: Path) -> None:
    app = build_fab_from_disk(write_bundle(tmp_path / "app"))

    with zipfile.ZipFile(io.BytesIO(app)) as content:
        assert sorted(content.namelist()) == [".info/CONTENT", "LICENSE", "pyproject.toml"]
        settings = content.read("pyproject.toml").decode()
    assert SERVER_APP in settings and CLIENT_APP in settings
    assert len(app) < FAB_MAX_SIZE // 1000


def test_the_same_app_is_the_same_bytes(tmp_path: Path) -> None:
    """Flower keeps apps by their digest: runs that go on with each other have one."""
    one, two = (build_fab_from_disk(write_bundle(tmp_path / name)) for name in ("one", "two"))

    assert one == two
