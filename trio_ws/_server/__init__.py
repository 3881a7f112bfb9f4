"""Servers: listeners, one handler for each connection, and a graceful shutdown.

Read `server` first, and then `visit`: what happens to one connection. The command line does not
come in here.
"""
