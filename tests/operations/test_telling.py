"""Alerts are told once, in order, until they arrive, and to nobody but whom the operator named."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from network_services import free_port
from webhook_receiver import Receiver, receiving

from zk0.errors import StageError
from zk0.network.config import Alerts, DeploymentConfig
from zk0.operations.monitor.alerts import Alert, AlertBook, webhook_address
from zk0.operations.monitor.service import BOOK, Monitor

AWAY = Alert("site-away", "site kitchen", "site kitchen has asked for nothing", since=1.0)


@pytest.fixture
def webhook() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


def monitor(root: Path, address: str | None, **more: object) -> Monitor:
    """One that watches an empty project, whose disk is always too full."""
    config = DeploymentConfig.parse(
        {"services": [], "alerts": {"webhook": address, "disk_free_bytes": 10**18, **more}, "prefect_url": None}
    )
    return Monitor(root, config)


def test_an_occurrence_is_told_once_and_so_is_its_end(tmp_path: Path) -> None:
    book = AlertBook(tmp_path / "alerts.json")

    told = [[message.status for message in book.note(found)] for found in ([], [AWAY], [AWAY], [], [AWAY])]

    assert told == [[], ["firing"], [], ["resolved"], ["firing"]]


def test_an_alert_keeps_its_beginning(tmp_path: Path) -> None:
    book = AlertBook(tmp_path / "alerts.json")
    for since in (1.0, 2.0, 3.0):
        book.note([replace(AWAY, since=since)])

    assert [alert.since for alert in AlertBook(tmp_path / "alerts.json").open] == [1.0]


def test_a_monitor_that_is_started_again_tells_nothing_twice(tmp_path: Path, webhook: Receiver) -> None:
    for _ in range(2):
        watching = monitor(tmp_path, webhook.address)
        watching.look()
        watching.look()

    assert [(message["rule"], message["status"]) for message in webhook.got] == [("disk", "firing")]


def test_what_does_not_arrive_is_sent_again_until_it_does(tmp_path: Path, webhook: Receiver) -> None:
    webhook.status = 503
    watching = monitor(tmp_path, webhook.address)
    watching.look()
    again = monitor(tmp_path, webhook.address)  # also by one that is started later
    webhook.status = 200
    again.look()
    again.look()

    assert [message["status"] for message in webhook.got] == ["firing", "firing"]


def test_an_outage_of_webhook_and_prefect_does_not_stop_the_monitor(tmp_path: Path) -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    config = DeploymentConfig.parse(
        {
            "services": [],
            "alerts": {"webhook": dead, "disk_free_bytes": 10**18},
            "prefect_url": dead,
            "mlflow_url": dead,
        }
    )

    watching = Monitor(tmp_path, config)
    watching.look()

    assert [alert.rule for alert in watching.book.open] == ["disk"]


def test_a_damaged_book_is_begun_anew(tmp_path: Path, webhook: Receiver) -> None:
    (tmp_path / BOOK).parent.mkdir(parents=True)
    (tmp_path / BOOK).write_text("{")

    monitor(tmp_path, webhook.address).look()

    assert [message["rule"] for message in webhook.got] == ["disk"]


def test_the_address_may_be_in_a_private_file(tmp_path: Path) -> None:
    (tmp_path / "hook").write_text("https://chat.example.org/T0/s3cret\n")
    (tmp_path / "hook").chmod(0o600)

    assert webhook_address(tmp_path, Alerts(webhook="file:hook")) == "https://chat.example.org/T0/s3cret"
    assert webhook_address(tmp_path, Alerts()) is None


@pytest.mark.parametrize(("mode", "text", "words"), [(0o644, "https://x.org", "chmod 600"), (0o600, "x", "no address")])
def test_a_file_that_is_not_private_or_no_address_is_refused(tmp_path: Path, mode: int, text: str, words: str) -> None:
    (tmp_path / "hook").write_text(text)
    (tmp_path / "hook").chmod(mode)

    with pytest.raises(StageError, match=words):
        webhook_address(tmp_path, Alerts(webhook="file:hook"))


def test_a_webhook_that_redirects_is_not_followed(
    tmp_path: Path, webhook: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    webhook.status = 302

    monitor(tmp_path, webhook.address).look()

    (problem,) = [record.line for record in caplog.records if getattr(record, "line", {}).get("event") == "not-sent"]
    assert problem == {"event": "not-sent", "to": "127.0.0.1", "problem": "status 302"}
