"""Repositories of the Hugging Face Hub: from the local cache where they are in it, else downloaded into it.

A commit never changes, so what the cache holds of it needs no network.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from zk0.errors import StageError

Kind = Literal["dataset", "model"]
_POLICY_FILES = ["*.json", "*.safetensors", "vlm/*"]


class HubError(StageError):
    """A repository cannot be had; the message says why and which command fetches it."""


def snapshot_folder(repository: str, commit: str, kind: Kind) -> Path:
    """Where the cache keeps a commit of a repository, whether it does or not."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repository, repo_type=kind) / "snapshots" / commit


def download(repository: str, commit: str, kind: Kind, patterns: list[str]) -> Path:
    """Put some of a repository's files into the cache, those that are not there yet.

    Args:
        repository: ``owner/name``.
        commit: Its full hash, or a branch or tag.
        kind: What it holds.
        patterns: Of the files' names.

    Returns:
        The snapshot's folder, which is the cache's: never to be written to.

    Raises:
        HubError: The Hub cannot be reached or does not give it, and the cache has not all of it.
    """
    import httpx
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, repo_type=kind, revision=commit, allow_patterns=patterns))
    except (OSError, httpx.HTTPError) as error:
        raise HubError(
            f"hub:{repository}@{commit} is not, or not wholly, in the local Hub cache, and {why_unreachable(error)}. "
            f"{how_to_fetch(repository, kind, commit)}"
        ) from error


def fetch_policy(repository: str, revision: str) -> Path:
    """The checkpoint folder of a policy on the Hub, a vision-language model that it carries included.

    Raises:
        HubError: See :func:`download`.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    if snapshot_folder(repository, revision, "model").is_dir():  # a commit that is in the cache
        try:
            return Path(
                snapshot_download(repository, revision=revision, allow_patterns=_POLICY_FILES, local_files_only=True)
            )
        except LocalEntryNotFoundError:
            pass  # not all of it
    return download(repository, revision, "model", _POLICY_FILES)


def why_unreachable(error: Exception) -> str:
    """A clause that says why the Hub did not answer."""
    from huggingface_hub import constants

    if constants.is_offline_mode():
        return "HF_HUB_OFFLINE is set"
    first = (str(error).strip() or "no answer").splitlines()[0]
    return f"the Hub cannot be reached ({type(error).__name__}: {first})"


def how_to_fetch(repository: str, kind: Kind, revision: str) -> str:
    """A sentence with the command that puts a repository into the cache."""
    option = "" if kind == "model" else f" --repo-type {kind}"
    return f"Where there is a network, `hf download {repository}{option} --revision {revision}` fetches it"
