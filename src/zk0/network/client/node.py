"""The services of a site: the trainer, Flower's SuperNode, and the SuperExec that starts a process per message."""

from __future__ import annotations

import json
import re
import secrets
import socket
import ssl
import sys
from pathlib import Path

import httpx

from zk0.errors import StageError
from zk0.files import write_bytes, write_text
from zk0.network.client.membership import Membership
from zk0.network.security.invitation import Invitation
from zk0.private_files import private_folder
from zk0.services.process import Services, own_environment

TRAINER, SUPERNODE, SUPEREXEC = "trainer", "supernode", "superexec"
NAMES = (SUPEREXEC, SUPERNODE, TRAINER)  # the order in which they are stopped

_LOADING_S = 600.0  # a large policy on a slow disk, and its frames' features
_NODE = re.compile(r"SuperNode ID: (\d+)")


def check_server(invitation: Invitation) -> None:
    """See whether the federation's server answers, and is the federation's.

    Raises:
        StageError: It does not, or is not; says which.
    """
    server = invitation.server
    trusted = ssl.create_default_context(cadata=invitation.authority)
    try:
        answer = httpx.get(f"https://{server}/health", verify=trusted, timeout=10, trust_env=False)
    except httpx.HTTPError as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise StageError(
                f"what answers at {server} is not the federation's server, or its certificate has ended ({error}). "
                "Ask the operator, who sees it with `zk0 security show`; nothing was sent"
            ) from error
        raise StageError(
            f"the server at {server} does not answer ({error or type(error).__name__}); is this machine on the "
            "network, and is the federation's server running? The operator knows whether its address has changed"
        ) from error
    if answer.status_code != 200:
        raise StageError(
            f"the server at {server} is there and not ready (status {answer.status_code}); try again later"
        )


def start_node(membership: Membership, wait_s: float = 60.0) -> str | None:
    """Start the site's services, and wait for the SuperNode to be let in.

    Args:
        membership: Whose.
        wait_s: For how long; the SuperNode goes on trying by itself.

    Returns:
        Flower's number of the node; None where it was not let in yet.

    Raises:
        StageError: All run already, the owner has left, or one of them ended; then none is left running.
    """
    if membership.left:
        raise StageError(
            f"site '{membership.invitation.site}' has left; `zk0 client join` with an invitation joins again"
        )
    services = membership.services
    if set(NAMES) <= set(services.running()):
        raise StageError(f"site '{membership.invitation.site}' takes part already; `zk0 client status` shows how")
    stop_node(membership)  # what is left where one of them ended
    try:
        return _start(membership, services, wait_s)
    except BaseException:
        stop_node(membership)
        raise


def stop_node(membership: Membership) -> list[str]:
    """Stop the site's services, the trainer last; a message that is being served is lost, and its round told so.

    Returns:
        Names of those that were running.
    """
    return membership.services.stop(NAMES)


def node_number(membership: Membership, start: int = 0) -> str | None:
    """Flower's number of the node, once the server has let it in; None before.

    Args:
        membership: Whose.
        start: Where in the SuperNode's log to begin, in bytes: what is before is of earlier starts.
    """
    return number_in(membership.services.log(SUPERNODE), start)


def number_in(log: Path, start: int = 0) -> str | None:
    """The last number of a node in its log; see :func:`node_number`."""
    found = _NODE.findall(log.read_bytes()[start:].decode(errors="replace")) if log.exists() else []
    return str(found[-1]) if found else None


def _start(membership: Membership, services: Services, wait_s: float) -> str | None:
    from zk0.network.client.channel import connected, socket_path  # noqa: PLC0415 - Flower is slow

    folder = membership.folder
    env = own_environment(FLWR_HOME=str(folder / "state" / "flower"))
    services.launch(TRAINER, [sys.executable, "-m", "zk0.network.client", "--project", str(folder)], env)

    def trainer_answers() -> bool:
        with connected(socket_path(folder, membership.invitation.partition)):
            return True

    services.await_ready(TRAINER, trainer_answers, _LOADING_S)
    port, secret = free_port(), _new_secret(folder)
    log = services.log(SUPERNODE)
    before = log.stat().st_size if log.exists() else 0
    services.launch(SUPERNODE, _supernode(membership, port, secret), env, folder)
    services.await_ready(SUPERNODE, lambda: _listens(port), 120.0)
    runtime = ["--runtime-api-address", f"127.0.0.1:{port}", "--superexec-auth-secret-file", str(secret)]
    # A message whose process died with its SuperExec is never answered, unless the node says that it began anew.
    command = [sys.executable, "-m", "zk0.network.superexec", "--insecure", *runtime]
    services.launch(SUPEREXEC, command, env, folder, after=[port], renews=[SUPERNODE])
    try:
        services.await_ready(SUPERNODE, lambda: node_number(membership, before) is not None, wait_s)
    except StageError as error:
        if SUPERNODE not in services.running():  # where the server refuses, the SuperNode ends
            raise StageError(
                f"the server did not let site '{membership.invitation.site}' in; the operator sees why in the "
                f"gateway's log, and `zk0 site list` tells whether it is admitted.\n{services.tail(SUPERNODE)}"
            ) from error
    return node_number(membership, before)


def _supernode(membership: Membership, port: int, secret: Path) -> list[str]:
    invitation, run = membership.invitation, membership.folder / ".run"
    write_text(run / "authority.pem", invitation.authority)
    # TOML takes a string as JSON writes it
    node = f"project = {json.dumps(str(membership.folder))}\npartition-id = {invitation.partition}\n"
    node += f"trainer-wait-s = {_LOADING_S:.0f}"
    write_text(run / "node.toml", node)
    return [
        *(sys.executable, "-m", "zk0.network.client.supernode"),
        *("--node-number", str(membership.services.log(SUPERNODE)), "--superlink", invitation.server),
        *("--root-certificates", str(run / "authority.pem")),
        *("--auth-supernode-private-key", str(membership.key.path)),
        *("--node-config", str(run / "node.toml"), "--host", "127.0.0.1", "--port", str(port)),
        # without the secret, every account of this machine could take the node's messages
        *("--isolation", "process", "--superexec-auth-secret-file", str(secret)),
    ]


def _new_secret(folder: Path) -> Path:
    path = private_folder(folder / ".run" / "private") / "superexec.secret"
    write_bytes(path, secrets.token_urlsafe(32).encode(), mode=0o600)
    return path


def free_port() -> int:
    """A port on loopback that nothing uses now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=2):
        return True
