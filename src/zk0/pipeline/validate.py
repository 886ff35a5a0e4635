"""validate: refuse now what would fail an hour later, and note what every source is at this moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from zk0.checks import Check
from zk0.console import console, folded_table
from zk0.digests import digest_file
from zk0.environment import Environment, check_environment
from zk0.environment.code import CODE_LOCK, code_lock
from zk0.errors import StageError
from zk0.files import read_json, write_json
from zk0.hub import moving
from zk0.params import Params
from zk0.records.paths import COMPARISON, ENVIRONMENT
from zk0.sources import LOCK, SourcesLock
from zk0.sources_lock import resolve_sources, starting_policy

PIPELINE = Path("dvc.yaml")


def run(root: Path, params: Params) -> None:
    """Write ``results/environment.json`` and, when nothing is wrong, ``sources.lock.json`` and ``code.lock.json``.

    Raises:
        StageError: A check failed; lists each with what to do. The report is written all the same.
    """
    report, lock = checked(root, params)
    write_json(root / ENVIRONMENT, asdict(report))
    show_checks(report.checks)
    if not _holds(root / LOCK, lock):
        write_json(root / LOCK, lock)
    if (root / PIPELINE).is_file() and not _holds(root / CODE_LOCK, code := {**code_lock(root), **_study(root)}):
        write_json(root / CODE_LOCK, code)


def _study(root: Path) -> dict[str, str]:
    """What the report shows where it is there, which no dependency of a DVC stage may be."""
    return {"study": digest_file(root / COMPARISON) if (root / COMPARISON).is_file() else "none"}


def checked(root: Path, params: Params) -> tuple[Environment, SourcesLock | None]:
    """What the checks found, and what the sources resolve to, None where they do not; writes nothing."""
    report = check_environment(params, root)
    lock, check = _sources(root, params)
    report.checks += [check, *_revisions(lock)]
    report.passed = report.passed and check.passed
    return report, lock


def _sources(root: Path, params: Params) -> tuple[SourcesLock | None, Check]:
    """What the sources resolve to, None where they do not, and a check that says so."""
    expected = "every source and the starting policy can be found"
    advice = "mend data.sites, data.unseen or policy.base in params.yaml"
    try:
        lock = resolve_sources(params, root)
    except ValueError as error:
        return None, Check("sources", False, str(error), expected, advice)
    count = len(lock["sources"]) + len(lock["unseen"])
    found = f"{count} sources; {starting_policy(params)} at {lock['policy']['digest'][:12]}"
    return lock, Check("sources", True, found, expected, advice)


def _revisions(lock: SourcesLock | None) -> list[Check]:
    """A note on every hub source that another run may find changed."""
    entries = {**lock["sources"], **lock["unseen"], "policy.base": lock["policy"]} if lock else {}
    return [
        Check(
            f"revision of {name}",
            False,
            f"{entry['source']} is commit {entry['digest'][:12]} now, and may move on",
            f"{pinned}, where a run must be repeatable",
            "name the commit where the source is named",
            "warning",
        )
        for name, entry in entries.items()
        if (pinned := moving(entry["source"], entry["digest"]))
    ]


def _holds(path: Path, value: object) -> bool:
    """Whether a file already says this; then it keeps its time stamp."""
    try:
        return bool(read_json(path) == value)
    except (FileNotFoundError, ValueError):
        return False


def show_checks(checks: Sequence[Check]) -> None:
    """Print checks as a table.

    Raises:
        StageError: One of severity ``error`` failed; lists each with what to do.
    """
    console.print(_table(checks))
    failed_checks(checks)


def failed_checks(checks: Sequence[Check]) -> None:
    """Nothing where all is well.

    Raises:
        StageError: A check of severity ``error`` failed; lists each with what to do.
    """
    failed = [c for c in checks if not c.passed and c.severity == "error"]
    if failed:
        lines = [f"{c.name}: {c.found} (expected {c.expected})\n  {c.advice}" for c in failed]
        raise StageError("\n".join([f"{len(failed)} of {len(checks)} checks failed", *lines]))


def _table(checks: Sequence[Check]) -> Table:
    table = folded_table(("check", "", "found", "expected"))
    for check in checks:
        verdict = "[green]ok" if check.passed else "[red]failed" if check.severity == "error" else "[yellow]note"
        table.add_row(check.name, verdict, escape(check.found), "" if check.passed else escape(check.expected))
    return table
