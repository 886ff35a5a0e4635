"""Certificates, keys and secrets of one federation; see docs/SECURITY.md."""
