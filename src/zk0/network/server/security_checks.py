"""Security validation: what protects a running federation, looked at from outside and from inside, as a checklist."""

from __future__ import annotations

import ssl
import stat
from collections.abc import Iterator
from pathlib import Path

import httpx

from zk0.checks import Check
from zk0.federation.flower import NodeStatus, RuntimeVersionMetadata, control_pb2
from zk0.network.security.authority import expiries
from zk0.network.server.services import FederationServer
from zk0.params import ROBUST, Params
from zk0.records.journal import read_lines
from zk0.records.paths import RESULTS

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
        *_certificates(server),
        _gateway_closed(server),
        _strangers_refused(server),
        _control_closed(server),
        _runtime_closed(server),
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


def _certificates(server: FederationServer) -> Iterator[Check]:
    for one in expiries(server.places.authority):
        yield Check(
            f"certificate of {one.name}",
            one.state == "ok",
            f"{one.days_left} days left",
            "30 days or more",
            "`zk0 security rotate`",
            "error" if one.state == "expired" else "warning",
        )


def _gateway_closed(server: FederationServer) -> Check:
    with _client(server) as client:
        answers = {path: client.post(f"{server.gateway_url}{path}").status_code for path in _CLOSED}
    return _codes("control closed to the network", answers, httpx.codes.NOT_FOUND)


def _strangers_refused(server: FederationServer) -> Check:
    with _client(server) as client:
        answers = {"a node without a key": client.post(f"{server.gateway_url}/v1/fleet/pull-messages").status_code}
    return _codes("strangers refused", answers, httpx.codes.UNAUTHORIZED)


def _control_closed(server: FederationServer) -> Check:
    with _client(server) as client:
        answer = client.post(f"https://{server.address}/v1/control/list-runs").status_code
    return _codes("control asks for the token", {"without a token": answer}, httpx.codes.UNAUTHORIZED)


def _runtime_closed(server: FederationServer) -> Check:
    about = dict(RuntimeVersionMetadata.from_local_component("flower-superexec").as_metadata())
    with _client(server) as client:
        answer = client.post(f"https://{server.address}/v1/runtime/acquire-task", headers=about).status_code
    return _codes("ServerApp's work asks for the secret", {"without a secret": answer}, httpx.codes.UNAUTHORIZED)


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
    rows = [row for row in read_lines(root / RESULTS / "rounds.jsonl") if row.get("epsilon") is not None]
    spent = max((float(row["epsilon"]) for row in rows), default=0.0)
    found, most = f"epsilon {spent:.2f} of {privacy.target_epsilon:g} spent", f"at most {privacy.target_epsilon:g}"
    return Check("privacy budget", spent <= privacy.target_epsilon, found, most, "stop the run: `zk0 server halt`")


def _robust(params: Params) -> Check:
    strategy = params.federation.strategy
    advice = "where a site may be malicious, or broken, a mean follows it; see docs/federation.md"
    return Check(
        "robust strategy", strategy in ROBUST, f"federation.strategy {strategy}", " or ".join(ROBUST), advice, "warning"
    )


def _codes(name: str, answers: dict[str, int], wanted: int) -> Check:
    wrong = {what: code for what, code in answers.items() if code != wanted}
    told = ", ".join(f"{what}: {code}" for what, code in (wrong or answers).items())
    return Check(name, not wrong, told, f"{int(wanted)} for each", f"stop it: `zk0 server stop`; then {_START}")


def _client(server: FederationServer) -> httpx.Client:
    context = ssl.create_default_context(cafile=str(server.authority))
    headers = {"Content-Type": "application/protobuf"}
    return httpx.Client(verify=context, trust_env=False, timeout=5, headers=headers)
