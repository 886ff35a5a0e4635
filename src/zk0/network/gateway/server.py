"""Run the gateway: TLS, new certificates while it runs, start and stop; and what an HTTP server must bear that its
application never sees: connections that are slow, half open or too many.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
import socket
import ssl
from pathlib import Path
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from zk0.errors import StageError
from zk0.network.gateway.config import GatewayConfig
from zk0.network.gateway.journal import Refused, address_key, log_as_json, tell
from zk0.network.gateway.proxy import Gateway
from zk0.network.security.certificates import INIT, check_server, read_certificate
from zk0.services.telemetry import metrics_served

_LOOK_S = 1.0


def tls_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """What clients agree with the server on: TLS 1.2 or later, HTTP/1.1, no compression and no renegotiation."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(certificate, key)
    return context


def check_files(config: GatewayConfig) -> float:
    """Check certificate, key and list of sites before anything listens.

    Returns:
        When the certificate ends, in seconds since 1970.

    Raises:
        StageError: One is missing, damaged, expired, of another authority, or open to others.
    """
    certificate, authority = (read_certificate(path, INIT) for path in (config.certificate, config.authority))
    check_server(certificate, config.key, authority, str(config.certificate))
    return certificate.not_valid_after_utc.timestamp()


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
        """Forget the connection, and stop its timers."""
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
        """The other end reads again: its timer stops."""
        self._stop("slow-reader")
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Count and refuse what is no HTTP/1.1."""
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


class _Loop(asyncio.SelectorEventLoop):
    """asyncio lets a TLS handshake take a minute, and uvicorn has no setting for it."""

    handshake_s = 60.0

    async def create_server(self, *arguments: Any, **settings: Any) -> Any:
        if settings.get("ssl") is not None:
            settings["ssl_handshake_timeout"] = self.handshake_s
            settings["ssl_shutdown_timeout"] = self.handshake_s
        return await super().create_server(*arguments, **settings)


def run(config: GatewayConfig) -> None:
    """Serve until SIGTERM or SIGINT; requests that run then may end.

    Raises:
        StageError: A file is not what it must be, or the port is taken.
    """
    log_as_json()
    _raise_file_limit()
    expires = check_files(config)
    gateway = Gateway(config)
    gateway.journal.expires.set(expires)
    context = tls_context(config.certificate, config.key)
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(_listen(config))
        if config.metrics_port:
            taken = "metrics_port {port} is taken ({why}); choose another, or 0 for none"
            stack.enter_context(metrics_served(gateway.journal.metrics, config.metrics_port, taken))
        server = uvicorn.Server(
            uvicorn.Config(
                gateway,
                http=GuardedProtocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                # What a client says of its address is not believed.
                proxy_headers=False,
                limit_concurrency=config.connections,
                timeout_keep_alive=int(config.idle_s),
                timeout_graceful_shutdown=int(config.shutdown_s),
                h11_max_incomplete_event_size=16 * 1024,
                ssl_context_factory=lambda *_: context,
            )
        )
        # uvicorn sends itself the signal again when all is done; then it must not end the process by itself.
        for number in (signal.SIGTERM, signal.SIGINT):
            stack.callback(signal.signal, number, signal.signal(number, lambda *_: None))
        tell("listening", address=config.host, port=config.port, upstream=config.upstream, pid=os.getpid())
        with asyncio.Runner(loop_factory=_Loop) as runner:
            runner.get_loop().handshake_s = config.handshake_s  # type: ignore[attr-defined]
            runner.run(_serve(server, gateway, context, listener))
    tell("stopped", pid=os.getpid())


async def _serve(server: uvicorn.Server, gateway: Gateway, context: ssl.SSLContext, listener: socket.socket) -> None:
    watching = asyncio.create_task(_watch(gateway, context))
    try:
        await server.serve(sockets=[listener])
    finally:
        watching.cancel()
        await gateway.close()


async def _watch(gateway: Gateway, context: ssl.SSLContext) -> None:
    """Take a new certificate as soon as it is there; connections that are open keep theirs."""
    config = gateway.config
    present = _identity(config)
    while True:
        await asyncio.sleep(_LOOK_S)
        if (found := _identity(config)) == present:
            continue
        present = found
        try:
            expires = check_files(config)
            # Tried first on its own: a context that took half of a pair would refuse everybody.
            tls_context(config.certificate, config.key)
            context.load_cert_chain(config.certificate, config.key)
        except (StageError, OSError) as error:  # ssl.SSLError is an OSError
            tell("certificate-not-taken", logging.ERROR, path=str(config.certificate), detail=str(error))
        else:
            gateway.journal.expires.set(expires)
            tell("certificate-taken", path=str(config.certificate.resolve()))


def _identity(config: GatewayConfig) -> tuple[Any, ...]:
    """What changes when either file does."""
    found: list[Any] = []
    for path in (config.certificate, config.key):
        with contextlib.suppress(OSError):
            state = path.stat()
            found.append((state.st_ino, state.st_mtime_ns, state.st_mode))
    return tuple(found)


def _listen(config: GatewayConfig) -> socket.socket:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    try:
        return socket.create_server(
            (config.host, config.port), family=family, backlog=512, dualstack_ipv6=config.host == "::"
        )
    except OSError as error:
        raise StageError(
            f"the gateway cannot listen on {config.host} port {config.port} ({error.strerror}); stop what uses it, or "
            "choose another port"
        ) from error


def _raise_file_limit() -> None:
    """Connections that never get as far as being counted hold open files, too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
