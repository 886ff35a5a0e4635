"""Every command of `zk0`. What a command needs is imported when it runs, so that `zk0 --help` is quick."""

WARM = "ZK0_WARM"  # the variable that says where a warm process listens, see :mod:`zk0.cli.warm`
