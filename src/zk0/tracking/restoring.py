"""The commands that bring a run's code, params, data and checkpoint back, and what they cannot bring."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from zk0.machine.repository import ADD_REMOTE, default_remote
from zk0.tracking.experiments import git_remote, here


@dataclass(frozen=True)
class Restoring:
    """How to get back to a run.

    Attributes:
        push: Typed here, these send it to where a fresh clone finds it.
        commands: Typed in a fresh clone that has the DVC remote, these bring it back.
        here: Typed here, these do.
        cannot: What is not brought back, or why nothing is.
    """

    push: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    here: list[str] = field(default_factory=list)
    cannot: list[str] = field(default_factory=list)


def restoring(
    root: Path, revision: str | None, experiment: str | None, new_files: str, sources: Iterable[str]
) -> Restoring:
    """What to type to have a run back.

    Args:
        root: The project's folder, which knows git's and DVC's remotes.
        revision: The commit that the run started from.
        experiment: The DVC experiment that holds it, if one was recorded.
        new_files: Those that git did not know when it was kept, as one text.
        sources: Of its data, as params.yaml names them.
    """
    if revision is None or experiment is None:
        return Restoring(cannot=[_NOT_KEPT])
    if not here(root, experiment):
        gone = f"the experiment {experiment} is not in this clone: `dvc exp pull origin {experiment}`, if it was pushed"
        return Restoring(cannot=[gone])
    remote, url = git_remote(root), default_remote(root)
    cannot = []
    if remote is None:
        cannot.append("nothing in another clone, while git has no remote here: `git remote add origin URL`")
    if url is None:
        cannot.append(f"no data in another clone, while DVC has no remote outside this folder: `{ADD_REMOTE}`")
    if new_files:
        cannot.append(f"files that git did not know: {new_files}")
    given = sorted({source for source in sources if not source.startswith("sim:")})
    if given:
        cannot.append(f"recordings that DVC does not hold, which must be where they were: {', '.join(given)}")
    back = [f"git checkout {revision}", f"dvc exp apply {experiment}"]
    elsewhere = remote is not None and url is not None
    return Restoring(
        [f"dvc exp push {remote} {experiment}"] if elsewhere else [],
        [f"dvc exp pull origin {experiment}", *back] if elsewhere else [],
        back,
        cannot,
    )


_NOT_KEPT = (
    "this run's data and params: it was not kept as a DVC experiment, as runs of `dvc repro`, `dvc exp run` and of the "
    "flow federate are where git has a commit"
)
