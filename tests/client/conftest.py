"""A certificate for the servers of the tests of clients, and a context that trusts it."""

from __future__ import annotations

import ssl

import pytest

from tests.client.client_helpers import AUTHORITY, LOOPBACK


@pytest.fixture(scope="module")
def server_tls() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    AUTHORITY.issue_cert("localhost", LOOPBACK).configure_cert(context)
    return context


@pytest.fixture(scope="module")
def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context
