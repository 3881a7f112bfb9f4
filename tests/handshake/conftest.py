"""A certificate for the servers of the tests of handshakes."""

from __future__ import annotations

import ssl

import pytest

from tests.tls_helpers import tls_contexts


@pytest.fixture(scope="module")
def server_tls() -> ssl.SSLContext:
    context, _ = tls_contexts("example.org")
    return context
