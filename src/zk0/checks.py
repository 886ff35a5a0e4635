"""How one check ended, and the verdict over many."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Check:
    """One thing a run needs. A failed ``error`` stops the run, a failed ``warning`` does not."""

    name: str
    passed: bool
    found: str
    expected: str
    advice: str
    severity: Literal["error", "warning"] = "error"

    def as_dict(self) -> dict[str, Any]:
        """As results/environment.json keeps it."""
        return asdict(self)


def passed(checks: list[Check]) -> bool:
    """Whether no check of severity ``error`` failed."""
    return all(check.passed or check.severity == "warning" for check in checks)
