"""Servers: serving, admission, shutdown, and handlers that fail."""
