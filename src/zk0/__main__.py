"""`zk0`, and `python -m zk0`: refuses where nothing of it would run, before anything that could not even be loaded."""

import os
import sys

from zk0.cli import WARM


def main() -> None:
    """Entry point."""
    if sys.platform == "win32":  # files could not be locked
        sys.exit("error: zk0 runs on Linux, and as a site on macOS; on Windows install it inside WSL")
    if WARM in os.environ:
        from zk0.cli.warm import by_a_fork  # noqa: PLC0415 - could not be loaded there, and takes its time

        if (status := by_a_fork()) is not None:
            sys.exit(status)
    from zk0.cli.app import main as command  # noqa: PLC0415 - could not be loaded there

    command()


if __name__ == "__main__":
    main()
