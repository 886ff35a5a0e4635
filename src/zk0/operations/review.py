"""Configuration review: every setting that is risky where sites are strangers and the network is hostile, and why."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from zk0.checks import Check
from zk0.hub import moving
from zk0.network.config import CONFIG, DeploymentConfig, is_loopback
from zk0.params import PARAMS_FILE, Params
from zk0.params.federation import ROBUST

_SHORT_S, _LONG_S = 60.0, 3600.0
_WEAK_EPSILON = 10.0


def review(root: Path, params: Params, config: DeploymentConfig) -> list[Check]:
    """Everything risky in params.yaml and deployment.yaml, the gravest first: a warning, or a note.

    Each is named by where it is set, and to what; what was found is what may come of it.
    """
    found = [*_federation(params), *_privacy(params), *_models(params), *_network(config), *_watching(config)]
    found += _files(root)
    return sorted(found, key=lambda risk: risk.severity == "note")


def _risk(setting: str, why: str, better: str, high: bool = False) -> Check:
    """A setting that may be wanted, and has a price; high where others can do harm, else mostly a nuisance."""
    return Check(setting, False, why, "", better, "warning" if high else "note")


def _federation(params: Params) -> Iterator[Check]:
    federation = params.federation
    if federation.strategy not in ROBUST:
        yield _risk(
            f"federation.strategy {federation.strategy}",
            "it averages: one site with a broken or malicious update moves the model wherever it likes",
            "multi-krum, trimmed-mean or fedmedian, where sites are not all trusted",
            high=True,
        )
    if federation.weighting != "equal" and params.privacy.mode == "off":
        yield _risk(
            f"federation.weighting {federation.weighting}",
            "every site says itself how many examples it has; one that exaggerates decides the average",
            "equal",
        )
    if federation.min_replies < 0.5:
        yield _risk(
            f"federation.min_replies {federation.min_replies:g}",
            "a minority of the sites can decide a round, and its model is a model of their data",
            "0.5 or more",
            high=True,
        )
    if federation.min_replies == 1.0:
        yield _risk(
            "federation.min_replies 1",
            "over a network sites come and go, and one that is away ends the run",
            "what may be missing of a round, as 0.6",
        )
    if federation.timeout_s < _SHORT_S:
        yield _risk(
            f"federation.timeout_s {federation.timeout_s:g}",
            "sites with slow lines or many steps never get their replies in",
            "several times what a round takes",
        )
    if federation.timeout_s > _LONG_S:
        yield _risk(
            f"federation.timeout_s {federation.timeout_s:g}",
            "one site that hangs holds up every round for so long",
            "several times what a round takes",
        )


def _privacy(params: Params) -> Iterator[Check]:
    privacy = params.privacy
    if privacy.mode == "off":
        yield _risk(
            "privacy.mode off",
            "the server sees every site's update, and the model may tell of the demonstrations it was trained on",
            "site (each site adds noise) or central; see docs/privacy.md",
            high=True,
        )
    elif privacy.target_epsilon > _WEAK_EPSILON:
        yield _risk(
            f"privacy.target_epsilon {privacy.target_epsilon:g}",
            "above 10 the promise is weak: whether a site took part can nearly always be told",
            "8 or less",
        )
    if privacy.mode == "central":
        yield _risk(
            "privacy.mode central",
            "the server adds the noise, so it sees every site's clipped update as it is",
            "site, where the operator is not trusted with the updates",
        )


def _models(params: Params) -> Iterator[Check]:
    if not params.promotion.require_safe:
        yield _risk(
            "promotion.require_safe false",
            "a model that moves joints out of their range, or too fast, can become the champion that drives arms",
            "true",
            high=True,
        )
    if moving(params.policy.base, ""):
        yield _risk(
            f"policy.base {params.policy.base}",
            "a branch of the Hub: whoever owns the repository can change what the next run starts from",
            "name the commit after the @",
        )


def _network(config: DeploymentConfig) -> Iterator[Check]:
    if "federation" in config.services:
        away = [host for host in config.hosts if not is_loopback(host)]
        if not away:
            yield _risk(
                f"hosts {', '.join(config.hosts)}",
                "the certificate is for this machine alone: sites on others refuse the server",
                "the name or address by which they reach it",
            )
        if away and is_loopback(config.listen):
            yield _risk(f"listen {config.listen}", "no other machine reaches the gateway", "0.0.0.0, or one address")
        if not is_loopback(config.listen) and config.listen in ("0.0.0.0", "::"):
            yield _risk(
                f"listen {config.listen}",
                "the gateway answers on every network that this machine is in",
                "the one address that sites use, or a firewall",
            )
    for name, url in (("mlflow_url", config.mlflow_url), ("prefect_url", config.prefect_url)):
        parts = urlsplit(url or "")
        if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
            yield _risk(
                f"{name} {parts.scheme}://{parts.netloc.rpartition('@')[2]}",
                "plain text: params, metrics and models can be read and changed on the way",
                "https, or a tunnel to loopback",
                high=True,
            )


def _watching(config: DeploymentConfig) -> Iterator[Check]:
    webhook = config.alerts.webhook
    if "monitor" not in config.services:
        yield _risk("services without monitor", "nobody is told when a site or a round fails", "add monitor")
    elif webhook is None:
        yield _risk(
            "alerts.webhook null",
            "alerts are shown by `zk0 status`, and as events where Prefect runs, and sent to nobody",
            "an address that takes JSON",
        )
    if webhook is None or webhook.startswith("file:"):
        return
    parts = urlsplit(webhook)
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        yield _risk(
            f"alerts.webhook http://{parts.hostname}",
            "plain text: names of sites and what fails can be read and changed on the way",
            "https",
            high=True,
        )
    if parts.path.strip("/") or parts.query or parts.password:
        yield _risk(
            f"alerts.webhook of {parts.hostname}",
            "such an address often holds a secret, and this file is for everybody to read",
            "file:security/webhook, a file with the address that only you may read",
        )


def _files(root: Path) -> Iterator[Check]:
    for name in (PARAMS_FILE, CONFIG):
        path = root / name
        if path.exists() and path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            yield _risk(
                f"{name} may be written by others",
                "who changes it decides how the model is trained, or who is told of a failure",
                f"`chmod 644 {name}`",
                high=True,
            )
