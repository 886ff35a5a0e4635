"""Client app, server app, the messages between them, aggregation and resumable state."""
