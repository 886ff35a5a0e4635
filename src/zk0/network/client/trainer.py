"""The trainer: a site's own service, which keeps policy, data and features loaded while messages come and go.

Flower's SuperNode starts a process for every message. Loading torch and SmolVLA in each would take longer than the
training itself, so that process, :mod:`zk0.network.client.app`, only hands its message over to the trainer, by a socket
that nobody but the site's user can open. The trainer loads its site once, then answers one message after the other as
its ClientApp.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from flwr.app import Context, Message, RecordDict

from zk0.checkpoints import CheckpointError
from zk0.data.manifest import Manifest, read_manifests
from zk0.digests import DigestCache
from zk0.errors import StageError
from zk0.federation import protocol, wire
from zk0.federation.client_app import app
from zk0.federation.protocol import error_reply
from zk0.federation.site import forget, site_at, warm_policy
from zk0.federation.start import locked_base
from zk0.network.client import channel
from zk0.network.client.membership import EVENTS
from zk0.params import Params
from zk0.private_files import private_folder
from zk0.records.journal import Journal
from zk0.sources import Source
from zk0.sources_lock import DIGEST_CACHE, base_kind, checkpoint_digest, random_digest

_log = logging.getLogger(__name__)
_READ_S = 60.0  # how long a peer may take over sending a message
# What of a reply's values the owner may want to see; what the server learns is in the reply, not here.
_TOLD = ("train_loss", "held_out_loss", "examples", "frames", "train_s", "evaluate_s", "learning_rate", "epsilon")


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

    def find(self, task: protocol.SiteTask) -> str:
        """Where the starting policy of a task is: as :func:`zk0.policy.start.load_start` takes it.

        Raises:
            BaseMissing: It is not here, or what is here has another digest; says what was looked at.
        """
        key = (task.base, task.base_digest, task.seed)
        if key not in self._found:
            self._found[key] = self._search(task)
        return self._found[key]

    def _search(self, task: protocol.SiteTask) -> str:
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


class Trainer:
    """One site's trainer.

    Args:
        root: The site's folder: params, manifests, lock.
        params: The site's own; a run's come with its messages.
        partition: Which of the folder's sites; None where there is one only.
        demands: What its owner demands, as a node's config names it; see :mod:`zk0.federation.privacy.site`.

    Raises:
        StageError: The folder has no such site.
    """

    def __init__(
        self, root: Path, params: Params, partition: int | None = None, demands: Mapping[str, float] | None = None
    ) -> None:
        self.root, self.params = root, params
        self.manifest = _manifest(root, partition)
        self.journal = Journal(root / EVENTS)
        self._node: dict[str, bool | float | int | str] = {
            "project": str(root),
            "partition-id": self.manifest.partition,
            "decoded-limit-bytes": params.data.decoded_limit_bytes,
            "device": params.policy.device,
            "processes": params.policy.processes,
            **(demands or {}),
        }
        self._base, self._digest = locked_base(root)
        self._bases = Bases(root, self._base)
        self._loaded: tuple[Any, ...] | None = None

    def load(self) -> float:
        """Load what messages will need: the starting policy, the frames, and their kept features.

        Returns:
            Seconds it took.
        """
        began = time.perf_counter()
        self._use(self._base, self._digest, protocol.Adapters(), 0)
        loaded = warm_policy(self.root, self._base, self.params.policy.device).start
        site = site_at(self._node)
        for part in ("train", "held-out"):
            site.features(part, loaded, self.params.features)
        return time.perf_counter() - began

    def serve(self) -> None:
        """Take messages until the process ends.

        Raises:
            StageError: Another trainer serves this site.
        """
        path = channel.socket_path(self.root, self.manifest.partition)
        private_folder(path.parent)
        try:
            with FileLock(path.with_suffix(".lock"), timeout=0), channel.listening(path) as listener:
                self._say("ready", f"ready on {self.manifest.train_frames} frames")
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        self._serve(connection)
        except Timeout as error:
            raise StageError(f"another trainer serves site '{self.manifest.site}'; stop it first") from error

    def _serve(self, connection: socket.socket) -> None:
        """One message, and its reply; whatever goes wrong with one connection, the next is served."""
        connection.settimeout(_READ_S)
        try:
            channel.check_peer(connection)
            if (found := channel.receive(connection)) is None:
                return  # somebody looked whether the trainer is there
            message, received = found
            reply = self.answer(message, received)
            sent = channel.send(connection, reply)
            _log.info("%s: %d bytes in, %d bytes out", message.metadata.message_type, received, sent)
        except (channel.ChannelError, OSError, ValueError) as error:
            _log.exception("a message was lost")
            self._say("lost", f"a message or its reply was lost: {error}")

    def answer(self, message: Message, received: int = 0) -> Message:
        """The reply to a message, noted in the site's journal.

        A site's exception becomes an error reply, as on every engine.
        """
        began = time.perf_counter()
        try:
            task, node = self._bound(message)
            self._say("received", f"{message.metadata.message_type} received", task.round, run=task.run)
            context = Context(message.metadata.run_id, message.metadata.dst_node_id, node, RecordDict(), {})
            reply = app(message=message, context=context)
        except Exception as error:  # whatever goes wrong with one message must not end the trainer
            _log.exception("a message failed")
            self._say("failed", f"{message.metadata.message_type}: {type(error).__name__}: {error}")
            return error_reply(message, error)
        self._note(message, task, reply, received, time.perf_counter() - began)
        return reply

    def _bound(self, message: Message) -> tuple[protocol.Header, dict[str, bool | float | int | str]]:
        """The task of a message that is for this site, and the node's config to serve it with.

        The config that came from Flower is not looked at: which data and which demands are the site's own.

        Raises:
            ValueError: The message is for another partition, or malformed.
            BaseMissing: The site lacks the starting policy.
        """
        kind = message.metadata.message_type
        if kind not in (protocol.TRAIN, protocol.EVALUATE):
            header, _ = protocol.read(message.content)
            # who asks for the summary does not know yet which partition it is that answers
            return self._own(header, kind != protocol.SUMMARY), self._node
        task, _ = protocol.read(message.content, protocol.SiteTask)
        self._own(task, True)
        base = self._bases.find(task)
        self._use(base, task.base_digest, task.adapters, task.seed if task.adapters.rank else 0)
        return task, self._node | {"base": base}

    def _own(self, header: protocol.Header, named: bool) -> protocol.Header:
        mine = self.manifest.partition
        if named and header.partition != mine:
            raise ValueError(f"the message is for partition {header.partition}, and this site is partition {mine}")
        return header

    def _use(self, *wanted: Any) -> None:
        """Let go of another policy before this one is loaded, or a service of months would hold them all."""
        if self._loaded not in (None, wanted):
            forget()
        self._loaded = wanted

    def _note(self, message: Message, task: protocol.Header, reply: Message, received: int, seconds: float) -> None:
        _, values = protocol.read(reply.content)
        told = {name: values[name] for name in _TOLD if name in values}
        losses = ", ".join(f"{name} {told[name]:.4f}" for name in ("train_loss", "held_out_loss") if name in told)
        kind = message.metadata.message_type
        text = f"{kind} in {seconds:.2f} s" + (f": {losses}" if losses else "")
        if protocol.LACKS in values:
            text, told["lacks"] = f"{kind}: asked for the whole model", values[protocol.LACKS]
        bytes_up = wire.payload_bytes(reply.content)
        self._say(kind, text, task.round, run=task.run, seconds=seconds, bytes_down=received, bytes_up=bytes_up, **told)

    def _say(self, event: str, text: str, round: int = 0, **more: Any) -> None:
        self.journal.say(event, text, round=round, site=self.manifest.site, **more)


def _manifest(root: Path, partition: int | None) -> Manifest:
    sites, _ = read_manifests(root)
    numbers = [site.partition for site in sites]
    if partition is None and len(sites) > 1:
        raise StageError(f"{root} holds partitions {', '.join(map(str, numbers))}; --partition says which")
    found = [site for site in sites if partition in (None, site.partition)]
    if not found:
        raise StageError(f"{root} holds no partition {partition}; there are {', '.join(map(str, numbers))}")
    return found[0]
