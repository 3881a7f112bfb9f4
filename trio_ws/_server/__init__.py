"""Servers: listeners, one handler for each connection, and a graceful shutdown.

Read `server` first. The command line does not come in here.
"""
