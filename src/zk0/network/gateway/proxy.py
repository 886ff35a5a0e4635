"""The way of one request: refused by its head, or streamed to the SuperLink and back."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

import httpx
from google.protobuf.message import DecodeError

from zk0.federation.flower import fleet_pb2
from zk0.network.gateway.config import GatewayConfig
from zk0.network.gateway.identity import Identity
from zk0.network.gateway.journal import Buckets, Journal, Refused, address_key
from zk0.network.security.sites import Site

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

HEALTH = "/health"
_PUSH_MESSAGES, _PUSH_OBJECT = "/v1/fleet/push-messages", "/v1/fleet/push-object"
# What a registered node needs. Registering and unregistering over the network are not among it: the operator does it.
FLEET = frozenset(
    {
        "/v1/fleet/activate-node",
        "/v1/fleet/deactivate-node",
        "/v1/fleet/send-node-heartbeat",
        "/v1/fleet/pull-messages",
        _PUSH_MESSAGES,
        "/v1/fleet/get-run",
        "/v1/fleet/get-fab",
        _PUSH_OBJECT,
        "/v1/fleet/pull-object",
        "/v1/fleet/confirm-message-received",
    }
)
_LARGE = frozenset({_PUSH_MESSAGES, _PUSH_OBJECT})
# Everything else stays outside: addresses that a client makes up, cookies, credentials of other doors.
_REQUEST_HEADERS = frozenset({b"content-type", b"accept", b"content-length"})
_RESPONSE_HEADERS = frozenset({b"content-type", b"content-length", b"cache-control"})
_FLOWER = b"flwr-"

# Who sends too much reads the answer only when all is sent. So much, for so long, is read and thrown away for them;
# closing at once would reset the connection, and a node that never sees the answer tries again for ever.
_LINGER_S, _LINGER_BYTES = 3.0, 64 << 20


class _Gone(Exception):
    """Whoever asked has hung up."""


class Gateway:
    """An ASGI application that passes the requests of registered sites to the SuperLink."""

    def __init__(self, config: GatewayConfig) -> None:
        """Use a configuration; :meth:`close` when done."""
        self.config = config
        self.journal = Journal(config.log_lines_per_minute)
        self.open: Counter[str] = Counter()  # connections by address
        self._identity = Identity(config.registry)
        self._requests = Buckets(config.requests_per_s, config.requests_burst)
        # An hour's allowance may come at once: a round ends with one large update, and then there is a pause.
        self._bytes = Buckets(config.site_bytes_per_hour / 3600, config.site_bytes_per_hour)
        self._upstream = httpx.AsyncClient(
            base_url=config.upstream,
            verify=ssl.create_default_context(cafile=str(config.authority)),
            # The upstream waits for the body, which may be slow within its own limits.
            timeout=httpx.Timeout(config.upstream_s, connect=5.0, write=config.upstream_s, pool=config.upstream_s),
            limits=httpx.Limits(max_connections=config.connections, max_keepalive_connections=64, keepalive_expiry=2.0),
            trust_env=False,
        )

    async def close(self) -> None:
        """Close the connections to the SuperLink."""
        await self._upstream.aclose()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        address = scope["client"][0] if scope.get("client") else ""
        answering, sending = False, True

        async def watched_send(event: Event) -> None:
            nonlocal answering
            answering = True
            await send(event)

        async def watched_receive() -> Event:
            nonlocal sending
            event = await receive()
            sending = event["type"] == "http.request" and event.get("more_body", False)
            return event

        try:
            await self._serve(scope, watched_receive, watched_send, address)
        except Refused as refusal:
            self.journal.refused(refusal, address, scope["method"], scope["path"])
            if not answering:  # else the answer is cut off, which tells the client that it is not whole
                await _answer(refusal, receive if sending else None, send)
        except _Gone:
            pass

    async def _serve(self, scope: Scope, receive: Receive, send: Send, address: str) -> None:
        if wait := self._requests.take(address_key(address)):
            raise Refused(503, "too-many-requests", "too many requests from this address", retry_s=wait)
        # The path as it was sent: what has to be decoded first is no path of Flower's.
        method, path = scope["method"], scope["raw_path"].decode("ascii", "replace")
        plain = not scope["query_string"]
        if path == HEALTH and method in ("GET", "HEAD") and plain:
            await self._forward(scope, None, None, send)
            return
        if path not in FLEET or method != "POST" or not plain:
            raise Refused(404, "closed-path", "not found")
        length = self._length(scope["headers"], path)
        site = self._identity.check(scope["headers"])
        self.journal.seen(site.name)
        if wait := self._bytes.take(site.name, length):
            raise Refused(
                503,
                "too-many-bytes",
                f"site {site.name} sent its hour's {self.config.site_bytes_per_hour} bytes",
                site.fingerprint,
                site.name,
                retry_s=wait,
            )
        body = self._body(receive, length, site)
        if path == _PUSH_MESSAGES:
            body = await _own_messages(body, site)
        await self._forward(scope, body, site, send)

    def _length(self, headers: Headers, path: str) -> int:
        """Bytes of the body as stated, if so many may come."""
        stated = [value for name, value in headers if name == b"content-length"]
        if any(name == b"transfer-encoding" for name, _ in headers) or len(stated) != 1 or not stated[0].isdigit():
            raise Refused(411, "no-length", "a request must say how long it is")
        length = int(stated[0])
        limit = self.config.object_limit_bytes if path in _LARGE else self.config.request_limit_bytes
        if length > limit:
            raise Refused(413, "too-large", f"the request has {length} bytes, and {limit} are the most")
        return length

    async def _body(self, receive: Receive, length: int, site: Site) -> AsyncIterator[bytes]:
        """The body, piece by piece as it comes, if it comes fast enough."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self.config.pause_s + length / self.config.least_bytes_per_s
        more = True
        while more:
            wait = min(self.config.pause_s, end - loop.time())
            try:
                async with asyncio.timeout(wait):
                    event = await receive()
            except TimeoutError:
                # Not 408: a node behind a bad line is to try again, and at that status Flower's gives up.
                raise Refused(503, "slow-body", "the request came too slowly", site.fingerprint, site.name) from None
            if event["type"] == "http.disconnect":
                raise _Gone
            more = event.get("more_body", False)
            if piece := event.get("body", b""):
                self.journal.moved(site.name, "up", len(piece))
                yield piece

    async def _forward(self, scope: Scope, body: AsyncIterator[bytes] | None, site: Site | None, send: Send) -> None:
        """Pass a request on, and its answer back."""
        method, path = scope["method"], scope["raw_path"].decode("ascii")
        headers = [
            (name, value)
            for name, value in scope["headers"]
            if (name in _REQUEST_HEADERS or name.startswith(_FLOWER))
            and (body is not None or name != b"content-length")
        ]
        request = self._upstream.build_request(
            method, path, headers=[*headers, (b"accept-encoding", b"identity")], content=body
        )
        try:
            response = await self._upstream.send(request, stream=True)
        except httpx.TimeoutException as error:
            raise Refused(504, "superlink-slow", "the server did not answer in time", note=repr(error)) from error
        except httpx.HTTPError as error:
            raise Refused(502, "superlink-away", "the server is not there at the moment", note=repr(error)) from error
        try:
            kept = [
                (name.lower(), value)
                for name, value in response.headers.raw
                if name.lower() in _RESPONSE_HEADERS or name.lower().startswith(_FLOWER)
            ]
            await send({"type": "http.response.start", "status": response.status_code, "headers": kept})
            async for piece in response.aiter_raw():
                if site is not None:
                    self.journal.moved(site.name, "down", len(piece))
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        except httpx.HTTPError as error:
            raise Refused(502, "superlink-away", "the answer broke off", note=repr(error)) from error
        finally:
            await response.aclose()
        self.journal.passed(path, response.status_code)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _own_messages(body: AsyncIterator[bytes], site: Site) -> AsyncIterator[bytes]:
    """Read the heads of a node's replies, and refuse what is sent in another node's name.

    The SuperLink knows whose key signed a request, and to whom the task had gone that a reply answers, but does not
    compare the two. Heads are small: their contents follow as objects.
    """
    content = b"".join([piece async for piece in body])
    try:
        request = fleet_pb2.PushMessagesRequest.FromString(content)
    except DecodeError:
        raise Refused(400, "malformed", "the request is no list of messages", site.fingerprint, site.name) from None
    node = request.node.node_id
    senders = {message.metadata.src_node_id for message in request.messages_list}
    if senders - {node} or site.node_id not in (None, node):
        raise Refused(401, "other-sender", "a reply names another node than its own", site.fingerprint, site.name)

    async def whole() -> AsyncIterator[bytes]:
        yield content

    return whole()


async def _answer(refusal: Refused, receive: Receive | None, send: Send) -> None:
    """Tell whoever asked, and let those who are still sending do so for a little, so that they see it."""
    content = json.dumps({"detail": refusal.detail}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(content)).encode()),
        (b"connection", b"close"),
    ]
    if refusal.retry_s:
        headers.append((b"retry-after", str(int(refusal.retry_s) + 1).encode()))
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": content, "more_body": True})
    read = 0
    try:
        async with asyncio.timeout(_LINGER_S):
            while receive is not None and read < _LINGER_BYTES:
                event = await receive()
                if event["type"] == "http.disconnect" or not event.get("more_body", False):
                    break
                read += len(event.get("body", b""))
    except TimeoutError:
        pass
    await send({"type": "http.response.body", "body": b"", "more_body": False})
