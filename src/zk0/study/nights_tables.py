"""What the study of nights came to: verdicts that were fixed before it ran, and tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import mean

from rich import box
from rich.table import Table

from zk0.console import folded_table
from zk0.evaluation.outcomes import Outcomes
from zk0.evaluation.paired import Difference, Estimate, difference, rate
from zk0.reporting import format as fmt
from zk0.study.nights_store import NightPiece, NightsFolder, Successes, WeekRecord, champion_after, outcomes
from zk0.study.tables import Rows, difference_text, estimate_text, mark, told_gap

MOST_LOST = 0.10
MOST_SECONDS = 60.0
LEVEL = 0.05


@dataclass(frozen=True)
class NightsResult:
    """The study as far as it was run.

    Attributes:
        record: What belongs together.
        weeks: Training seed to its nights, from night 0 on; whole weeks only.
    """

    record: WeekRecord
    weeks: dict[int, list[NightPiece]]

    @classmethod
    def read(cls, folder: NightsFolder) -> NightsResult:
        """From the study's folder.

        Raises:
            StageError: It was not run, or a file is damaged.
        """
        record = folder.record()
        weeks = {seed: folder.made(files) for seed, files in record.files.items()}
        return cls(record, {seed: week for seed, week in weeks.items() if len(week) == len(record.files[seed])})

    @property
    def tasks(self) -> list[str]:
        """The owners' tasks."""
        return list(self.record.tasks)

    def of(self, figure: Callable[[list[NightPiece]], Successes]) -> Outcomes:
        """A figure of every week, on all owners' tasks."""
        return outcomes({seed: figure(week) for seed, week in self.weeks.items()}, self.tasks)

    def rate(self, night: int, model: str) -> Estimate | None:
        """Success on final scenes.

        Args:
            night: Which; 0 is before the first.
            model: ``champion``, or a model of the night; None where the night made none.
        """
        if model == "champion":
            return rate(self.of(lambda week: champion_after(week, night)))
        if any(model not in week[night].successes for week in self.weeks.values()):
            return None
        return rate(self.of(lambda week: week[night].successes[model]))

    def change(self, week: list[NightPiece], before: int, after: int) -> Difference:
        """By how much a week's champion after one night is better than after another."""
        seed = week[0].seed
        new, old = (outcomes({seed: champion_after(week, n)}, self.tasks) for n in (after, before))
        return difference(new, old)

    def losses(self, week: list[NightPiece]) -> dict[str, float]:
        """Task to what the champion lost on it until the week's end, share of scenes, since its night of the record."""
        last = champion_after(week, len(week) - 1)
        return {
            task: _mean(champion_after(week, night)[task]) - _mean(last[task])
            for task, night in self.record.tasks.items()
        }


def _mean(scenes: dict[int, bool]) -> float:
    return mean(scenes.values())


def verdicts(result: NightsResult) -> list[str]:
    """The study's aims, each with what was found."""
    weeks, nights = result.weeks, result.record.nights
    last, count = len(nights), len(result.weeks)
    later = {seed: [p.night for p in week[2:] if p.outcome == "promoted"] for seed, week in weeks.items()}
    listed = ", ".join(f"{' and '.join(map(str, found)) or 'none'} (seed {seed})" for seed, found in later.items())
    found = [f"{mark(all(later.values()))} After night 1 a model is promoted in every week: nights {listed}."]
    gains = {seed: result.change(week, 1, last) for seed, week in weeks.items()}
    better = sum(gain.p_better < LEVEL for gain in gains.values())
    each = ", ".join(told_gap(gain) for gain in gains.values())
    found.append(
        f"{mark(better == count)} The champion of night {last} is better than that of night 1 in every week "
        f"({better} of {count}): {each}."
    )
    changes = list(_promotions(result))
    wrong = [
        f"night {n}, seed {seed}: {told_gap(gain, worse=True)}" for seed, n, gain in changes if gain.p_worse < LEVEL
    ]
    found.append(
        f"{mark(not wrong)} No promotion is a mistake by the final scenes: {len(wrong)} of {len(changes)}"
        f"{': ' if wrong else ''}{'; '.join(wrong)}."
    )
    for night in nights:
        if night.event in ("spoil", "lie"):
            cost = {seed: result.change(week, night.number - 1, night.number) for seed, week in weeks.items()}
            each = "; ".join(told_gap(gain, worse=True) for gain in cost.values())
            fine = all(gain.p_worse >= LEVEL for gain in cost.values())
            found.append(f"{mark(fine)} The night on which {night.about} costs the champion nothing: {each}.")
        elif night.event == "nothing":
            pieces = [week[night.number] for week in weeks.values()]
            longest = max(piece.seconds["night"] for piece in pieces)
            fine = all(piece.outcome == "unchanged" for piece in pieces) and longest < MOST_SECONDS
            found.append(f"{mark(fine)} Where nothing is new, nothing is trained: at most {longest:.1f} s a night.")
    lost = {(seed, task): share for seed, week in weeks.items() for task, share in result.losses(week).items()}
    (seed, task), most = max(lost.items(), key=lambda one: one[1])
    found.append(
        f"{mark(most <= MOST_LOST)} No owner's task falls by more than {MOST_LOST * 100:.0f} points over the week: the "
        f"most is {most * 100:.0f} points, {task} with seed {seed}, since night {result.record.tasks[task]}."
    )
    return found


def _promotions(result: NightsResult) -> Iterator[tuple[int, int, Difference]]:
    """Seed, night, and what it changed by the final scenes."""
    for seed, week in result.weeks.items():
        for piece in week[1:]:
            if piece.outcome == "promoted":
                yield seed, piece.night, result.change(week, piece.night - 1, piece.night)


def nights_table(result: NightsResult) -> tuple[list[str], Rows]:
    """Night by night, over all weeks."""
    head = [
        "night",
        "sites",
        "episodes",
        "champion",
        "tonight's",
        "from the base",
        "pooled",
        "promoted",
        "time",
        "bytes",
    ]
    rows = []
    for number in range(len(result.record.nights) + 1):
        pieces = [week[number] for week in result.weeks.values()]
        about = f"{number}: {result.record.nights[number - 1].about}" if number else "before: the base"
        promoted = sum(piece.outcome == "promoted" for piece in pieces)
        trained = [piece for piece in pieces if piece.run]
        rows.append(
            [
                about,
                fmt.count(mean(len(piece.episodes) for piece in trained)) if trained else fmt.NOTHING,
                fmt.count(mean(sum(piece.episodes.values()) for piece in trained)) if trained else fmt.NOTHING,
                *(estimate_text(result.rate(number, m), True) for m in ("champion", "tonight", "from base", "pooled")),
                f"{promoted} of {len(pieces)}" if trained else fmt.NOTHING,
                fmt.duration(mean(piece.seconds["night"] for piece in pieces)) if number else fmt.NOTHING,
                fmt.data_size(mean(piece.bytes for piece in pieces)) if trained else fmt.NOTHING,
            ]
        )
    return head, rows


def decisions_table(result: NightsResult) -> tuple[list[str], Rows]:
    """Every decision: what the gate saw, why, and what the final scenes say of it."""
    head = ["seed", "night", "decision", "gain at the gate", "final scenes: new less old champion", "reasons"]
    rows = []
    for seed, week in result.weeks.items():
        for piece in week[1:]:
            known = champion_after(week, piece.night - 1)
            new, old = (
                outcomes({seed: found}, result.tasks) for found in (piece.successes.get("tonight", known), known)
            )
            gain = f"{piece.gain[0] * 100:+.1f}, at least {piece.gain[1] * 100:+.1f}" if piece.gain else fmt.NOTHING
            left_out = [f"{site} left out: {why}" for site, why in piece.unfit.items()]
            rows.append(
                [
                    f"{seed}",
                    f"{piece.night}",
                    piece.outcome + (f", version {piece.version}" if piece.version else ""),
                    gain.replace("-", fmt.MINUS),
                    difference_text(difference(new, old), True) if piece.run else fmt.NOTHING,
                    "; ".join([*piece.reasons, *left_out]) or fmt.NOTHING,
                ]
            )
    return head, rows


def tasks_table(result: NightsResult) -> tuple[list[str], Rows]:
    """The champion's success by task, night by night, over all weeks."""
    nights = range(len(result.record.nights) + 1)
    head = ["champion of night", *map(str, nights)]
    rows = [
        [task, *(f"{mean(_mean(champion_after(w, n)[task]) for w in result.weeks.values()):.0%}" for n in nights)]
        for task in result.tasks
    ]
    return head, rows


def overview(folder: NightsFolder) -> Table:
    """The nights, for a terminal."""
    result = NightsResult.read(folder)
    lacking = len(result.record.files) - len(result.weeks)
    head, rows = nights_table(result) if result.weeks else ([], [])
    shown = [[f"{place}", *row[3:8]] for place, row in enumerate(rows)]  # as much as 80 columns show
    caption = [f"night {night.number}: {night.about}" for night in result.record.nights]
    caption += [f"{lacking} weeks are still to be made"] if lacking else []
    told = {"title": "Nights", "caption": "\n".join(caption), "caption_justify": "left", "box": box.SIMPLE}
    return folded_table(["night", *head[3:8]], shown, **told)
