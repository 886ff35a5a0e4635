"""``python -m zk0.deployment.monitor --root FOLDER``: the monitor in the foreground, until SIGTERM."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from zk0.deployment.config import CONFIG, DeploymentConfig
from zk0.deployment.monitor.service import Monitor
from zk0.deployment.monitor.telling import logger
from zk0.deployment.services.lines import log_as_json
from zk0.errors import StageError


def main(arguments: list[str] | None = None) -> None:
    """Run it."""
    parser = argparse.ArgumentParser(prog="python -m zk0.deployment.monitor", description=__doc__)
    parser.add_argument("--root", type=Path, default=Path(), help="project folder, with deployment.yaml")
    root = parser.parse_args(arguments).root.resolve()
    log_as_json(logger)
    try:
        Monitor(root, DeploymentConfig.read(root / CONFIG)).run()
    except StageError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
