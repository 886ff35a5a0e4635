"""What a site remembers from round to round: its codec's error and, if asked for, its optimiser's moments.

The site cannot know whether its update was averaged: a reply may come too late or be refused, and
a server that was killed takes a round up again. So what belongs to an update is kept as a version
named by the round, and with every task the server says which version the site goes on from: that
of the last round whose update was used. A version nobody can ask for any more is deleted; where
the one asked for is missing (a new disk, say) the site begins anew. So no error is lost or counted twice.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from zk0.errors import StageError
from zk0.policy.trainable import DamagedError, Tensors, read_kept, write_kept


@dataclass(frozen=True)
class Version:
    """What belongs to a site's update of one round.

    Attributes:
        residual: What the codec could not carry, by tensor name; empty where it is lossless.
        moments: The optimiser's, flat; empty where they are not kept.
    """

    residual: Tensors = field(default_factory=dict)
    moments: Tensors = field(default_factory=dict)


@dataclass(frozen=True)
class SiteMemory:
    """The versions of one site in one run: ``state/<run>/sites/0003/round-0007``.

    Attributes:
        folder: The site's own; it never leaves the site.
    """

    folder: Path

    @classmethod
    def of(cls, root: Path, run: str, partition: int) -> SiteMemory:
        """The memory of a partition in a run."""
        return cls(root / "state" / run / "sites" / f"{partition:04d}")

    def load(self, number: int) -> Version:
        """The version of a round; an empty one for round 0, or where it is missing.

        Raises:
            StageError: It is damaged; says what is, and what to delete.
        """
        if not self._path(number).exists():
            return Version()
        try:
            _, parts = read_kept(self._path(number))
        except DamagedError as error:
            raise StageError(f"{error}. Delete {self._path(number)} to begin without it") from error
        return Version(**parts)

    def save(self, number: int, version: Version) -> None:
        """Keep a round's version, in place of one from an earlier attempt at the same round."""
        if version == Version():
            shutil.rmtree(self._path(number), ignore_errors=True)
            return
        write_kept(self._path(number), {"round": number}, vars(version))

    def prune(self, keep: int) -> None:
        """Delete versions before round ``keep``: the server cannot go back beyond it."""
        for path in self.folder.glob("round-*"):
            number = path.name.removeprefix("round-")
            if number.isascii() and number.isdigit() and int(number) < keep:
                shutil.rmtree(path)

    def _path(self, number: int) -> Path:
        return self.folder / f"round-{number:04d}"
