"""Telemetry of every library off, their chatter down and their memory on large pages, before any is imported.

A setting that is already in the environment is left as it is.
"""

from __future__ import annotations

import os

SETTINGS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "DVC_NO_ANALYTICS": "1",
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # PyTorch's large tensors then come in 2 MB pages: a new 400 MB tensor costs half as long.
    "THP_MEM_ALLOC_ENABLE": "1",
}


def switch_off() -> None:
    """Put the settings into this process's environment, and so into its children's."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
