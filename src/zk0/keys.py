"""What results depend on, as digests that strangers may rely on, and what counts in the keys of runs and pieces.

BLAKE2b (RFC 7693) stands where somebody relies on a digest: sources, checkpoints, episodes, manifests, runs and
pieces of studies. xxh3 stays where only accidents matter: on the wire, for states, memos and caches.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Buffer, Collection
from typing import Any

from pydantic import BaseModel

# Counts in the key of every run and of every piece of a study. Raise it when the same params make another
# model or another figure: an algorithm or a default was changed, or what digests are made of. Then every run
# and piece is made anew. A new param needs no other number as long as its default leaves all as it was.
# 1: zk0 0.1.0. 2: recordings without x264's macroblock tree, held-out episodes by their own digests, BLAKE2b.
RESULTS_VERSION = 2


def new_digest(content: Buffer = b"", size: int = 32) -> hashlib.blake2b:
    """BLAKE2b of ``size`` bytes, to be fed."""
    return hashlib.blake2b(content, digest_size=size)


def digest_value(value: Any, size: int = 32) -> str:
    """BLAKE2b of a JSON value, in hex; independent of the order of its keys."""
    return new_digest(json.dumps(value, sort_keys=True).encode(), size).hexdigest()


def counted(section: BaseModel, leave_out: Collection[str] = ()) -> dict[str, Any]:
    """What a section of params adds to a key: what differs from the defaults in the code.

    So a param that is added later leaves the keys of all runs that do not use it. For that its default must be its
    off-value, by which everything is as it was before; where it cannot be, :data:`RESULTS_VERSION` rises.

    Args:
        section: The params.
        leave_out: Fields that decide nothing.

    Example:
        >>> counted(TrainingParams(batch=32, grad_clip=10.0))
        {'batch': 32}
    """
    return section.model_dump(mode="json", exclude=set(leave_out), exclude_defaults=True)


def key_of(content: dict[str, Any]) -> str:
    """16 hex digits of all that decides a run or a piece; parts that are empty count for nothing."""
    full = {name: value for name, value in content.items() if value != {}}
    return digest_value({"results": RESULTS_VERSION, **full}, size=8)
