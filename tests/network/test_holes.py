"""Versions with known holes."""

from __future__ import annotations

import pytest

from zk0.network.server import holes


def test_an_older_version_is_told_with_its_hole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holes, "installed", {"h11": "0.14.0", "torch": "2.11.0"}.get)

    (found,) = holes.known_holes()

    assert found.startswith("h11 0.14.0 has CVE-2025-43859") and found.endswith("0.16.0 has not")


def test_the_locked_versions_have_none() -> None:
    assert holes.known_holes() == []
