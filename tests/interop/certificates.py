"""TLS for both sides of a test, told to the peer's process by its environment."""

from __future__ import annotations

import os
import ssl

#: Where the server's certificate is, if the connections are to be over TLS.
CERTIFICATE = "INTEROP_CERTIFICATE"


def scheme() -> str:
    return "wss" if CERTIFICATE in os.environ else "ws"


def server_context() -> ssl.SSLContext | None:
    certificate = os.environ.get(CERTIFICATE)
    if certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return context


def client_context() -> ssl.SSLContext | None:
    """It trusts what the environment says: OpenSSL reads ``SSL_CERT_FILE``."""
    return ssl.create_default_context() if CERTIFICATE in os.environ else None
