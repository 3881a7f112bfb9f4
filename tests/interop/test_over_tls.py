"""aiohttp and `websockets` over TLS, as clients and as servers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trustme

from tests.interop import scenarios
from tests.interop.certificates import CERTIFICATE
from tests.interop.messages import KINDS
from tests.interop.processes import python_peer
from tests.interop.scenarios import HOST, WITH_AN_ANSWER_OF_ITS_OWN

PEERS = ["aiohttp", "websockets_asyncio"]
peers = pytest.mark.parametrize("peer", PEERS)
kinds = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(autouse=True)
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate for servers here, which clients here trust."""
    authority = trustme.CA()
    own = authority.issue_cert(HOST).private_key_and_cert_chain_pem
    own.write_to_path(tmp_path / "server.pem")
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv(CERTIFICATE, os.fspath(tmp_path / "server.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", os.fspath(tmp_path / "authority.pem"))


@kinds
@peers
async def test_its_client_gets_every_size_back(peer: str, kind: str) -> None:
    await scenarios.check_echo_to_client(python_peer(f"{peer}_client"), kind)


@peers
async def test_its_client_closes_with_code_and_reason(peer: str) -> None:
    await scenarios.check_close_by_client(python_peer(f"{peer}_client"))


@peers
async def test_its_client_is_told_code_and_reason(peer: str) -> None:
    answer = (1000, "") if peer == "aiohttp" else (4001, "done")
    await scenarios.check_close_to_client(python_peer(f"{peer}_client"), answer)


@kinds
@peers
async def test_our_client_gets_every_size_back(peer: str, kind: str) -> None:
    server = python_peer(f"{peer}_server")
    await scenarios.check_echo_from_server(server, kind, WITH_AN_ANSWER_OF_ITS_OWN)


@peers
async def test_its_server_closes_with_code_and_reason(peer: str) -> None:
    await scenarios.check_close_by_server(python_peer(f"{peer}_server"))


@peers
async def test_its_server_is_told_code_and_reason(peer: str) -> None:
    await scenarios.check_close_to_server(python_peer(f"{peer}_server"))
