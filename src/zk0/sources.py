"""Where data and policies come from, as written in params: ``sim:``, ``local:``, ``hub:``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NotRequired, TypedDict, cast, get_args

from zk0.errors import StageError
from zk0.files import read_mapping
from zk0.words import nearest_hint

LOCK = Path("sources.lock.json")
Kind = Literal["sim", "local", "hub"]
_HUB = re.compile(r"[\w.-]+/[\w.-]+")
_ROOM = re.compile(r"0|[1-9][0-9]{0,5}")  # one spelling of each


@dataclass(frozen=True)
class Source:
    """A parsed source.

    Attributes:
        kind: ``sim`` (the embedded arm), ``local`` (a folder) or ``hub`` (a Hugging Face repository).
        name: Task name, path, or ``owner/repository``.
        revision: Branch, tag or commit of a hub source; None elsewhere.
        room: Number of the room in which a simulated arm stands; None = the one that all share who name none.

    Example:
        >>> Source.parse("hub:lerobot/svla_so100_pickplace@v3.0")
        Source(kind='hub', name='lerobot/svla_so100_pickplace', revision='v3.0', room=None)
    """

    kind: Kind
    name: str
    revision: str | None = None
    room: int | None = None

    @classmethod
    def parse(cls, text: str) -> Source:
        """Parse a source.

        Raises:
            ValueError: Not of a known form; the message says what was expected.
        """
        kind, colon, rest = text.partition(":")
        if not colon or not rest:
            raise ValueError(f"source '{text}' must be sim:TASK, sim:TASK@ROOM, local:PATH or hub:OWNER/NAME@REVISION")
        if kind == "sim":
            name, at, room = rest.partition("@")
            if at and not _ROOM.fullmatch(room):
                raise ValueError(
                    f"source '{text}' names the room '{room}'; a whole number from 0 to 999999 was expected, as in "
                    f"sim:{name}@7"
                )
            return cls("sim", name, room=int(room) if at else None)
        if kind == "local":
            return cls("local", rest)
        if kind == "hub":
            name, _, revision = rest.partition("@")
            if not _HUB.fullmatch(name):
                raise ValueError(f"source '{text}' must name a repository as hub:OWNER/NAME@REVISION")
            return cls("hub", name, revision or "main")
        raise ValueError(f"source '{text}' has an unknown kind{nearest_hint(kind, get_args(Kind))}")

    @classmethod
    def of_owner(cls, text: str) -> Source:
        """A source as its owner writes it, who may leave out ``local:``; raises as :meth:`parse`."""
        return cls.parse(text if ":" in text else f"local:{text}")

    def __str__(self) -> str:
        behind = self.room if self.kind == "sim" else self.revision
        return f"{self.kind}:{self.name}" + ("" if behind is None else f"@{behind}")


class Shrink(TypedDict):
    """What a starting policy is drawn back to before a run trains it, and how much of the way is kept."""

    to: LockEntry
    kept: float  # 0 to 1


class LockEntry(TypedDict):
    """What one source, or the starting policy, was when it was resolved."""

    source: str  # as written in params
    digest: str
    detail: NotRequired[dict[str, object]]  # of data: what the digest was made of
    folder: NotRequired[str]  # of a registered model: where its files are
    shrink: NotRequired[Shrink]  # of a starting policy that a run starts short of


class SourcesLock(TypedDict):
    """The content of ``sources.lock.json``."""

    sources: dict[str, LockEntry]
    unseen: dict[str, LockEntry]
    policy: LockEntry


def read_lock(root: Path, *keys: str) -> SourcesLock:
    """What the sources and the starting policy were when they were last resolved; see :mod:`zk0.sources_lock`.

    Args:
        root: Project folder.
        keys: What must be in it.

    Raises:
        StageError: They have not been.
        BadFileError: The file holds something else.
    """
    try:
        return cast(SourcesLock, read_mapping(root / LOCK, *keys))
    except FileNotFoundError as error:
        raise StageError(
            f"{root / LOCK} not found; `zk0 validate` writes it (in `zk0 train`, the step 'environment setup')"
        ) from error
