"""Repositories of the Hugging Face Hub: from the local cache where they are in it, else downloaded into it.

A commit never changes, so what the cache holds of it needs no network.
"""

from __future__ import annotations

import logging
import re
from contextlib import suppress
from pathlib import Path
from typing import Literal

from zk0.errors import StageError
from zk0.files import write_bytes
from zk0.sources import Source

Kind = Literal["dataset", "model"]
_POLICY_SETTINGS = ["*.json", "*_step_*.safetensors", "vlm/*.txt", "vlm/*.jinja"]
_POLICY_FILES = [*_POLICY_SETTINGS, "*.safetensors"]
_TIMEOUT_S = 10.0
_COMMIT = re.compile(r"[0-9a-f]{40}")

_log = logging.getLogger(__name__)


class HubError(StageError):
    """A repository cannot be had; the message says why and which command fetches it."""


def snapshot_folder(repository: str, commit: str, kind: Kind) -> Path:
    """Where the cache keeps a commit of a repository, whether it does or not."""
    from huggingface_hub import constants  # noqa: PLC0415 - slow
    from huggingface_hub.file_download import repo_folder_name  # noqa: PLC0415 - slow

    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repository, repo_type=kind) / "snapshots" / commit


def hub_commit(repository: str, revision: str, kind: Kind) -> str:
    """The commit that a branch, tag or commit of a Hugging Face repository stands for now.

    Without a network the last commit that the local Hub cache has seen counts, and a warning says so. A commit that
    is in the cache needs no network.

    Raises:
        ValueError: No such repository or revision, no access, or offline with nothing in the cache.
    """
    import httpx  # noqa: PLC0415 - slow
    from huggingface_hub import HfApi  # noqa: PLC0415 - slow
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError  # noqa: PLC0415 - slow

    name = f"{kind} repository {repository}"
    if _COMMIT.fullmatch(revision) and snapshot_folder(repository, revision, kind).is_dir():
        return revision  # a commit stands for itself, and never changes
    api = HfApi()
    info = api.dataset_info if kind == "dataset" else api.model_info
    try:
        sha = info(repository, revision=revision, timeout=_TIMEOUT_S).sha
    except RevisionNotFoundError as error:
        raise ValueError(f"{name} has no revision '{revision}'; expected a branch, tag or commit of it") from error
    except GatedRepoError as error:
        raise ValueError(f"{name} asks for its terms to be accepted; do so on the Hub and `hf auth login`") from error
    except RepositoryNotFoundError as error:
        raise ValueError(f"{name} does not exist, or is private; if it is private, `hf auth login`") from error
    except (OSError, httpx.HTTPError) as error:
        return _cached_commit(repository, revision, kind, why_unreachable(error))
    if not sha:
        raise ValueError(f"{name} gave no commit for revision '{revision}'")
    if sha != revision:
        _remember(repository, revision, kind, str(sha))
    return str(sha)


def _remember(repository: str, revision: str, kind: Kind, sha: str) -> None:
    """Note in the cache what a branch stands for: what is downloaded by its commit would be unknown by the branch.

    The Hub's own client notes it where it is given the branch. A cache that may only be read stays as it is.
    """
    with suppress(OSError):
        write_bytes(_reference(repository, revision, kind), sha.encode())


def _reference(repository: str, revision: str, kind: Kind) -> Path:
    return snapshot_folder(repository, revision, kind).parents[1] / "refs" / revision


def _cached_commit(repository: str, revision: str, kind: Kind, reason: str) -> str:
    sha = revision
    if not _COMMIT.fullmatch(revision):
        reference = _reference(repository, revision, kind)
        sha = reference.read_text().strip() if reference.is_file() else ""
    if not sha or not snapshot_folder(repository, sha, kind).is_dir():
        raise ValueError(
            f"{kind} repository {repository} at '{revision}' is not in the local Hub cache, and {reason}. "
            f"{how_to_fetch(repository, kind, revision)}"
        )
    if sha != revision:
        _log.warning("%s not asked, since %s: using %s, the cached '%s'", repository, reason, sha[:12], revision)
    return sha


def moving(source: str, digest: str) -> str | None:
    """What to write instead of a hub source that moves on with a branch or tag; None where it is pinned or no hub's."""
    if not source.startswith("hub:"):
        return None
    parsed = Source.parse(source)
    return None if _COMMIT.fullmatch(parsed.revision or "") else f"hub:{parsed.name}@{digest}"


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
    import httpx  # noqa: PLC0415 - slow
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - slow

    try:
        return Path(snapshot_download(repository, repo_type=kind, revision=commit, allow_patterns=patterns))
    except (OSError, httpx.HTTPError) as error:
        raise HubError(
            f"hub:{repository}@{commit} is not, or not wholly, in the local Hub cache, and {why_unreachable(error)}. "
            f"{how_to_fetch(repository, kind, commit)}"
        ) from error


def fetch_policy(repository: str, revision: str, weights: bool = True) -> Path:
    """The checkpoint folder of a policy on the Hub, a vision-language model that it carries included.

    Args:
        repository: ``owner/name``.
        revision: A commit, branch or tag.
        weights: With its weights, not with settings, processors and statistics alone.

    Raises:
        HubError: See :func:`download`.
    """
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - slow
    from huggingface_hub.errors import LocalEntryNotFoundError  # noqa: PLC0415 - slow

    files = _POLICY_FILES if weights else _POLICY_SETTINGS
    if snapshot_folder(repository, revision, "model").is_dir():  # a commit that is in the cache
        try:
            return Path(snapshot_download(repository, revision=revision, allow_patterns=files, local_files_only=True))
        except LocalEntryNotFoundError:
            pass  # not all of it
    return download(repository, revision, "model", files)


def why_unreachable(error: Exception) -> str:
    """A clause that says why the Hub did not answer."""
    from huggingface_hub import constants  # noqa: PLC0415 - slow

    if constants.is_offline_mode():
        return "HF_HUB_OFFLINE is set"
    first = (str(error).strip() or "no answer").splitlines()[0]
    return f"the Hub cannot be reached ({type(error).__name__}: {first})"


def unreachable() -> str | None:
    """Ask the Hub for anything: a clause that says why it did not answer, None where it did."""
    import httpx  # noqa: PLC0415 - slow
    from huggingface_hub import constants  # noqa: PLC0415 - slow

    if constants.is_offline_mode():
        return "HF_HUB_OFFLINE is set"
    try:
        httpx.head(constants.ENDPOINT, timeout=_TIMEOUT_S)
    except (OSError, httpx.HTTPError) as error:
        return why_unreachable(error)
    return None


def how_to_fetch(repository: str, kind: Kind, revision: str) -> str:
    """A sentence with the command that puts a repository into the cache."""
    option = "" if kind == "model" else f" --repo-type {kind}"
    return f"Where there is a network, `hf download {repository}{option} --revision {revision}` fetches it"
