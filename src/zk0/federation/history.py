"""The rounds of a run in a file that only grows: to save a round costs the same, however many there were before it.

A state that is saved names its rows by their number and digest. So the file may hold more than the last state knows of,
where a kill came between the two: those are cut off when the round is saved again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from zk0.digests import new_digest
from zk0.files import BadFileError, parse_json
from zk0.policy.trainable import DamagedError
from zk0.records.files import parse
from zk0.records.run import Round


@dataclass(frozen=True)
class _End:
    """The beginning, or a row's end: how many rows are before it, at which byte, their digest, and the last one."""

    count: int
    byte: int
    digest: hashlib.blake2b
    row: bytes = b""


class History:
    """``rounds.jsonl`` of a run's state: a row in a line, round 0 first.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._end = _End(0, 0, new_digest())

    def extend(self, rows: Sequence[Round]) -> str:
        """Have the file hold these rows and no others, of which it has those that were saved before.

        Args:
            rows: All so far; those that were saved may lack their sites.

        Returns:
            Their digest.
        """
        end = self._end if self._is_known(len(rows)) else self._find(len(rows) - 1)
        lines = [f"{json.dumps(row.content(), allow_nan=False)}\n".encode() for row in rows[end.count :]]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab") as stream:
            stream.truncate(end.byte)
            stream.writelines(lines)
            stream.flush()
            os.fsync(stream.fileno())
        digest = end.digest.copy()
        for line in lines:
            digest.update(line)
        self._end = _End(len(rows), end.byte + sum(map(len, lines)), digest)
        return digest.hexdigest()

    def read(self, count: int, digest: str | None = None) -> Iterator[Round]:
        """The first rows, one after the other.

        Args:
            count: How many.
            digest: Theirs; None where they are known to be sound.

        Raises:
            DamagedError: They are not what was saved; it may be told only when all were given.
        """
        for found in self._ends(count):
            end = found
            if end.row:
                yield self._parsed(end.row)
        if end.count < count or digest not in (None, end.digest.hexdigest()):
            raise DamagedError(f"{self._path} is not what was saved: its first {count} lines lack the digest {digest}")

    def in_brief(self, count: int, digest: str) -> tuple[Round, ...]:
        """The same rows, earlier ones with as much of them as :func:`in_brief` leaves."""
        rows: list[Round] = []
        for row in self.read(count, digest):
            rows[-1:] = [*map(in_brief, rows[-1:]), row]
        return tuple(rows)

    def _parsed(self, line: bytes) -> Round:
        try:
            return parse(parse_json(line.decode(), str(self._path)), Round, str(self._path))
        except (BadFileError, UnicodeDecodeError) as error:
            raise DamagedError(str(error)) from error

    def _is_known(self, count: int) -> bool:
        """Whether the file is as this object left it, with fewer rows than so many."""
        end = self._end
        return 0 < end.count < count and self._path.exists() and self._path.stat().st_size == end.byte

    def _find(self, most: int) -> _End:
        """The end of the last complete row, or of an earlier one if there are more."""
        for found in self._ends(most):
            end = found
        return end

    def _ends(self, most: int) -> Iterator[_End]:
        """The beginning, and the ends of the first complete rows."""
        end = _End(0, 0, new_digest())
        yield end
        if not self._path.exists():
            return
        with self._path.open("rb") as stream:
            while end.count < most and (line := stream.readline()).endswith(b"\n"):
                end.digest.update(line)
                end = _End(end.count + 1, end.byte + len(line), end.digest, line)
                yield end


def in_brief(row: Round) -> Round:
    """What a run needs to remember of an earlier round; what its sites did is in the file.

    Later held-out losses are compared with the sites' of round 1, so that one is kept whole.
    """
    return row if row.round == 1 else row.model_copy(update={"sites": {}})
