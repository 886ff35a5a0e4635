"""Whether the Hub can be used, and the ports of the local services."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from zk0.checks import Check
from zk0.params import Params
from zk0.sources_lock import starting_policy

SERVICES = {"Prefect": (4200, "/api/health", b"true"), "MLflow": (5000, "/health", b"OK")}


def check_hub(params: Params) -> list[Check]:
    """Access to the Hugging Face Hub, where params use it; public repositories need no token."""
    used = [*params.data.sites.values(), *params.data.unseen.values(), starting_policy(params)]
    if not any(text.startswith("hub:") for text in used):
        return []
    on = ("1", "true", "yes", "on")
    offline = [n for n in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if os.environ.get(n, "").lower() in on]
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    token = os.environ.get("HF_TOKEN") or Path(os.environ.get("HF_TOKEN_PATH") or home / "token").is_file()
    return [
        Check(
            "hub access",
            not offline,
            f"{' and '.join(offline)} set" if offline else "online",
            "online, for hub: sources",
            "unset them, unless everything is in the local Hub cache already",
            "warning",
        ),
        Check(
            "hub token",
            bool(token),
            "a token" if token else "no token",
            "a token, for private or gated repositories",
            "`hf auth login`; not needed for public repositories",
            "warning",
        ),
    ]


def check_port(service: str) -> Check:
    """A port is fine when it is free, or when the service it is for already answers there."""
    port, path, answer = SERVICES[service]
    check = {"name": f"port {port}", "expected": f"free for {service}, or {service} itself"}
    advice = f"find who uses it (`lsof -i :{port}`), or start {service} on another port"
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=0.1) as connection:
            connection.settimeout(0.3)
            connection.sendall(f"GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
            reply = b""
            while block := connection.recv(4096):
                reply += block
    except TimeoutError:
        reply = b""
    except OSError:
        return Check(passed=True, found="free", advice=advice, severity="warning", **check)
    itself = b" 200 " in reply.partition(b"\r\n")[0] and reply.endswith(answer)
    found = f"{service} is running" if itself else "in use by something else"
    return Check(passed=itself, found=found, advice=advice, severity="warning", **check)
