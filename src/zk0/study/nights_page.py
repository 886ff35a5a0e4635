"""The study of nights on docs/RESULTS.md: verdicts, tables, and success by night as a plot."""

from __future__ import annotations

from pathlib import Path
from statistics import mean

from matplotlib.figure import Figure

from zk0.reporting.format import machine
from zk0.study.nights_store import WEEK, NightsFolder
from zk0.study.nights_tables import NightsResult, decisions_table, nights_table, tasks_table, verdicts
from zk0.study.results_store import STUDIES
from zk0.study.tables import markdown
from zk0.svg import save_svg

PLOT = "nights.svg"
_COLOURS = {"champion": "#2f7fd6", "from base": "#8a94a6", "pooled": "#3a9d78"}
_LABELS = {"champion": "champion", "from base": "federated from the base", "pooled": "pooled from the base"}
_MARKS = {"promoted": ("^", "#2f7fd6"), "refused": ("x", "#c4577a")}
_ABOUT = """Seven nights of the nightly run on a world that changes: each night starts from the champion, trains on what
owners have recorded by then, and the gate decides on scenes of its own. What is shown was met on other scenes, on all
owners' tasks, as an arm is driven. Beside the champion stand a federation from the base and training in one place from
the base, each on the night's data and with as many steps as the night took; the liar lies to both federations, and
training in one place has none. A week's seed decides everything: recordings, splits, batches and noise."""


def nights_section(root: Path, images: Path) -> tuple[list[str], list[Path]]:
    """Paragraphs and the plot, of which the page knows where it lies; nothing while no week is whole.

    Args:
        root: Project folder.
        images: Where plots go, below ``docs``.
    """
    folder = NightsFolder(root / STUDIES / "nights")
    if not (folder.folder / WEEK).exists() or not (result := NightsResult.read(folder)).weeks:
        return [], []
    plot = root / images / PLOT
    write_nights(plot, result)
    parts = [
        "## Nights",
        _ABOUT,
        "\n".join(f"- {sentence}" for sentence in verdicts(result)),
        f"![Success by night]({(images / PLOT).relative_to('docs')})",
        markdown(*nights_table(result)),
        "### By task",
        markdown(*tasks_table(result)),
        "### Every decision",
        markdown(*decisions_table(result)),
        _how(result),
    ]
    return parts, [plot]


def _how(result: NightsResult) -> str:
    record, pieces = result.record, [piece for week in result.weeks.values() for piece in week]
    first, count = record.scenes
    lacking = len(record.files) - len(result.weeks)
    spent = sum(value for piece in pieces for name, value in piece.seconds.items() if name in _COUNTED) / 3600
    return (
        f"Run by `{record.command}`: seeds {', '.join(map(str, result.weeks))}; scenes {first} to {first + count - 1} "
        f"of every task; {spent:.1f} hours, {min(piece.created for piece in pieces)[:10]} to "
        f"{max(piece.created for piece in pieces)[:10]}, on "
        f"{'; '.join(sorted({machine(piece.machine) for piece in pieces}))}."
        + (f" **{lacking} weeks are still to be made.**" if lacking else "")
    )


_COUNTED = ("night", "from base", "pooled", "judge")


def write_nights(path: Path, result: NightsResult) -> None:
    """Success by night: the champion's and, of the nights that trained, what else their data could give.

    Args:
        path: The SVG file.
        result: At least one whole week.
    """
    figure = Figure(figsize=(8.6, 4.6), layout="constrained")  # inches
    axes = figure.subplots()
    nights = range(len(result.record.nights) + 1)
    for model, colour in _COLOURS.items():
        known = [(night, rate) for night in nights if (rate := result.rate(night, model))]
        values = [rate.value for _, rate in known]
        reach = [[r.value - r.low for _, r in known], [r.high - r.value for _, r in known]]
        line = "-" if model == "champion" else "--"
        axes.errorbar(
            [n for n, _ in known], values, yerr=reach, fmt=f"o{line}", capsize=3, color=colour, label=_LABELS[model]
        )
    for outcome, (shape, colour) in _MARKS.items():
        made = [
            (piece.night, mean(value for task in piece.successes["tonight"].values() for value in task.values()))
            for week in result.weeks.values()
            for piece in week[1:]
            if piece.outcome == outcome
        ]
        if made:
            axes.scatter(
                [n for n, _ in made],
                [v for _, v in made],
                marker=shape,
                color=colour,
                s=44,
                zorder=3,
                label=f"{outcome}, one seed",
            )
    names = ["before", *(f"{night.number}\n{_wrapped(night.about)}" for night in result.record.nights)]
    axes.set_xticks(list(nights), names, fontsize=7)
    axes.set(ylabel="success on all owners' tasks", ylim=(0, 1))
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, loc="lower right", fontsize=8)
    save_svg(figure, path)


def _wrapped(words: str, width: int = 15) -> str:
    lines: list[str] = []
    for word in words.split():
        if lines and len(lines[-1]) + len(word) < width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return "\n".join(lines)
