"""Timing, and rows that set a figure of ours beside a peer's; shared by the benchmark stage and ``make bench``."""
