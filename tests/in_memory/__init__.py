"""`trio_ws.testing`: applications and connections in memory, faulty streams, the pytest plugin."""
