"""What a run writes: its files, their paths and their contents."""
