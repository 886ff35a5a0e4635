"""Coverage from the JSON that coverage.py writes, held against the gate in pyproject.toml."""

from __future__ import annotations

import tomllib
from collections import defaultdict
from pathlib import Path

from zk0.files import read_json
from zk0.testing.records import Coverage, Covered, TestingError

GATE = 0.8
_LEAST = 15


def read_gate(root: Path) -> float:
    """The share that ``make test`` asks for too: ``fail_under`` in pyproject.toml, or 80%."""
    file = root / "pyproject.toml"
    content = tomllib.loads(file.read_text()) if file.is_file() else {}
    percent = content.get("tool", {}).get("coverage", {}).get("report", {}).get("fail_under")
    return GATE if percent is None else float(percent) / 100


def read_coverage(path: Path, gate: float) -> Coverage:
    """Sum up modules by package, the folder at the top of their path.

    Args:
        path: What ``coverage json`` wrote.
        gate: Least share, for the total and for every package.

    Raises:
        TestingError: It is missing, is no coverage report, or measured nothing.
    """
    try:
        files = read_json(path)["files"]
        modules = [
            Covered(name=name, lines=file["summary"]["num_statements"], covered=file["summary"]["covered_lines"])
            for name, file in files.items()
        ]
    except FileNotFoundError as error:
        raise TestingError(f"{path} is missing: no coverage was measured; see the unit tests") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TestingError(f"{path} is not what `coverage json` writes: {error!r}") from error
    if not any(module.lines for module in modules):
        raise TestingError(
            f"{path} covers no line: [tool.coverage.run] source in pyproject.toml names nothing that ran"
        )
    grouped: dict[str, list[Covered]] = defaultdict(list)
    for module in modules:
        grouped[_package(module.name)].append(module)
    least = sorted((m for m in modules if m.covered < m.lines), key=lambda m: (m.share, -m.lines, m.name))
    return Coverage(
        gate=gate,
        total=_sum("total", modules),
        packages=tuple(_sum(name, parts) for name, parts in sorted(grouped.items())),
        least=tuple(least[:_LEAST]),
    )


def _package(module: str) -> str:
    path = Path(module)
    # A module outside the project has an absolute path, whose top says nothing.
    return path.parent.name if path.is_absolute() else path.parts[0]


def _sum(name: str, parts: list[Covered]) -> Covered:
    return Covered(name=name, lines=sum(p.lines for p in parts), covered=sum(p.covered for p in parts))


def judge_coverage(coverage: Coverage) -> str:
    """Coverage in a sentence.

    Raises:
        TestingError: The total or a package is below the gate; names the least covered modules.
    """
    parts = ", ".join(f"{part.name} {part.share:.1%}" for part in (coverage.total, *coverage.packages))
    if coverage.below:
        names = ", ".join(part.name for part in coverage.below)
        least = "\n".join(f"{module.name} {module.share:.1%}" for module in coverage.least)
        raise TestingError(f"below the gate of {coverage.gate:.0%}: {names} ({parts}); least covered:\n{least}")
    return parts
