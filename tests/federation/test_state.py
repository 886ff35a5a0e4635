"""What is remembered of a run, and what of it is kept."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from zk0.errors import StageError
from zk0.federation.history import History, in_brief
from zk0.federation.state import RoundState, Saver, StateFolder
from zk0.records.files import events_so_far, read_lines
from zk0.records.journal import Journal
from zk0.records.run import Event, Round, rows_saved

LOSSES = [0.9, 0.5, 0.7, 0.4, 0.6, 0.4]


def after(number: int) -> RoundState:
    """The state after a round of a run with these losses."""
    rows = tuple(Round(round=n, held_out_loss=loss) for n, loss in enumerate(LOSSES[: number + 1]))
    return RoundState(number, {"w": torch.tensor([float(number), 1.0])}, rows, {"count": 3.0})


def kept(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def test_last_and_best_are_kept(tmp_path: Path) -> None:
    states = StateFolder(tmp_path)
    seen = []
    for number in range(len(LOSSES)):
        states.save(after(number))
        seen.append([int(name[-4:]) for name in kept(tmp_path)])

    assert seen == [[0], [1], [1, 2], [3], [3, 4], [3, 5]]
    assert kept(tmp_path) == ["round-0003", "round-0005"]


def test_state_comes_back_marked_as_resumed(tmp_path: Path) -> None:
    states = StateFolder(tmp_path)
    for number in (1, 2):
        states.save(after(number))

    state = states.load_last()

    assert state is not None
    assert (state.round, state.rounds, state.stats) == (2, after(2).rounds, {"count": 3.0})
    assert state.tensors["w"].tolist() == [2.0, 1.0]
    assert state.resumed == (2,)
    states.save(state)
    assert states.load_last().resumed == (2, 2)  # type: ignore[union-attr]


def test_nothing_saved_is_nothing_to_resume(tmp_path: Path) -> None:
    assert StateFolder(tmp_path / "none").load_last() is None


def test_half_written_round_is_not_seen(tmp_path: Path) -> None:
    """A kill leaves a hidden folder beside the rounds."""
    states = StateFolder(tmp_path)
    states.save(after(1))
    (tmp_path / ".round-0002.x7y").mkdir()

    assert states.load_last().round == 1  # type: ignore[union-attr]


def test_changed_tensors_are_noticed(tmp_path: Path) -> None:
    states = StateFolder(tmp_path)
    states.save(after(1))
    save_file({"w": torch.tensor([1.0, 1.5])}, tmp_path / "round-0001" / "trainable.safetensors")

    with pytest.raises(StageError, match=r"round-0001/trainable\.safetensors has digest .* was saved\. .*: delete"):
        states.load_last()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def another_number(path: Path) -> None:
    path.write_text(path.read_text().replace("0.7", "0.1").replace("3.0", "4.0"))


DAMAGES: list[tuple[str, Callable[[Path], object], str]] = [
    ("trainable.safetensors", cut, "trainable.safetensors is cut short or damaged"),
    ("trainable.safetensors", flip, "trainable.safetensors has digest"),
    ("trainable.safetensors", Path.unlink, "trainable.safetensors is missing"),
    ("optimizer.safetensors", flip, "optimizer.safetensors has digest"),
    ("state.json", cut, "state.json is not valid JSON"),
    ("state.json", lambda path: path.write_text(""), "state.json is not valid JSON"),
    ("state.json", lambda path: path.write_text("[]"), "state.json must hold a mapping"),
    ("state.json", Path.unlink, "state.json is missing"),
    ("state.json", another_number, "state.json is not what was saved"),
    ("../rounds.jsonl", another_number, "rounds.jsonl is not what was saved"),
    ("../rounds.jsonl", cut, "rounds.jsonl is not what was saved"),
    ("../rounds.jsonl", lambda path: path.write_text(path.read_text().replace("0.7", "{")), "is not valid JSON"),
]


@pytest.mark.parametrize(("name", "damage", "told"), DAMAGES)
def test_damage_is_told_and_the_round_before_goes_on(
    tmp_path: Path, name: str, damage: Callable[[Path], object], told: str
) -> None:
    """Round 1 is the best so far, and so it is kept beside round 2."""
    states = StateFolder(tmp_path)
    for number in (1, 2):
        states.save(replace(after(number), optimizer={"m": torch.ones(2)}))
    damage(tmp_path / "round-0002" / name)

    advice = r"Round 1 is kept whole: delete \S+round-0002 to go on from there"
    with pytest.raises(StageError, match=rf"{told}.*{advice}") as error:
        states.load_last()

    assert "\n" not in str(error.value)
    shutil.rmtree(tmp_path / "round-0002")  # as it was told
    assert states.load_last().round == 1  # type: ignore[union-attr]


def test_a_damaged_best_round_is_told_before_the_last_one(tmp_path: Path) -> None:
    states = StateFolder(tmp_path)
    for number in (1, 2):
        states.save(after(number))
    flip(tmp_path / "round-0001" / "trainable.safetensors")

    with pytest.raises(StageError, match=r"Round 1 was the best so far: delete \S+round-\* to begin the run anew"):
        states.load_last()


def test_best_is_the_first_of_equals_and_never_round_0() -> None:
    assert [after(number).best_round for number in range(6)] == [0, 1, 1, 3, 3, 3]


def test_rows_say_which_round_was_best_so_far() -> None:
    assert [row.is_best for row in rows_saved(after(5).rounds, {})] == [False, True, False, True, False, False]


def test_all_of_a_state_comes_back(tmp_path: Path) -> None:
    states = StateFolder(tmp_path)
    whole = replace(
        after(1),
        residual={"w": torch.tensor([0.1, 0.2])},
        optimizer={"momentum/w": torch.tensor([3.0, 4.0])},
        used={0: 1, 2: 0},
    )
    states.save(whole)

    found = states.load(1)

    assert found.residual["w"].tolist() == whole.residual["w"].tolist()
    assert found.optimizer["momentum/w"].tolist() == [3.0, 4.0]
    assert found.used == {0: 1, 2: 0}


# -- a run's rows --------------------------------------------------------------------------------


def row_of(number: int, loss: float) -> Round:
    sites = {f"site-{place}": {"held_out_loss": loss + place, "examples": 8} for place in range(20)}
    return Round.model_validate({"round": number, "held_out_loss": loss, "sites": sites})


def test_a_round_is_written_once_and_its_sites_are_not_kept_in_memory(tmp_path: Path) -> None:
    states, file, seen = StateFolder(tmp_path), tmp_path / "rounds.jsonl", list[bytes]()
    rows = [row_of(number, loss) for number, loss in enumerate(LOSSES)]
    state = RoundState(0, {"w": torch.ones(2)}, (rows[0],), {})
    for row in rows[1:]:
        states.save(state)
        seen.append(file.read_bytes())
        state = replace(state, round=row.round, rounds=(*state.rounds[:-1], in_brief(state.rounds[-1]), row))
    states.save(state)

    assert all(file.read_bytes().startswith(before) for before in seen)
    assert len({(tmp_path / f"round-{number:04d}" / "state.json").stat().st_size for number in (3, 5)}) == 1
    assert [row.round for row in state.rounds if row.sites] == [1, 5]
    assert list(states.rows(state)) == rows
    found = StateFolder(tmp_path).load_last()
    assert found is not None and found.rounds == state.rounds


def test_a_row_whose_state_was_not_written_any_more_makes_way(tmp_path: Path) -> None:
    """The kill came between the two; the round is run again."""
    StateFolder(tmp_path).save(RoundState(1, {}, (row_of(0, 0.9), row_of(1, 0.5)), {}))
    History(tmp_path / "rounds.jsonl").extend((row_of(0, 0.9), row_of(1, 0.5), row_of(2, 0.1)))
    with (tmp_path / "rounds.jsonl").open("a") as stream:
        stream.write('{"round": 3, "held')

    states = StateFolder(tmp_path)
    state = states.load_last()
    assert state is not None and state.round == 1
    states.save(replace(state, round=2, rounds=(*state.rounds, row_of(2, 0.4))))

    again = StateFolder(tmp_path)
    last = again.load_last()
    assert last is not None and list(again.rows(last)) == [row_of(0, 0.9), row_of(1, 0.5), row_of(2, 0.4)]


# -- saving behind the rounds' back --------------------------------------------------------------


def test_states_are_saved_in_order_while_the_caller_goes_on(tmp_path: Path) -> None:
    states, told = StateFolder(tmp_path), list[tuple[int, float]]()

    with Saver(states, lambda state, seconds: told.append((state.round, seconds))) as saver:
        for number in range(3):
            saver.save(replace(after(number), used={0: number}))
            assert saver.used in (None, {0: number - 1}, {0: number})

    assert [number for number, _ in told] == [0, 1, 2] and all(seconds > 0 for _, seconds in told)
    assert saver.used == {0: 2}


def test_save_that_fails_stops_the_rounds(tmp_path: Path) -> None:
    (tmp_path / "states").write_text("a file where a folder should be")

    message = r"a round could not be saved below .*states: .*Earlier rounds are kept"
    with (
        pytest.raises(StageError, match=message),
        Saver(StateFolder(tmp_path / "states"), lambda state, seconds: None) as saver,
    ):
        saver.save(after(0))
        saver.save(after(1))


def test_save_in_progress_is_waited_for_when_the_rounds_fail(tmp_path: Path) -> None:
    states = StateFolder(tmp_path)

    with pytest.raises(KeyboardInterrupt), Saver(states, lambda state, seconds: None) as saver:
        saver.save(after(1))
        raise KeyboardInterrupt

    assert states.load_last().round == 1  # type: ignore[union-attr]


# -- the journal ---------------------------------------------------------------------------------


def test_events_are_written_and_told(tmp_path: Path) -> None:
    told: list[Event] = []
    path = tmp_path / "new" / "events.jsonl"
    Journal(path, told.append).say("train", "a trained", round=2, site="a", loss=0.5)
    Journal(path, told.append).say("done", "all", round=2)

    assert events_so_far(path) == told
    assert told[0].content() | {"time": 0} == {
        "time": 0,
        "event": "train",
        "round": 2,
        "site": "a",
        "message": "a trained",
        "loss": 0.5,
    }
    assert told[1].site is None


def test_line_cut_off_by_a_kill_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('{"round": 1}\n{"round": 2}\n{"rou')

    assert read_lines(path) == [{"round": 1}, {"round": 2}]
    assert read_lines(tmp_path / "none.jsonl") == []
