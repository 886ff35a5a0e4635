"""How one check ended, the verdict over many, and how a documented step did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal


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

    def as_dict(self) -> dict[str, Any]:
        """As results/environment.json keeps it."""
        return asdict(self)


def passed(checks: list[Check]) -> bool:
    """Whether no check of severity ``error`` failed."""
    return all(check.passed or check.severity != "error" for check in checks)


@dataclass(frozen=True)
class Outcome:
    """How a step ended.

    Attributes:
        changed: Whether it changed anything.
        told: What it found or did, a line each.
        warnings: What a person should look at, a line each.
        facts: For later steps.
    """

    changed: bool
    told: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
