"""Numbers as people read them: three significant digits, thousands, units; a dash for nothing.

>>> number(0.51234), number(12345.6), number(4.1e-4), number(None)
('0.512', '12,300', '4.10 × 10⁻⁴', '–')
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from zk0.records.base import Machine

NOTHING = "–"
MINUS = "\N{MINUS SIGN}"
_SUPERSCRIPTS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
_BYTE_UNITS = ("B", "kB", "MB", "GB", "TB")


def number(value: float | None, digits: int = 3) -> str:
    """Round to significant digits; very small or large values get a power of ten."""
    if value is None:
        return NOTHING
    if not math.isfinite(value):
        return "not finite"
    if value == 0:
        return "0"
    sign = MINUS if value < 0 else ""
    mantissa, power = f"{abs(value):.{digits - 1}e}".split("e")
    exponent = int(power)
    if not -3 <= exponent < 9:
        return f"{sign}{mantissa} × 10{str(exponent).translate(_SUPERSCRIPTS)}"
    decimals = max(0, digits - 1 - exponent)
    return f"{sign}{float(f'{mantissa}e{exponent}'):,.{decimals}f}"


def count(value: float | None) -> str:
    """A whole number with thousands separators, exact."""
    return NOTHING if value is None else f"{round(value):,}".replace("-", MINUS)


def signed(value: float | None) -> str:
    """A difference, with its sign even when positive."""
    if value is None:
        return NOTHING
    return f"+{number(value)}" if value > 0 else number(value)


def percent(share: float | None) -> str:
    """A share of one as a percentage, to a tenth of a point."""
    return NOTHING if share is None else f"{share * 100:.1f}%".replace("-", MINUS)


def signed_percent(share: float | None) -> str:
    """A relative change, with its sign."""
    return f"+{percent(share)}" if share is not None and share > 0 else percent(share)


def points(share: float | None) -> str:
    """A difference of two rates, in percentage points."""
    if share is None:
        return NOTHING
    return f"{'+' if share > 0 else ''}{share * 100:.1f} points".replace("-", MINUS)


def degrees(value: float | None) -> str:
    """An angle in degrees, with its unit; a dash where there is none."""
    return NOTHING if value is None else f"{number(value)}°"


def data_size(size: float | None) -> str:
    """Bytes in decimal units: 1 MB is a million bytes."""
    if size is None:
        return NOTHING
    value, unit = float(size), 0
    # 999.5 would round up to a fourth digit, so it already belongs to the next unit.
    while abs(value) >= 999.5 and unit < len(_BYTE_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{count(value) if unit == 0 else number(value)} {_BYTE_UNITS[unit]}"


def duration(seconds: float | None) -> str:
    """Seconds as µs, ms, s, minutes or hours, whichever is readable."""
    if seconds is None:
        return NOTHING
    if seconds == 0:
        return "0 s"
    if abs(seconds) < 1e-3:
        return f"{number(seconds * 1e6)} µs"
    if abs(seconds) < 1:
        return f"{number(seconds * 1e3)} ms"
    if abs(seconds) < 60:
        return f"{number(seconds)} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{count(hours)} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def moment(iso: str | None) -> str:
    """An ISO 8601 time in UTC, to the second; text that is no time comes back unchanged."""
    if not iso:
        return NOTHING
    try:
        time = datetime.fromisoformat(iso)
    except ValueError:
        return iso
    # A time without a zone is shown as it stands: guessing one would move it.
    if time.tzinfo is None:
        return f"{time:%Y-%m-%d %H:%M:%S}"
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def quantity(value: float | None, unit: str) -> str:
    """A number with its unit, by the formatter that knows the unit."""
    if value is None:
        return NOTHING
    if unit in {"s", "seconds"}:
        return duration(value)
    if unit in {"B", "bytes"}:
        return data_size(value)
    if unit in {"deg", "°", "degrees"}:
        return degrees(value)
    if unit.startswith("share"):
        return percent(value)
    text = count(value) if float(value).is_integer() and abs(value) < 1e9 else number(value)
    return f"{text} {unit}".rstrip()


def plain(value: Any) -> str:
    """A param or a found value as text: nothing hidden, nothing rounded."""
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {plain(item)}" for key, item in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(plain(item) for item in value) or "none"
    return str(value)


def machine(facts: Machine) -> str:
    """One line on a machine: processor, cores, memory, accelerators, system, Python."""
    parts = [
        facts.cpu or "unknown processor",
        f"{facts.cores} core{'s' if facts.cores != 1 else ''}" if facts.cores else "",
        f"{data_size(facts.memory_bytes)} memory" if facts.memory_bytes else "",
        ", ".join(gpu.name for gpu in facts.gpus) or "no GPU",
        facts.platform or "",
        f"Python {facts.python}" if facts.python else "",
    ]
    return " · ".join(filter(None, parts))
