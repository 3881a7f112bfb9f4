"""Clients that open their own stream, over TCP, Unix sockets and TLS."""
