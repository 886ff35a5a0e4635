"""Pushing a model version to the Hugging Face Hub: only when a person asks for it, never on the way."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

from zk0.checkpoints import read_checkpoint
from zk0.files import replaced_folder, write_text
from zk0.tracking.card import NAME, render_card
from zk0.tracking.registry import find_version, version_checkpoint
from zk0.tracking.results import TrackingError
from zk0.tracking.store import opened

_TARGET = re.compile(r"hub:(?P<repository>[\w.-]+/[\w.-]+)|local:(?P<folder>.+)")


def publish_version(
    root: Path, model_name: str, version: int, to: str, private: bool = False, endpoint: str | None = None
) -> str:
    """Push a version's checkpoint and its card.

    Args:
        root: The project's root.
        model_name: The registered model.
        version: Which of its versions.
        to: ``hub:OWNER/NAME``, made if there is none, or ``local:FOLDER``, which must not exist yet.
        private: Make the repository a private one.
        endpoint: The Hub's address; None is the one that the environment names.

    Returns:
        Where it is now.

    Raises:
        TrackingError: No such version, its files are gone, the target is malformed or taken, there is
            no access, or the Hub cannot be reached.
        CheckpointError: What would be pushed is more than a SmolVLA's data.
    """
    target = _TARGET.fullmatch(to)
    if target is None:
        raise TrackingError(f"'{to}' is no place to publish to: expected hub:OWNER/NAME or local:FOLDER")
    root = root.resolve()
    with opened(root) as client:
        found = find_version(client, model_name, version)
        checkpoint = version_checkpoint(client, root, found)
        card = render_card(client, root, found, target["repository"] or target["folder"])
    if target["folder"]:
        folder = root / Path(target["folder"]).expanduser()
        if folder.exists():
            raise TrackingError(f"{folder} is there already; name a folder that is not")
        with replaced_folder(folder) as fresh:
            _fill(fresh, checkpoint, card)
        return str(folder)
    with tempfile.TemporaryDirectory() as temporary:
        _fill(Path(temporary), checkpoint, card)
        message = f"{model_name}, version {version}"
        return _push(Path(temporary), str(target["repository"]), message, private, endpoint)


def _fill(folder: Path, checkpoint: Path, card: str) -> None:
    read_checkpoint(checkpoint)  # copying follows links
    shutil.copytree(checkpoint, folder, dirs_exist_ok=True)
    write_text(folder / NAME, card)


def _push(folder: Path, repository: str, message: str, private: bool, endpoint: str | None) -> str:
    import httpx
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi(endpoint=endpoint)
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=repository, folder_path=folder, commit_message=message).commit_url)
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise TrackingError(
                f"the Hub does not let you write to {repository} ({status}); `hf auth login` with a token that may"
            ) from error
        raise TrackingError(f"the Hub refused {repository} ({status}): {_first_line(error)}") from error
    except (httpx.HTTPError, OSError) as error:
        raise TrackingError(
            f"the Hub cannot be reached ({type(error).__name__}: {_first_line(error)}); nothing was published. "
            "Connect, or write a folder with --to local:FOLDER"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[0]
