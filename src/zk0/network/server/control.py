"""The operator's way to the SuperLink: commands with the token, and a list of nodes that follows the list of sites.

Flower's open-source SuperLink lets everybody who reaches it register nodes and start runs, and starting a run is
running code at every site. It takes plug-ins for accounts though, and its own `flwr` commands send a bearer token to
servers that they have one for. So one token, made with the federation, is the operator's account.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

from zk0.errors import StageError
from zk0.federation.flower import (
    ACCESS_TOKEN_KEY,
    NOOP_ACCOUNT_NAME,
    NOOP_FLWR_AID,
    AccountAuthCredentials,
    AccountAuthLoginDetails,
    AccountInfo,
    ControlAuthnPlugin,
    ControlHttpClient,
    NodeStatus,
    ProtobufCall,
    ProtobufRequestContext,
    RuntimeVersionHttpInterceptor,
    control_pb2,
)
from zk0.network.security.sites import Site, SiteRegistry


class OperatorAccount(ControlAuthnPlugin):
    """Flower's account plug-in with one account, whose token is the operator's.

    It is Flower's own default account, so that a SuperLink's database stays valid with and without the token.
    """

    def __init__(self, token: str) -> None:
        """Let in whoever brings ``token``."""
        self._token = token.encode()

    def validate_tokens_in_metadata(
        self, metadata: Sequence[tuple[str, str | bytes]]
    ) -> tuple[bool, AccountInfo | None]:
        """Compare the token of a request, in constant time."""
        given = [value for key, value in metadata if key == ACCESS_TOKEN_KEY]
        if len(given) != 1:
            return False, None
        sent = given[0].encode() if isinstance(given[0], str) else given[0]
        if not hmac.compare_digest(sent, self._token):
            return False, None
        return True, AccountInfo(flwr_aid=NOOP_FLWR_AID, account_name=NOOP_ACCOUNT_NAME)

    def get_login_details(self) -> AccountAuthLoginDetails | None:
        """There is no way to log in: the token is in a file of the operator's."""
        return None

    def get_auth_tokens(self, device_code: str) -> AccountAuthCredentials | None:  # noqa: ARG002 - Flower's own
        """No tokens are given out: the one token is in a file of the operator's."""
        return None

    def refresh_tokens(
        self,
        metadata: Sequence[tuple[str, str | bytes]],  # noqa: ARG002 - Flower's own
    ) -> tuple[Sequence[tuple[str, str | bytes]] | None, AccountInfo | None]:
        """No tokens are given out, and so none is renewed."""
        return None, None


class _BringToken:
    """Adds the token to every request."""

    def __init__(self, token: str) -> None:
        self._token = token

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        context.request.headers["Authorization"] = f"Bearer {self._token}"
        return call_next(context)


@contextmanager
def control(address: str, authority: Path, token: str) -> Iterator[ControlHttpClient]:
    """A connection to the SuperLink's Control API.

    Args:
        address: ``HOST:PORT``, on loopback.
        authority: The authority's certificate.
        token: The operator's.

    Raises:
        StageError: It cannot be reached, or does not take the token; says what to do.
    """
    client = ControlHttpClient.from_server_address(
        address,
        insecure=False,
        root_certificates=authority.read_bytes(),
        interceptors=[RuntimeVersionHttpInterceptor(component_name="zk0"), _BringToken(token)],
    )
    try:
        with client:
            yield client
    except httpx.HTTPStatusError as error:
        if error.response.status_code == httpx.codes.UNAUTHORIZED:
            raise StageError(f"the SuperLink at {address} runs with another operator token; restart it") from error
        raise StageError(f"the SuperLink at {address} refused ({error.response.text[:300]})") from error
    except httpx.HTTPError as error:
        raise StageError(f"the SuperLink at {address} cannot be reached ({error}); start it first") from error


def register_sites(registry: SiteRegistry, client: ControlHttpClient) -> list[str]:
    """Make the SuperLink know the admitted sites' present keys and no others; a second time changes nothing.

    A key that the SuperLink does not know cannot reach it even from the server's own machine, past the gateway.

    Args:
        registry: The federation's list; it gets the nodes' numbers.
        client: A connection of :func:`control`.

    Returns:
        What was changed, a sentence each.
    """
    nodes = client.ListNodes(control_pb2.ListNodesRequest()).nodes_info
    known = {node.public_key: node.node_id for node in nodes if node.status != NodeStatus.UNREGISTERED}
    changes = []
    for site in registry.sites():
        key = site.pem
        if not site.admitted:
            if site.node_id is not None:
                registry.registered(site.name, None)
            continue
        node = known.pop(key, None)
        if node is None:
            node = client.RegisterNode(control_pb2.RegisterNodeRequest(public_key=key, name=site.name)).node_id
            changes.append(f"site {site.name} registered as node {node}")
        if site.node_id != node:
            registry.registered(site.name, node)
    for node in known.values():
        client.UnregisterNode(control_pb2.UnregisterNodeRequest(node_id=node))
        changes.append(f"node {node} unregistered: no admitted site has its key")
    return changes


def members_of(sites: Sequence[Site], names: Sequence[str]) -> list[Site]:
    """The admitted sites that the SuperLink knows, or those of them that are named.

    Raises:
        StageError: There are none, or one that is named is not among them.
    """
    found = [site for site in sites if site.admitted and site.node_id is not None]
    known = {site.name for site in found}
    if strange := [name for name in names if name not in known]:
        raise StageError(f"no admitted site is called {', '.join(strange)}; `zk0 site list` shows them")
    chosen = [site for site in found if not names or site.name in names]
    if not chosen:
        raise StageError("no site is admitted; `zk0 site admit NAME PUBKEY --server HOST:PORT` lets one in")
    return chosen
