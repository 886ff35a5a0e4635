"""Held-out loss, action error, rollouts, safety, and how sure they are."""
