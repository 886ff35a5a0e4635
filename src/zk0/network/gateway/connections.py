"""What an HTTP server must bear that its application never sees: connections that are slow, half open or too many."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from zk0.network.gateway.journal import Refused
from zk0.network.gateway.limits import address_key
from zk0.network.gateway.proxy import Gateway


class GuardedProtocol(H11Protocol):
    """uvicorn's HTTP/1.1, with limits that uvicorn does not have.

    A request's head must be there within ``head_s``; whoever does not read an answer is cut off after ``pause_s``;
    of one address only so many connections are kept.
    """

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        gateway = self.config.app
        if not isinstance(gateway, Gateway):
            raise TypeError(f"GuardedProtocol serves a Gateway, not a {type(gateway).__name__}")
        self._limits, self._journal, self._open = gateway.config, gateway.journal, gateway.open
        self._key = ""
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, unless there are too many of this address."""
        super().connection_made(transport)
        self._key = address_key(self.client[0]) if self.client else "unknown"
        self._open[self._key] += 1
        self._journal.connections.inc()
        if self._open[self._key] > self._limits.connections_per_address:
            self._cut(Refused(0, "too-many-connections", "too many connections from this address"))
            return
        self._start("slow-head", self._limits.head_s, "the request's head came too slowly")

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        for name in list(self._timers):
            self._stop(name)
        self._open[self._key] -= 1
        if self._open[self._key] <= 0:
            del self._open[self._key]
        self._journal.connections.dec()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came; a head that has begun must end in time."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop("slow-head")
        elif not self.transport.is_closing():
            self._start("slow-head", self._limits.head_s, "the request's head came too slowly")

    def pause_writing(self) -> None:
        """The other end does not read: it has a while to begin again."""
        super().pause_writing()
        self._start("slow-reader", self._limits.pause_s, "the answer was not read")

    def resume_writing(self) -> None:
        """It does."""
        self._stop("slow-reader")
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """What came is no HTTP."""
        self._journal.refused(Refused(400, "malformed", "the request is no HTTP/1.1"), self._key)
        try:
            super().send_400_response(msg)
        except h11.LocalProtocolError:  # in the middle of an answer
            self.transport.abort()

    def _start(self, name: str, seconds: float, detail: str) -> None:
        if name not in self._timers:
            self._timers[name] = self.loop.call_later(seconds, self._cut, Refused(0, name, detail))

    def _stop(self, name: str) -> None:
        if timer := self._timers.pop(name, None):
            timer.cancel()

    def _cut(self, refusal: Refused) -> None:
        self._timers.pop(refusal.reason, None)
        if not self.transport.is_closing() or refusal.reason == "slow-reader":
            self._journal.refused(refusal, self._key)
        self.transport.abort()
