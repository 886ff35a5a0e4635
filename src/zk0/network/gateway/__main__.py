"""``python -m zk0.network.gateway --config FILE``: the gateway in the foreground, until SIGTERM."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from zk0.errors import StageError
from zk0.network.gateway.config import GatewayConfig
from zk0.network.gateway.server import check_files, run


def main(arguments: list[str] | None = None) -> None:
    """Run the gateway, or with `--check` only check its files."""
    parser = argparse.ArgumentParser(prog="python -m zk0.network.gateway", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="a YAML file; see zk0.network.gateway.config")
    parser.add_argument("--check", action="store_true", help="check configuration and files, and end")
    given = parser.parse_args(arguments)
    try:
        config = GatewayConfig.read(given.config)
        if given.check:
            check_files(config)
            return
        run(config)
    except StageError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
