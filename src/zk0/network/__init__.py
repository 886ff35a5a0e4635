"""A federation between machines: its security, its gateway, the server's side and the client's."""
