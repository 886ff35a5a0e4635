"""Security validation: what protects a running federation, looked at from outside and from inside, as a checklist."""

from __future__ import annotations

import ssl
import stat
from collections.abc import Iterator
from pathlib import Path

import httpx

from zk0.checks import Check
from zk0.federation.flower import NodeStatus, RuntimeVersionMetadata, control_pb2
from zk0.network.security.authority import WARN_DAYS, expiries
from zk0.network.server.services import FederationServer
from zk0.params import Params
from zk0.params.federation import ROBUST
from zk0.records.files import rounds_so_far

_CLOSED = ("/v1/control/start-run", "/v1/control/list-runs", "/v1/runtime/acquire-task", "/v1/fleet/register-node")
_START = "`zk0 server start`"


def security_checks(server: FederationServer, params: Params) -> list[Check]:
    """Every check; one of severity ``error`` that fails means that somebody could get in.

    Args:
        server: Whose services run.
        params: The run's.
    """
    return [
        _tls(server),
        *(one.check(WARN_DAYS, "`zk0 security rotate`") for one in expiries(server.places.authority)),
        *_doors(server),
        _keys_registered(server),
        _files_private(server),
        _privacy(server.root, params),
        _robust(params),
    ]


def _tls(server: FederationServer) -> Check:
    wrong = []
    for name, url in (("gateway", server.gateway_url), ("SuperLink", f"https://{server.address}")):
        if not server.answers(url):
            wrong.append(f"the {name} does not answer by TLS")
        try:
            httpx.get(f"{url.replace('https', 'http')}/health", timeout=3, trust_env=False)
            wrong.append(f"the {name} answers plain text")
        except httpx.HTTPError:
            continue
    found = "; ".join(wrong) or "gateway and SuperLink answer by TLS, and nothing else"
    return Check("TLS", not wrong, found, "TLS on both, no plain text", _START)


def _doors(server: FederationServer) -> Iterator[Check]:
    """What answers whom: requests that must be refused are sent, to the gateway and to the SuperLink behind it."""
    gateway, superlink = server.gateway_url, f"https://{server.address}"
    about = dict(RuntimeVersionMetadata.from_local_component("flower-superexec").as_metadata())
    stranger, no_token = f"{gateway}/v1/fleet/pull-messages", f"{superlink}/v1/control/list-runs"
    no_secret, away = f"{superlink}/v1/runtime/acquire-task", httpx.codes.NOT_FOUND
    for name, urls, wanted in (
        ("control closed to the network", {path: f"{gateway}{path}" for path in _CLOSED}, away),
        ("strangers refused", {"a node without a key": stranger}, httpx.codes.UNAUTHORIZED),
        ("control asks for the token", {"without a token": no_token}, httpx.codes.UNAUTHORIZED),
        ("ServerApp's work asks for the secret", {"without a secret": no_secret}, httpx.codes.UNAUTHORIZED),
    ):
        with _client(server) as client:
            answers = {
                what: client.post(url, headers=about if url == no_secret else {}).status_code
                for what, url in urls.items()
            }
        wrong = {what: code for what, code in answers.items() if code != wanted}
        told = ", ".join(f"{what}: {code}" for what, code in (wrong or answers).items())
        yield Check(name, not wrong, told, f"{int(wanted)} for each", f"stop it: `zk0 server stop`; then {_START}")


def _keys_registered(server: FederationServer) -> Check:
    with server.control() as client:
        nodes = client.ListNodes(control_pb2.ListNodesRequest()).nodes_info
    known = {node.public_key for node in nodes if node.status != NodeStatus.UNREGISTERED}
    sites = server.registry.sites()
    lacking = [site.name for site in sites if site.admitted and site.pem not in known]
    strange = known - {site.pem for site in sites if site.admitted}
    wrong = [f"{name} is not registered" for name in lacking]
    wrong += [f"{len(strange)} keys belong to no admitted site"] if strange else []
    found = "; ".join(wrong) or f"{len(known)} keys, each an admitted site's"
    return Check("keys registered", not wrong, found, "the admitted sites' keys and no others", "`zk0 site sync`")


def _files_private(server: FederationServer) -> Check:
    places = server.places
    secrets = (places.operator_token, places.superexec_secret, places.authority / "ca.key")
    wrong = [str(path) for path in secrets if path.exists() and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)]
    found = f"open to others: {', '.join(wrong)}" if wrong else "token, secret and the authority's key are private"
    return Check("secrets private", not wrong, found, "0600", "`chmod 600` them, and make new ones")


def _privacy(root: Path, params: Params) -> Check:
    """The budget of the last run; without privacy there is none, which a person should know."""
    privacy = params.privacy
    advice = "`privacy.mode: site` has every site add noise; see docs/privacy.md"
    if privacy.mode == "off":
        return Check("privacy budget", False, "privacy.mode is off", "central or site", advice, "warning")
    spent = max((one.epsilon for one in rounds_so_far(root) if one.epsilon is not None), default=0.0)
    found, most = f"epsilon {spent:.2f} of {privacy.target_epsilon:g} spent", f"at most {privacy.target_epsilon:g}"
    return Check("privacy budget", spent <= privacy.target_epsilon, found, most, "stop the run: `zk0 server halt`")


def _robust(params: Params) -> Check:
    strategy = params.federation.strategy
    advice = "where a site may be malicious, or broken, a mean follows it; see docs/federation.md"
    return Check(
        "robust strategy", strategy in ROBUST, f"federation.strategy {strategy}", " or ".join(ROBUST), advice, "warning"
    )


def _client(server: FederationServer) -> httpx.Client:
    context = ssl.create_default_context(cafile=str(server.authority))
    headers = {"Content-Type": "application/protobuf"}
    return httpx.Client(verify=context, trust_env=False, timeout=5, headers=headers)
