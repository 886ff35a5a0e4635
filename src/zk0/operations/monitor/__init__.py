"""Watching a federation: what its files and services tell, as metrics for Prometheus and as alerts."""
