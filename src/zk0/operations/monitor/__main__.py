"""``python -m zk0.operations.monitor --root FOLDER``: the monitor in the foreground, until SIGTERM."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from zk0.errors import StageError
from zk0.network.config import CONFIG, DeploymentConfig
from zk0.operations.monitor.notify import logger
from zk0.operations.monitor.service import Monitor
from zk0.services.json_logs import log_as_json


def main(arguments: list[str] | None = None) -> None:
    """Run it."""
    parser = argparse.ArgumentParser(prog="python -m zk0.operations.monitor", description=__doc__)
    parser.add_argument("--root", type=Path, default=Path(), help="project folder, with deployment.yaml")
    root = parser.parse_args(arguments).root.resolve()
    log_as_json(logger)
    try:
        Monitor(root, DeploymentConfig.read(root / CONFIG)).run()
    except StageError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
