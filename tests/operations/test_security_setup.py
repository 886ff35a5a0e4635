"""Security set-up of a deployment: made once, checked ever after."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from zk0.digests import digest_folder
from zk0.errors import StageError
from zk0.network.security.authority import Authority
from zk0.network.security.files import GATEWAY, set_up_security

HOSTS = ("robots.example.org",)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    set_up_security(tmp_path / "security", HOSTS, "arms")
    return tmp_path / "security"


def test_a_second_time_changes_nothing(folder: Path) -> None:
    before = digest_folder(folder)

    again = set_up_security(folder, HOSTS, "arms")

    assert not again.changed and digest_folder(folder) == before
    assert again.warnings == () and "0 sites admitted, 0 revoked" in again.told


def test_a_certificate_that_ends_soon_is_warned_of(folder: Path) -> None:
    Authority.open(folder / "authority").rotate(20, GATEWAY)

    (warning,) = set_up_security(folder, HOSTS, "arms").warnings

    assert warning == "the certificate of gateway ends in 19 days; `zk0 security rotate` issues new ones"


def test_one_that_has_ended_is_refused(folder: Path) -> None:
    earlier = datetime.now(UTC) - timedelta(days=40)
    Authority.open(folder / "authority").rotate(30, GATEWAY, start=earlier)

    with pytest.raises(StageError, match="expired on"):
        set_up_security(folder, HOSTS, "arms")


def test_a_host_without_certificate_is_refused_with_the_command(folder: Path) -> None:
    with pytest.raises(StageError, match=r"`zk0 security rotate --host robots\.example\.org --host new\.example\.org`"):
        set_up_security(folder, (*HOSTS, "new.example.org"), "arms")


def test_another_federations_list_is_refused(folder: Path) -> None:
    with pytest.raises(StageError, match=r"is of federation 'arms', and deployment\.yaml names 'legs'"):
        set_up_security(folder, HOSTS, "legs")


@pytest.mark.parametrize("name", ["operator.token", "superexec.secret", "authority/gateway/server.key"])
def test_a_secret_open_to_others_is_refused(folder: Path, name: str) -> None:
    (folder / name).chmod(0o644)

    with pytest.raises(StageError, match="chmod 600"):
        set_up_security(folder, HOSTS, "arms")
