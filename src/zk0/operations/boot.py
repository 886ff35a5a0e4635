"""What starts services again after a reboot of the machine: a unit of systemd's, or a line of cron's."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path


def unit(what: str, root: Path, start: str, stop: str) -> str:
    """A unit for ``systemctl --user``, with how to install it.

    Args:
        what: Is started, in words.
        root: Folder in which the commands run.
        start: Words after `zk0` that start it.
        stop: Words after `zk0` that stop it.
    """
    name = "-".join(["zk0", *(word for word in start.split() if word not in ("client", "start"))])
    return f"""\
# Write this to ~/.config/systemd/user/{name}.service, then:
#   systemctl --user daemon-reload && systemctl --user enable {name} && loginctl enable-linger
[Unit]
Description={what}
After=network-online.target

[Service]
Type=oneshot
RemainAfterExit=yes
WorkingDirectory={str(root).replace("%", "%%")}
ExecStart={_systemd(start)}
ExecStop={_systemd(stop)}
TimeoutStartSec=900

[Install]
WantedBy=default.target
"""


def cron_line(root: Path, start: str) -> str:
    """A line for `crontab -e`, where there is no systemd."""
    line = f"cd {shlex.quote(str(root))} && {shlex.join([sys.executable, '-m', 'zk0', *start.split()])}"
    return f"@reboot {line}".replace("%", r"\%")


def _systemd(words: str) -> str:
    quoted = [f'"{_escaped(word)}"' for word in (sys.executable, "-m", "zk0", *words.split())]
    return " ".join(quoted)


def _escaped(word: str) -> str:
    return word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
