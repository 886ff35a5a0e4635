"""A figure beside its peer's, and the file that holds many of them.

``benchmarks/results.json`` and ``results/bench-quick.json`` have this form.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import xxhash
from pydantic import Field, ValidationError, field_validator, model_validator

from zk0.errors import StageError
from zk0.files import read_json, write_json
from zk0.settings import Section
from zk0.words import fault


class BenchmarkError(StageError):
    """A benchmark cannot be run or its results not be read; says what to do."""


class Row(Section):
    """One comparison.

    Attributes:
        name: What is compared; unique in a report.
        work: What was done, precisely enough to do it again.
        unit: Of ours, peer and limit. A unit that ends in ``/s`` is a rate, of which more is better; of
            everything else (seconds, bytes, loss) less is better.
        ours: zk0's figure.
        peer: The peer's; None where none is known.
        peer_name: Whose it is.
        ratio: How many times better ours is: above 1 = ours is better.
        limit: What the hardware allows at best, for the same work; None where that is unknown.
        command: Measures this row again.
    """

    name: str = Field(min_length=1)
    work: str = Field(min_length=1)
    unit: str = Field(min_length=1)
    ours: float = Field(ge=0)
    peer: float | None = Field(ge=0)
    peer_name: str | None
    ratio: float | None = Field(ge=0)
    limit: float | None = Field(ge=0)
    command: str = Field(min_length=1)

    @model_validator(mode="after")
    def _ratio_follows(self) -> Self:
        if (self.peer is None) != (self.peer_name is None):
            raise ValueError(f"row '{self.name}': peer {self.peer} and peer_name {self.peer_name} go together")
        expected = ratio_of(self.ours, self.peer, self.unit)
        same = self.ratio is expected if expected is None or self.ratio is None else math.isclose(self.ratio, expected)
        if not same:
            raise ValueError(f"row '{self.name}': ratio {self.ratio} does not follow from its figures ({expected})")
        return self


def is_rate(unit: str) -> bool:
    """Whether more of a unit is better.

    >>> is_rate("steps/s"), is_rate("s"), is_rate("bytes")
    (True, False, False)
    """
    return unit.endswith("/s")


def ratio_of(ours: float, peer: float | None, unit: str) -> float | None:
    """How many times better ours is than the peer's; None where there is no peer or no finite ratio.

    >>> ratio_of(2.0, 30.0, "s"), ratio_of(2.0, 30.0, "steps/s")
    (15.0, 0.06666666666666667)
    """
    if peer is None:
        return None
    over, under = (ours, peer) if is_rate(unit) else (peer, ours)
    return over / under if under else None


def row(
    name: str,
    work: str,
    unit: str,
    ours: float,
    command: str,
    *,
    peer: float | None = None,
    peer_name: str | None = None,
    limit: float | None = None,
) -> Row:
    """A row with its ratio worked out; see :class:`Row`."""
    return Row(
        name=name,
        work=work,
        unit=unit,
        ours=ours,
        peer=peer,
        peer_name=peer_name if peer is not None else None,
        ratio=ratio_of(ours, peer, unit),
        limit=limit,
        command=command,
    )


class Report(Section):
    """All rows measured on one machine.

    Attributes:
        machine: As :func:`zk0.machine.machine` tells it.
        created: When the last row was measured, ISO 8601.
        rows: The comparisons.
        details: Further figures by benchmark: when it ran and how long, spreads, series for plots.
    """

    machine: dict[str, Any]
    created: str
    rows: tuple[Row, ...]
    details: dict[str, Any] = Field(default_factory=dict)

    @field_validator("rows")
    @classmethod
    def _names_are_unique(cls, rows: tuple[Row, ...]) -> tuple[Row, ...]:
        names = [row.name for row in rows]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"more than one row is named '{twice[0]}'")
        return rows

    @property
    def machine_id(self) -> str:
        """Names the kind of machine, as :func:`machine_id`."""
        return machine_id(self.machine)


def machine_id(machine: Mapping[str, Any]) -> str:
    """12 hex digits that name a kind of machine: processor, cores, memory to the GB and GPUs.

    Figures are compared only where it is the same.
    """
    parts = [
        str(machine.get("cpu")),
        str(machine.get("cores")),
        str(round(int(machine.get("memory_bytes") or 0) / 1e9)),
        *(str(gpu.get("name")) for gpu in machine.get("gpus") or []),
    ]
    return xxhash.xxh3_64_hexdigest("\0".join(parts).encode())[:12]


def read_report(path: Path) -> Report:
    """Read and check a report.

    Raises:
        BenchmarkError: It is missing, cut short or has another form; names file and field.
    """
    try:
        return parse_report(read_json(path), str(path))
    except FileNotFoundError as error:
        raise BenchmarkError(f"{path} not found; `make bench` (or `make bench-quick`) writes it") from error
    except (ValueError, UnicodeDecodeError) as error:
        raise BenchmarkError(f"{error}; delete it and measure again") from error


def parse_report(content: Any, origin: str) -> Report:
    """Check a report's content.

    Raises:
        BenchmarkError: It has another form; names origin and field.
    """
    try:
        return Report.model_validate(content)
    except ValidationError as error:
        raise BenchmarkError(f"{origin}: {fault(error)}") from error


def write_report(path: Path, report: Report) -> None:
    """Write a report as JSON, atomically."""
    write_json(path, report.model_dump(mode="json"))
