"""Sources, episodes, partitions, checks: whose demonstrations are trained on."""
