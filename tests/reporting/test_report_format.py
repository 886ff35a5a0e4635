"""Numbers as the report writes them."""

from __future__ import annotations

from typing import Any

import pytest

from zk0.records.base import Gpu, Machine
from zk0.reporting import format as fmt


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0, "0"),
        (0.51234, "0.512"),
        (-3.14159, "−3.14"),
        (9.999, "10.0"),
        (999.6, "1,000"),
        (12345.6, "12,300"),
        (4.1e-3, "0.00410"),
        (4.1e-4, "4.10 × 10⁻⁴"),
        (float("nan"), "not finite"),
    ],
)
def test_number(value: float | None, text: str) -> None:
    assert fmt.number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (0, "0 s"),
        (2.5e-5, "25.0 µs"),
        (0.1234, "123 ms"),
        (9.1, "9.10 s"),
        (151, "2 min 31 s"),
        (3930, "1 h 05 min"),
    ],
)
def test_duration(seconds: float | None, text: str) -> None:
    assert fmt.duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [(None, "–"), (0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (999_600, "1.00 MB"), (4_938_268, "4.94 MB")],
)
def test_data_size(size: int | None, text: str) -> None:
    assert fmt.data_size(size) == text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.11, "s", "110 ms"),
        (2e6, "bytes", "2.00 MB"),
        (3.25, "deg", "3.25°"),
        (0.021, "share of actions", "2.1%"),
        (30, "frames/s", "30 frames/s"),
        (1.25, "times", "1.25 times"),
        (None, "s", "–"),
    ],
)
def test_quantity(value: float | None, unit: str, text: str) -> None:
    assert fmt.quantity(value, unit) == text


def test_differences_carry_their_sign() -> None:
    assert (fmt.signed(0.5), fmt.signed(-0.5), fmt.signed(0)) == ("+0.500", "−0.500", "0")
    assert (fmt.signed_percent(0.125), fmt.signed_percent(-0.125)) == ("+12.5%", "−12.5%")
    assert (fmt.points(0.5), fmt.points(-0.05), fmt.points(None)) == ("+50.0 points", "−5.0 points", "–")


@pytest.mark.parametrize(
    ("iso", "text"),
    [
        ("2031-02-03T04:05:06+01:00", "2031-02-03 03:05:06 UTC"),
        ("2031-02-03T04:05:06", "2031-02-03 04:05:06"),
        ("yesterday", "yesterday"),
        (None, "–"),
    ],
)
def test_moment(iso: str | None, text: str) -> None:
    assert fmt.moment(iso) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "yes"),
        (None, "–"),
        (5e-4, "0.0005"),
        (2_000_000_000, "2,000,000,000"),
        ([], "none"),
        ({"a": [1, 2]}, "a: 1, 2"),
    ],
)
def test_plain(value: Any, text: str) -> None:
    assert fmt.plain(value) == text


def test_machine_with_little_known() -> None:
    assert fmt.machine(Machine()) == "unknown processor · no GPU"
    assert fmt.machine(Machine(cpu="X", cores=1, gpus=[Gpu(name="G")])) == "X · 1 core · G"
