"""Prefect tasks: thin wrappers that add retries, artifacts and states to zk0's stages."""
