"""What a nightly run starts from: the champion, unless nothing is new since the run that made it."""

from __future__ import annotations

from pathlib import Path

from zk0.data.manifest import MANIFESTS, read_manifests
from zk0.digests import digest_folder
from zk0.federation.run import config_digest
from zk0.files import read_json
from zk0.params import Params
from zk0.records.files import read
from zk0.records.paths import RUN
from zk0.records.run import Run
from zk0.sources import LOCK, LockEntry, SourcesLock, read_lock
from zk0.sources_lock import resolve_sources
from zk0.tracking.registry import champion, champion_number


def nightly_start(root: Path, params: Params) -> str | None:
    """The starting policy of a nightly run, from which ``policy.warm_start`` may draw it back; None is that of params.

    Once promoted, a model would be another start of the next night, which would train on the same data again, night
    after night. So where the project's last run made the champion, and neither data nor params are others since, it is
    what that run started from, and every stage finds nothing to do.

    Args:
        root: Project folder.
        params: The project's.

    Returns:
        The champion's checkpoint folder, relative to the project where it lies inside, or what the last run started
        from; None while there is no champion.

    Raises:
        TrackingError: There is a champion, but its files are gone.
    """
    root = root.resolve()
    holder = champion(root, params.tracking.model)
    if holder is None:
        return None
    if (root / RUN).is_file() and read(root, Run).checkpoints.best.digest == digest_folder(holder):
        start = read_lock(root, "policy")["policy"]
        if _still(root, params, start):
            before = str(start["source"])
            return None if before == params.policy.base else before
    return str(holder.relative_to(root) if holder.is_relative_to(root) else holder)


def told_start(root: Path, params: Params, start: str | None) -> str:
    """A nightly run's start in words, for its name.

    Args:
        root: Project folder.
        params: The project's.
        start: As :func:`nightly_start` found it.
    """
    name = params.tracking.model
    number, holder = champion_number(root, name), champion(root, name)
    if number is None or holder is None:
        return "from base"
    begins = start is not None and (root / start).resolve() == holder.resolve()
    return f"from champion {number}" if begins else f"nothing new since champion {number}"


def _still(root: Path, params: Params, start: LockEntry) -> bool:
    """Whether data and params are what the last run from this start was made of; what cannot be found is news."""
    kept = start["shrink"]["kept"] if "shrink" in start else 1
    if start["source"] != params.policy.base and kept != params.policy.warm_start:
        return False
    try:
        return nothing_new(root, params, {**resolve_sources(params, root), "policy": start})
    except ValueError:  # `zk0 validate`, which comes next, says what is wrong
        return False


def nothing_new(root: Path, params: Params, lock: SourcesLock) -> bool:
    """Whether the project's last run was made of these sources and this starting policy, by these params.

    Args:
        root: Project folder.
        params: The project's.
        lock: What sources and starting policy are now.
    """
    if not (root / RUN).is_file() or not any((root / MANIFESTS).glob("*.json")) or read_json(root / LOCK) != lock:
        return False
    run, (sites, _) = read(root, Run), read_manifests(root)
    same_data = run.params["data"] == params.data.model_dump(mode="json")
    start = lock["policy"]
    return same_data and run.run == config_digest(params, str(start["digest"]), sites, start.get("shrink"))
