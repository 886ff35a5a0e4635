"""What a study tells a run of the same params: the figures of other ways to train on the same recordings."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from zk0.records.base import Record


class Interval(Record):
    """A mean over training seeds, tasks and scenes, and where it lies with 95%."""

    value: float
    low: float
    high: float


class ComparedArm(Record):
    """What an arm of a study came to: success, or degrees of error without a simulator; null if not judged."""

    name: str
    about: str
    seen: Interval | None = None
    unseen: Interval | None = None


class Comparison(Record):
    """A study's base, sites alone, all data in one place and federation, for whoever shows them beside a run."""

    command: str
    seeds: Annotated[tuple[int, ...], Field(description="Training seeds")]
    scenes: Annotated[tuple[int, int], Field(description="The first scene's seed, and how many scenes")]
    closed_loop: Annotated[bool, Field(description="Whether arms were driven")]
    missing: Annotated[int, Field(description="Pieces that are still to be made")] = 0
    results_version: int
    params: dict[str, Any]
    revisions: Annotated[dict[str, str], Field(description="Site to what its recordings were, as in a run's record")]
    arms: tuple[ComparedArm, ...]
