"""What is printed for the time after a reboot is what systemd and cron read."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from docs_commands import documented, typed

from zk0.operations.start import cron_line, unit

ODD = Path("/srv/a 100% \"odd\" 'folder'")


def test_the_server_is_started_by_its_own_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    said = typed(documented("operate.md", "zk0 deploy boot  "))

    assert "~/.config/systemd/user/zk0-deploy.service" in said and f"WorkingDirectory={tmp_path}\n" in said
    assert said.split("ExecStart=")[1].splitlines()[0].endswith('"-m" "zk0" "deploy"')
    assert typed(documented("operate.md", "zk0 deploy boot --cron")).startswith(f"@reboot cd {tmp_path} && ")


def test_cron_runs_the_line_in_the_folder() -> None:
    line = cron_line(ODD, "client start kitchen")

    when, command = line.split(" ", 1)
    words = shlex.split(command.replace(r"\%", "%"))
    assert when == "@reboot" and line.replace(r"\%", "").count("%") == 0
    assert words[:3] == ["cd", str(ODD), "&&"] and words[-5:] == ["-m", "zk0", "client", "start", "kitchen"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    file = tmp_path / "zk0-kitchen.service"
    file.write_text(unit("Site kitchen", tmp_path, "client start kitchen", "client stop kitchen"))

    done = subprocess.run(["systemd-analyze", "verify", "--user", file], capture_output=True, text=True, check=False)

    assert file.name not in done.stderr


def test_what_systemd_would_expand_is_escaped() -> None:
    text = unit("Site kitchen", ODD, "client start kitchen", "client stop kitchen")

    assert "WorkingDirectory=/srv/a 100%% \"odd\" 'folder'\n" in text
    assert "zk0-kitchen.service" in text and 'ExecStop="' in text and '"stop" "kitchen"\n' in text
