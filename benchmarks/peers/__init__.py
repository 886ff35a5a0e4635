"""Other projects' own code, run as they run it."""
