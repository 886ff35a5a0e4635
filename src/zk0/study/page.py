"""docs/RESULTS.md, made from the studies' pieces: tables, plots, aims, and how each figure came about."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from zk0.digests import RESULTS_VERSION
from zk0.errors import StageError
from zk0.evaluation.paired import Difference
from zk0.files import write_text
from zk0.records.results import Role
from zk0.reporting.format import machine
from zk0.study import rooms_tables, tables
from zk0.study.arms import FEDERATED
from zk0.study.nights_page import nights_section
from zk0.study.plots import write_curves, write_differences, write_rates
from zk0.study.probe_page import probe_section
from zk0.study.results import ArmResult, StudyResult
from zk0.study.results_store import RECORD, STUDIES, StudyFolder
from zk0.study.studies import RECIPES
from zk0.study.tables import MARGIN, comparison_verdicts, robustness_verdicts

PAGE = Path("docs/RESULTS.md")
IMAGES = Path("docs/images/results")
NOTES = STUDIES / "NOTES.md"

_HEAD = """# Results

Generated from the pieces in [results/studies](../results/studies) by `zk0 study page`; do not edit.
[comparison.md](comparison.md) says what is compared, and how.

Success is closed loop in simulation, on scenes that are the same for every arm. Intervals are 95%, clustered by
training seed and scene; differences are paired. A held-out loss is in its model's own normalisation: it can be compared
between the pooled and the federated arms, which share one, and not with the base's or a site's alone. Seconds are those
of one training seed; a federation's sites share one machine here."""

_AXES: dict[str, tuple[str, Callable[[ArmResult], float]]] = {
    "training episodes, all sites": ("episodes", lambda found: found.average(lambda piece: piece.episodes)),
    "optimiser steps": ("steps", lambda found: found.average(lambda piece: piece.steps)),
    "trainable parameters": ("trainable", lambda found: found.average(lambda piece: piece.trainable)),
}
Section = tuple[list[str], list[Path]]


def write_page(root: Path) -> list[Path]:
    """Write the page and its plots, and remove plots that nothing refers to any more.

    Args:
        root: Project folder.

    Returns:
        All files written; the page is the last.

    Raises:
        StageError: No study was run, or a file of one is damaged.
    """
    folders = [StudyFolder(path.parent) for path in sorted((root / STUDIES).glob(f"*/{RECORD}"))]
    results = [StudyResult.read(folder) for folder in folders]
    results = [result for result in results if result.arms and not result.record.quick]
    results.sort(key=lambda result: list(RECIPES).index(result.record.name))
    others = [make(root, IMAGES) for make in (nights_section, probe_section)]
    if not results and not any(text for text, _ in others):
        raise StageError(f"{root / STUDIES} holds no piece of any study; `zk0 study comparison` makes them")
    parts, written = [_HEAD, *_state(results)], list[Path]()
    for text, files in [*(section(root, result) for result in results), *others]:
        parts += text
        written += files
    if (root / NOTES).exists():
        parts += ["## What did not work", (root / NOTES).read_text().strip()]
    for stale in set((root / IMAGES).glob("*.svg")) - set(written):
        stale.unlink()
    write_text(root / PAGE, "\n\n".join(parts))
    return [*written, root / PAGE]


def _state(results: list[StudyResult]) -> list[str]:
    """Which figures are of an earlier state of zk0."""
    versions = sorted({result.record.results_version for result in results})
    if versions in ([], [RESULTS_VERSION]):
        return []
    old = [f"{n}" for n in versions if n != RESULTS_VERSION]
    told = [f"`{r.record.name}`" for r in results if r.record.results_version != RESULTS_VERSION]
    return [
        f"**Figures of an earlier state.** {', '.join(told)}: results version {' and '.join(old)}, before the changes "
        f"that made it {RESULTS_VERSION} ([comparison.md](comparison.md#pieces) says which). They stand as they were "
        "measured; run again they would differ."
    ]


def section(root: Path, result: StudyResult) -> Section:
    """One study's paragraphs, and the plots they show."""
    kinds: dict[str, Callable[[Path, StudyResult], Section]] = {
        "comparison": _comparison,
        "personalisation": _personalisation,
        "robustness": _robustness,
        "robustness-confirmation": _robustness,
        "privacy": _privacy,
        "privacy-many": _privacy,
        "feasibility": _feasibility,
        "rooms": _rooms,
    }
    body, files = kinds[result.record.name](root, result)
    return [f"## {result.record.title}", result.record.about, *body, _how(result)], files


def _comparison(root: Path, result: StudyResult) -> Section:
    parts, files = [_listed(comparison_verdicts(result)), tables.markdown(*tables.arms_table(result))], list[Path]()
    parts += ["### By task", tables.markdown(*tables.task_table(result))]
    parts.append(_every_arm(root, result, "Every arm", files))
    if differences := _differences(result):
        parts += ["### Federated less every other arm", tables.markdown(*tables.difference_table(result))]
        unit = "share of success" if result.closed_loop else "degrees of error"
        parts.append(_plot(root, result, "differences", "Federated less every other arm, seen tasks", files))
        margin = MARGIN if result.closed_loop else None
        write_differences(files[-1], differences, f"federated is better by ({unit})", margin)
    parts.append(_arms(result))
    return [part for part in parts if part], files


def _differences(result: StudyResult) -> dict[str, Difference]:
    if FEDERATED not in result.arms:
        return {}
    seen = result.arms[FEDERATED].tasks("site")
    gaps = {name: result.advantage(FEDERATED, name, seen) for name in result.arms if name != FEDERATED}
    return {name: gap for name, gap in gaps.items() if gap is not None}


def _personalisation(_root: Path, result: StudyResult) -> Section:
    return [tables.markdown(*tables.personal_table(result)), _arms(result)], []


def _robustness(root: Path, result: StudyResult) -> Section:
    files: list[Path] = []
    parts = [_listed(robustness_verdicts(result)), tables.markdown(*tables.attack_table(result))]
    parts.append(_every_arm(root, result, "Every strategy under every attack", files))
    return [part for part in parts if part], files


def _privacy(root: Path, result: StudyResult) -> Section:
    files: list[Path] = []
    plot = _every_arm(root, result, "Every budget", files)
    return [tables.markdown(*tables.privacy_table(result)), plot, _arms(result)], files


def _axis(result: StudyResult) -> str:
    return "success rate" if result.closed_loop else "action error (degrees)"


def _every_arm(root: Path, result: StudyResult, title: str, files: list[Path]) -> str:
    """A plot of every arm's rates, on the seen tasks and the unseen."""
    groups: dict[str, Role] = {"seen tasks": "site", "unseen task": "unseen"}
    rates = {
        label: {arm: result.rate(arm, found.tasks(role)) for arm, found in result.arms.items()}
        for label, role in groups.items()
    }
    told = _plot(root, result, "rates", title, files)
    write_rates(files[-1], {label: found for label, found in rates.items() if any(found.values())}, _axis(result))
    return told


def _feasibility(root: Path, result: StudyResult) -> Section:
    """A curve for each axis along which more than one point was run, the others held in the middle."""
    points = {
        name: {label: figure(found) for label, (_, figure) in _AXES.items()} for name, found in result.arms.items()
    }
    parts, files = [tables.markdown(*tables.arms_table(result))], list[Path]()
    for label, (stem, _) in _AXES.items():
        curve = _longest(points, label)
        rates = {name: result.rate(name, result.arms[name].tasks("site")) for name in curve}
        known = [(points[name][label], rate) for name, rate in rates.items() if rate]
        if len(known) > 1:
            parts.append(_plot(root, result, stem, label, files))
            held = ", ".join(f"{points[curve[0]][other]:,.0f} {other}" for other in points[curve[0]] if other != label)
            write_curves(files[-1], {"": known}, label, _axis(result), held)
    return parts, files


def _rooms(root: Path, result: StudyResult) -> Section:
    files: list[Path] = []
    names, every = rooms_tables.owners(result), rooms_tables.ways(result)
    rates = {"owners' tasks": {way: result.rate(whose, names) for way, whose in every.items()}}
    parts = [_listed(rooms_tables.rooms_verdicts(result)), tables.markdown(*rooms_tables.owners_table(result))]
    parts.append(_plot(root, result, "rates", "What every way gives the owners", files))
    write_rates(files[-1], rates, _axis(result))
    parts += ["### Federated less every other way", tables.markdown(*rooms_tables.gaps_table(result))]
    parts += ["### Who joins late", tables.markdown(*rooms_tables.newcomers_table(result))]
    for site in rooms_tables.newcomers(result):
        labels = {"from the global model": True, "from the base": False}
        curves = {label: rooms_tables.curve(result, site, start) for label, start in labels.items()}
        parts.append(_plot(root, result, site, f"{site}, by own episodes", files))
        write_curves(files[-1], curves, "own episodes", _axis(result), site, doubling=False)
    parts.append(_arms(result))
    return [part for part in parts if part], files


def _longest(points: dict[str, dict[str, float]], label: str) -> list[str]:
    """The largest set of arms that differ in nothing but this."""
    groups: dict[tuple[float, ...], list[str]] = {}
    for name, found in points.items():
        groups.setdefault(tuple(value for key, value in found.items() if key != label), []).append(name)
    return max(groups.values(), key=len)


def _arms(result: StudyResult) -> str:
    return "\n".join(f"- `{found.arm.name}`: {found.arm.about}" for found in result.arms.values())


def _listed(sentences: list[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)


def _plot(root: Path, result: StudyResult, kind: str, title: str, files: list[Path]) -> str:
    """A reference to a plot; its file comes last in ``files``."""
    files.append(root / IMAGES / f"{result.record.name}-{kind}.svg")
    return f"![{title}](images/results/{files[-1].name})"


def _how(result: StudyResult) -> str:
    """Command, seeds, scenes, machine and time."""
    record, pieces = result.record, list(result.pieces())
    first, count = record.scenes
    seeds = ", ".join(map(str, record.seeds))
    scenes = f"scenes {first} to {first + count - 1} of every task" if count else "held-out episodes, no simulator"
    machines = sorted({machine(piece.machine) for piece in pieces})
    hours = sum(piece.train_s + piece.evaluate_s for piece in pieces) / 3600
    lacking = f" **{result.missing} pieces are still to be made.**" if result.missing else ""
    return (
        f"Run by `{record.command}`: training seeds {seeds}; {scenes}; {len(pieces)} pieces, {hours:.1f} hours, "
        f"{min(piece.created for piece in pieces)[:10]} to {max(piece.created for piece in pieces)[:10]}, on "
        f"{'; '.join(machines)}.{lacking}"
    )
