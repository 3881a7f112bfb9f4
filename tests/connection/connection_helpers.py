"""Both sides of a connection, and a whole message in pieces, for tests of connections."""

from __future__ import annotations

import pytest

from tests.helpers import open_client_with_raw_server, open_server_with_raw_client
from trio_ws import WebSocket

BOTH_SIDES = pytest.mark.parametrize(
    "open_raw", [open_server_with_raw_client, open_client_with_raw_server], ids=["server", "client"]
)


async def collect(ws: WebSocket) -> list[str | bytes]:
    async with ws.receive_message() as chunks:
        return [chunk async for chunk in chunks]
