"""The server's side of a federation over a network: its services, its runs, and what is checked of its security."""
