"""Groups of `zk0` commands whose own rooms import too much for `zk0 --help`; the others are with their rooms."""
