"""Verdicts, tables and the plot of the study of nights, from pieces that are made up."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from nights_params import WEEK
from rich.console import Console

from zk0.digests import RESULTS_VERSION
from zk0.params import parse_params
from zk0.study.nights_store import NightPiece, NightRecord, NightsFolder, WeekRecord
from zk0.study.nights_tables import NightsResult, decisions_table, nights_table, overview, tasks_table, verdicts
from zk0.study.page import write_page
from zk0.study.week import week_of

SCENES = range(200_000, 200_040)
Made = Callable[..., NightsFolder]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Two weeks: by night what share of scenes tonight's model solves, and what was decided."""
    week = week_of(parse_params(WEEK), 1)

    def successes(share: float, changes: dict[str, float]) -> dict[str, dict[int, bool]]:
        solved = {task: round(changes.get(task, share) * len(SCENES)) for task in week.tasks}
        return {task: {scene: n < solved[task] for n, scene in enumerate(SCENES)} for task in week.tasks}

    def make(shares: list[float], decided: str, **last: float) -> NightsFolder:
        folder = NightsFolder(tmp_path / "results" / "studies" / "nights")
        files = {seed: tuple(f"seed{seed}-night{n}.json" for n in range(8)) for seed in (1, 2)}
        nights = tuple(NightRecord(**asdict(night)) for night in week.nights)
        tasks = {task: week.last_with(task) for task in week.tasks}
        folder.describe(
            WeekRecord(
                command="zk0 study nights",
                quick=False,
                scenes=(SCENES.start, len(SCENES)),
                nights=nights,
                tasks=tasks,
                files=files,
                params={},
                results_version=RESULTS_VERSION,
            )
        )
        words = {"p": "promoted", "r": "refused", "u": "unchanged"}
        for seed, names in files.items():
            for number, (share, letter) in enumerate(zip(shares, "u" + decided, strict=True)):
                told: dict[str, Any] = {"outcome": words[letter], "seconds": {"night": 9.0}}
                if number and letter != "u":
                    found = successes(share, last if number == 7 else {})
                    told |= {"run": "r", "episodes": {"red-a": 5}, "version": number, "gain": (0.1, 0.02)}
                    told |= {"reasons": ("it is not safe",) if letter == "r" else (), "bytes": 10**6}
                    told |= {"successes": {"tonight": found, "from base": found, "pooled": found}}
                elif not number:
                    told["successes"] = {"base": successes(share, {})}
                about = {"seed": seed, "night": number, "digest": "d", "created": "2026-11-29", "machine": {}}
                folder.write(names[number], NightPiece.model_validate(about | told))
        return folder

    return make


GOOD = [0.1, 0.3, 0.5, 0.5, 0.6, 0.5, 0.7, 0.9]


def reached(folder: NightsFolder) -> list[bool]:
    return [sentence.startswith("**Reached.**") for sentence in verdicts(NightsResult.read(folder))]


def test_a_good_week_reaches_every_aim(made: Made) -> None:
    folder = made(GOOD, "ppuprpp")

    assert reached(folder) == [True] * 7
    said = "\n".join(verdicts(NightsResult.read(folder)))
    assert "nights 2 and 4 and 6 and 7 (seed 1)" in said and "at most 9.0 s a night" in said


def test_a_promotion_that_the_final_scenes_call_a_mistake(made: Made) -> None:
    folder = made([0.1, 0.9, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3], "ppurrrr")

    told = verdicts(NightsResult.read(folder))
    assert reached(folder) == [True, False, False, True, True, True, False]
    assert "2 of 4: night 2, seed 1: " in told[2] and "the most is 60 points" in told[6]


def test_a_lie_that_costs_and_a_task_that_is_forgotten(made: Made) -> None:
    folder = made([0.1, 0.5, 0.8, 0.8, 0.4, 0.8, 0.9, 0.9], "ppupppp", **{"sim:press-magenta-disc": 0.1})

    found = reached(folder)
    assert (found[3], found[4], found[5], found[6]) == (True, False, True, False)
    assert "sim:press-magenta-disc with seed 1, since night 4" in verdicts(NightsResult.read(folder))[6]


def test_tables_tell_nights_decisions_and_tasks(made: Made) -> None:
    result = NightsResult.read(made(GOOD, "ppuprpp"))

    _, by_night = nights_table(result)
    assert [row[0][0] for row in by_night] == ["b", *"1234567"]
    assert by_night[3][3].startswith("50%") and by_night[3][4] == "–" and by_night[5][3].startswith("60%")
    _, decisions = decisions_table(result)
    assert len(decisions) == 14 and decisions[4][2:4] == ["refused, version 5", "+10.0, at least +2.0"]
    assert decisions[4][5] == "it is not safe" and decisions[4][4].startswith("−10.0")
    shares = [f"{share}%" for share in (10, 30, 50, 50, 60, 60, 70, 90)]
    assert tasks_table(result)[1][0] == ["sim:push-red-cube-left", *shares]


def test_the_page_has_them_and_says_what_lacks(made: Made, tmp_path: Path) -> None:
    folder = made(GOOD, "ppuprpp")
    (folder.folder / "pieces" / "seed2-night5.json").unlink()

    written = write_page(tmp_path)

    page = (tmp_path / "docs" / "RESULTS.md").read_text()
    assert "## Nights" in page and "**1 weeks are still to be made.**" in page and "![Success by night]" in page
    assert tmp_path / "docs/images/results/nights.svg" in written
    shown = overview(folder)
    assert str(shown.caption).splitlines()[-1] == "1 weeks are still to be made"
    Console(width=80, file=(terminal := io.StringIO())).print(shown)
    assert terminal.getvalue().count("%") == 1 + 7 + 6 * 3 and "…" not in terminal.getvalue()
