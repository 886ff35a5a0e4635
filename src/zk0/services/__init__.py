"""What runs in the background on this machine: processes with a name, a log and an orderly end."""
