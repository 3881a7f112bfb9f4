"""Sockets and other streams, and accepting connections."""
