"""A deployment, and what operates it; a package, so that what is shared in it ends with it."""
