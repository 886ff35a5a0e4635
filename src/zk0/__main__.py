"""`python -m zk0` is `zk0`."""

from zk0.cli.app import main

main()
