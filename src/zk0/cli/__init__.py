"""Every command of `zk0`. What a command needs is imported when it runs, so that `zk0 --help` is quick."""
