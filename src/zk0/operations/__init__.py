"""A deployment in operation: services kept alive, watched, backed up and looked after."""
