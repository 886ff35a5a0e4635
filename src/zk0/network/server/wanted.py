"""The run that is wanted: handed over and neither ended by itself nor stopped by a person. A file remembers it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from zk0.files import read_json, write_json
from zk0.records.files import events_so_far
from zk0.records.paths import EVENTS
from zk0.services.process import RUN

NAME = "zk0"  # of the app of a federation, by which the SuperLink's list of runs tells apps apart
# What a ServerApp's error begins with when the run was cut off from something, and is to be taken up again.
INTERRUPTED = "interrupted: "
# Why a site is left out that was killed, in the server's own words: a site's are marked as such.
_AWAY = " is left out: the site failed: its node is away"
_FILE = RUN / "superlink" / "wanted.json"


@dataclass(frozen=True)
class Wanted:
    """A run that is to come to its end.

    Attributes:
        number: The SuperLink's, of the last time that it was handed over.
        apps: ClientApp and ServerApp.
        settings: For the ServerApp.
        earlier: Numbers that it had before.
        round: The last complete round when it was last taken up.
        tries: How often it was taken up since a round was completed.
        stopped: Whether it was stopped for the sake of the services, which began anew.
        given_up: Whether it is not taken up any more: it was interrupted again and again within one round.
    """

    number: int
    apps: tuple[str, str]
    settings: dict[str, Any]
    earlier: list[int] = field(default_factory=list)
    round: int = -1
    tries: int = 0
    stopped: bool = False
    given_up: bool = False

    def write(self, root: Path) -> None:
        """Remember it, in place of any other."""
        write_json(root / _FILE, asdict(self))


def wanted_run(root: Path) -> Wanted | None:
    """The run of a project that is wanted; None where none is."""
    try:
        content = read_json(root / _FILE)
        return Wanted(**(content | {"apps": tuple(content["apps"])}))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None  # of a damaged file the worst is that a person has to say it again


def sites_were_away(root: Path) -> bool:
    """Whether a round that failed did so only because sites died in it; they come back."""
    lost = []
    for event in reversed(events_so_far(root / EVENTS)):
        if event.event in ("round-start", "resume"):
            break
        if event.event == "site-left-out":
            lost.append(str(event.message))
    return bool(lost) and all(_AWAY in why for why in lost)


def forget_wanted(root: Path) -> None:
    """No run is wanted any more."""
    (root / _FILE).unlink(missing_ok=True)


def given_up(root: Path) -> bool:
    """Whether a run was interrupted so often that it is not taken up any more."""
    wanted = wanted_run(root)
    return wanted is not None and wanted.given_up
