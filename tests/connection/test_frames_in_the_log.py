"""A logger at `DEBUG` is told of each frame, whoever sends or reads it."""

from __future__ import annotations

import logging

import pytest
import trio

from tests.connection.reading_helpers import open_raw
from tests.helpers import CONTINUATION, FIN, PING, PONG, TEXT

pytestmark = pytest.mark.autojump


async def test_frames_of_all_kinds_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "trio_ws")
    async with open_raw(ping_interval=10) as (ws, peer):
        caplog.clear()
        await peer.send_frame(PING, b"theirs")
        assert await peer.receive_frame() == (FIN | PONG, b"theirs")
        async with ws.open_message("text") as writer:
            await writer.send("a piece")
        assert await peer.receive_frame() == (TEXT, b"a piece")
        assert await peer.receive_frame() == (FIN | CONTINUATION, b"")
        await trio.sleep(10)  # keepalive pings
        first, payload = await peer.receive_frame() or (0, b"")
        assert first == FIN | PING
        await peer.send_frame(PONG, payload)
        await trio.testing.wait_all_tasks_blocked()
        told = [record.getMessage().split()[1:3] for record in caplog.records]
        await peer.send_close(1000)
    assert told == [
        ["received", "Ping"],
        ["owed", "Pong"],
        ["sent", "fragment"],
        ["sent", "fragment"],
        ["sent", "Ping"],
        ["received", "Pong"],
    ]
