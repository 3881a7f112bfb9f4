"""A certificate for the servers of the tests of handshakes."""

from __future__ import annotations

import ssl

import pytest
import trustme


@pytest.fixture(scope="module")
def server_tls() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("example.org").configure_cert(context)
    return context
