"""The SuperLink's database, as Flower opens it when zk0 starts the SuperLink."""

from __future__ import annotations

from pathlib import Path

import pytest
from flwr.supercore import sql_mixin
from flwr.supercore.object_store.sql_object_store import SqlObjectStore

from zk0.federation.flower import steady_database


def test_each_connection_waits_for_a_minute_and_keeps_eight_megabytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_mixin, "SQLITE_PRAGMAS", sql_mixin.SQLITE_PRAGMAS)  # as it is, and so again afterwards
    steady_database()
    store = SqlObjectStore(str(tmp_path / "state.db"))
    store.initialize()

    found = {name: next(iter(store.query(f"PRAGMA {name}")[0].values())) for name, _ in sql_mixin.SQLITE_PRAGMAS}

    assert (found["busy_timeout"], found["cache_size"], found["journal_mode"]) == (60_000, -8_000, "wal")
    assert found["foreign_keys"] == 1


def test_another_flower_is_told_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(sql_mixin, "SQLITE_PRAGMAS")

    with pytest.raises(RuntimeError, match="sets its database up elsewhere"):
        steady_database()
