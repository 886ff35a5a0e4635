"""A project: the folder that `zk0 init` lays out, and in which every other command is typed. A clone is one already."""
