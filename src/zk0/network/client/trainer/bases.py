"""The starting policy of a federation, as a site has it: found by its digest, wherever it lies there."""

from __future__ import annotations

from pathlib import Path

from zk0.checkpoints import CheckpointError
from zk0.digests import DigestCache
from zk0.errors import StageError
from zk0.federation.protocol import SiteTask
from zk0.sources import Source
from zk0.sources_lock import DIGEST_CACHE, base_kind, checkpoint_digest, random_digest


class BaseMissing(StageError):
    """This site has no starting policy of the digest that the federation starts from."""


class Bases:
    """Starting policies on this machine.

    Args:
        root: The site's folder, from which relative paths go.
        own: The site's own starting policy, see :func:`zk0.federation.run.locked_base`: the owner may keep a copy of
            the federation's where the server's path means nothing.
    """

    def __init__(self, root: Path, own: str) -> None:
        self._root, self._own = root, own
        self._found: dict[tuple[str, str, int], str] = {}

    def find(self, task: SiteTask) -> str:
        """Where the starting policy of a task is: as :func:`zk0.policy.start.load_start` takes it.

        Raises:
            BaseMissing: It is not here, or what is here has another digest; says what was looked at.
        """
        key = (task.base, task.base_digest, task.seed)
        if key not in self._found:
            self._found[key] = self._search(task)
        return self._found[key]

    def _search(self, task: SiteTask) -> str:
        looked = []
        for base in dict.fromkeys((self._own, task.base)):  # its own first: that one is loaded already
            try:
                digest = self._digest(base, task.seed)
            except CheckpointError as error:
                looked.append(str(error))
                continue
            except (ValueError, OSError):
                looked.append(f"{base} is not here")
                continue
            if digest == task.base_digest:
                return base
            looked.append(f"{base} is {digest[:12]} here")
        raise BaseMissing(
            f"the federation starts from {task.base} of digest {task.base_digest[:12]}, which this site does not have: "
            f"{', '.join(looked)}. The operator can send it; `zk0 client join` takes it as --base FOLDER"
        )

    def _digest(self, base: str, seed: int) -> str:
        kind = base_kind(base)
        if kind == "random":
            return random_digest(base, seed)
        if kind == "hub":  # a commit is the digest of what it holds, and what the Hub's client fetches by
            return Source.parse(base).revision or ""
        if kind == "mlflow":
            raise ValueError(f"{base} is registered with the server's MLflow")
        with DigestCache(self._root / DIGEST_CACHE) as cache:
            return checkpoint_digest(self._root / base, base, cache)
