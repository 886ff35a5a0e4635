"""`zk0 profile`: names those that are there, and says where they lie where there are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from zk0.cli.project import profile_list, profile_use
from zk0.params import ParamsError

PROFILE = "# Two arms.\nseed: 3\ndata: {sites: {lab: sim:push-red-cube-left}}\npolicy: {base: random:nano}\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "two.yaml").write_text(PROFILE)
    return tmp_path


def test_named_and_used_while_the_old_params_are_kept(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "params.yaml").write_text("mine")

    profile_list()
    profile_use("two")

    assert "two          Two arms." in capsys.readouterr().out
    assert (project / "params.yaml").read_text() == PROFILE
    assert (project / "params.yaml.old").read_text() == "mine"


def test_one_that_is_not_there(project: Path) -> None:
    with pytest.raises(ParamsError, match="there is no profile 'tow'; did you mean 'two'"):
        profile_use("tow")


def test_a_folder_without_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ParamsError, match="there are no profiles in"):
        profile_list()
