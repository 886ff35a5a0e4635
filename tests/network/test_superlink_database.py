"""The SuperLink's database, as Flower opens it when zk0 starts the SuperLink."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from flwr.server.superlink.linkstate.sql_linkstate import SqlLinkState
from flwr.supercore import sql_mixin
from flwr.supercore.corestate.sql_corestate import SqlCoreState
from flwr.supercore.object_store.sql_object_store import SqlObjectStore
from flwr.superlink.federation import NoOpFederationManager
from sqlalchemy import event

from zk0.federation.flower import steady_database

LOOKS = "_cleanup_expired_task_tokens"


def as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is set up, and so again afterwards."""
    monkeypatch.setattr(sql_mixin, "SQLITE_PRAGMAS", sql_mixin.SQLITE_PRAGMAS)
    monkeypatch.setattr(SqlCoreState, LOOKS, getattr(SqlCoreState, LOOKS))


def test_each_connection_waits_for_a_minute_and_keeps_eight_megabytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_it_is(monkeypatch)
    steady_database()
    store = SqlObjectStore(str(tmp_path / "state.db"))
    store.initialize()

    found = {name: next(iter(store.query(f"PRAGMA {name}")[0].values())) for name, _ in sql_mixin.SQLITE_PRAGMAS}

    assert (found["busy_timeout"], found["cache_size"], found["journal_mode"]) == (60_000, -8_000, "wal")
    assert found["foreign_keys"] == 1


def test_tasks_that_died_are_looked_for_once_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As each request does that asks for a run's status."""
    as_it_is(monkeypatch)
    steady_database()
    database = str(tmp_path / "state.db")
    state = SqlLinkState(database, NoOpFederationManager(), SqlObjectStore(database))
    state.initialize()
    written = list[str]()
    event.listen(state._engine, "before_cursor_execute", lambda *told: written.append(told[2]))

    for _ in range(50):
        state.get_run_status({1})
    at_once = sum(one.startswith("UPDATE") for one in written)
    time.sleep(1.0)
    state.get_run_status({1})

    assert (at_once, sum(one.startswith("UPDATE") for one in written)) == (2, 4)


def test_another_flower_is_told_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(sql_mixin, "SQLITE_PRAGMAS")

    with pytest.raises(RuntimeError, match="sets its database up elsewhere"):
        steady_database()
