"""The study whose federation is the run's: training at one site, in one place and federated, beside each other."""

from __future__ import annotations

from pathlib import Path

from zk0.digests import RESULTS_VERSION
from zk0.records.comparison import Comparison
from zk0.records.files import MissingRecordError, read
from zk0.records.run import Run

# What decides how each arm is trained; the study judges all of them in its own way.
_DECIDING = ("seed", "policy", "data", "training", "federation", "privacy")


def study_beside(root: Path, run: Run) -> Comparison | None:
    """The comparison of a run's own params, recordings and start; None where there is none, or one of others.

    Args:
        root: Project folder.
        run: Its federated run.

    Raises:
        RecordError: The study's summary is damaged.
    """
    try:
        found = read(root, Comparison)
    except MissingRecordError:
        return None
    same = all(found.params.get(name) == run.params.get(name) for name in _DECIDING)
    same = same and found.revisions == {name: site.revision for name, site in run.sites.items()}
    from_params = run.base.source == run.params.get("policy", {}).get("base")
    return found if same and from_params and found.results_version == RESULTS_VERSION else None
