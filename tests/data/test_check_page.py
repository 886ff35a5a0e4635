"""`zk0 data check` on a recording: a page that needs nothing else, and a few lines."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from teleoperated import record
from typer.testing import CliRunner

from zk0.cli.app import app

EPISODES = 6


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound one, and one with a frozen, a black, a doubled and a marked-up episode."""
    folder = tmp_path_factory.mktemp("teleoperated")
    record(EPISODES).write(folder / "sound")
    takes = record(EPISODES)
    takes.takes[1].pictures[20:60] = takes.takes[1].pictures[20]
    takes.takes[3].pictures[:] = 0
    takes.takes[4] = takes.takes[2]
    takes.takes[5].sentence = "<script src='https://example.org/x.js'></script> put it away"
    takes.write(folder / "spoiled")
    return folder


def check(folder: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """What it prints and the page."""
    monkeypatch.chdir(root)
    done = CliRunner().invoke(app, ["data", "check", str(folder)])
    assert done.exit_code == 0, done.output
    return done.output, (root / "results/data-check/mine.html").read_text()


def test_a_sound_recording(recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said, page = check(recordings / "sound", tmp_path, monkeypatch)

    assert f"no remark on {EPISODES} episodes; look at them all: results/data-check/mine.html" in said
    assert page.count("<svg") == EPISODES
    assert page.count("data:image/jpeg") == 3 * EPISODES
    assert 'id="snippet"' not in page


def test_faults_survive_the_encoder(recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said, page = check(recordings / "spoiled", tmp_path, monkeypatch)

    rows = dict(re.findall(r'id="episode-(\d+)">(.*?)</li>\s*(?=<li class="card|</ol>)', page, re.DOTALL))
    kinds = {int(episode): re.findall(r'href="#kind-([\w-]+)"', row) for episode, row in rows.items()}
    assert kinds == {0: [], 1: ["frozen"], 2: [], 3: ["dark"], 4: ["doubled"], 5: []}
    assert "leave_out: {mine: [1, 3, 4]}" in page
    assert "remarks on 3 of 6 episodes" in said
    assert all(len(line) <= 80 for line in said[said.index("remarks") :].splitlines())


def test_the_page_loads_nothing(recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = check(recordings / "spoiled", tmp_path, monkeypatch)[1]

    assert "<script src" not in page and "&lt;script src" in page
    assert not re.findall(r'(?:src|href)="(?!#|data:image/jpeg)', page)
    assert "default-src 'none'" in page
