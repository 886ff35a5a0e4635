"""Whether what DVC keeps is kept anywhere else than in this folder."""

from __future__ import annotations

from pathlib import Path

from zk0.checks import Check

ADD_REMOTE = "dvc remote add --local --default backup FOLDER_OR_URL"


def default_remote(root: Path) -> str | None:
    """Where `dvc push` sends data; None where it cannot, or only into the project's own folder."""
    if not (root / ".dvc").is_dir():
        return None
    from dvc.config import Config

    config = Config(str(root / ".dvc"))
    name = config["core"].get("remote")
    url = str(config["remote"].get(name, {}).get("url", "")) if name else ""
    inside = "://" not in url and Path(url).resolve().is_relative_to(root.resolve())
    return None if not url or inside else url


def check_remote(root: Path) -> list[Check]:
    """A note where there is a pipeline, and its data and models would be lost with this folder."""
    if not (root / ".dvc").is_dir():
        return []
    url = default_remote(root)
    return [
        Check(
            "backup of data",
            url is not None,
            url or "no DVC remote outside this folder",
            "a DVC remote, where `dvc push` sends data and models",
            f"`{ADD_REMOTE}`, then `dvc push`",
            "warning",
        )
    ]
