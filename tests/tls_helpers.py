"""Contexts for TLS over an authority that nobody else knows."""

from __future__ import annotations

import ssl

import trustme


def tls_contexts(host: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """For a server that has this name or address, and for clients that trust it."""
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(host).configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client
