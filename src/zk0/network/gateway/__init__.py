"""The only door between the network and a federation's SuperLink: a TLS reverse proxy for registered sites.

Flower's SuperLink serves three interfaces on one port: Fleet for its nodes, Control for whoever starts runs, and
Runtime for the ServerApp's process. It listens on loopback; this gateway stands in front of it and lets through what
a registered site's node needs, and nothing else.

    config.py      what may be set
    identity.py    whose request it is: registered, signed, fresh, not seen before
    journal.py     what was refused, as lines and counters; how many requests and bytes
    proxy.py       the way of one request
    server.py      TLS, start and stop, slow and half-open connections
"""
