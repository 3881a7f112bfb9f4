"""The opening handshake on both sides, and proxies in front of a server."""
