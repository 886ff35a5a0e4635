"""How one check ended, and the verdict over many."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Check:
    """One thing a run needs, or that is well with it. A failed ``error`` stops the run.

    A failed ``warning`` or ``note`` does not; the former is the graver.
    """

    name: str
    passed: bool
    found: str
    expected: str
    advice: str
    severity: Literal["error", "warning", "note"] = "error"


def passed(checks: list[Check]) -> bool:
    """Whether no check of severity ``error`` failed."""
    return all(check.passed or check.severity != "error" for check in checks)
