"""`WebSocket`, the end in bad order: lost transports, writes that fail, streams that break."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from tests.connection.connection_helpers import BOTH_SIDES
from tests.helpers import TEXT, open_pair, open_server_with_raw_client, reset, tcp_pair
from trio_ws import ConnectionEnded, ConnectionLost, Initiator
from trio_ws.testing import FaultyStream

pytestmark = pytest.mark.autojump


@BOTH_SIDES
async def test_an_end_of_file_without_a_close_frame_is_1006_at_once(open_raw: Any) -> None:
    async with open_raw() as (ws, peer):
        await peer.send_frame(TEXT, b"last words")
        await peer.stream.aclose()
        start = trio.current_time()
        assert await ws.receive() == "last words"
        with pytest.raises(ConnectionLost) as caught:
            await ws.receive()
        assert trio.current_time() == start
        assert caught.value.reason.code == 1006
        assert caught.value.reason.initiator is Initiator.REMOTE
        with pytest.raises(ConnectionLost):
            await ws.send("x")


async def test_a_broken_transport_is_1006_with_the_cause_kept() -> None:
    client_stream, server_stream = trio.testing.memory_stream_pair()
    stream = FaultyStream(client_stream, fail_at=5)
    async with open_pair(streams=(stream, server_stream)) as (client, server):
        await server.send("x")
        await client.receive()
        await server.send("y")
        with pytest.raises(ConnectionLost, match=r"1006.*injected fault") as caught:
            while True:
                await client.receive()
        assert isinstance(caught.value.__cause__, trio.BrokenResourceError)
        assert client.close_reason is not None


async def test_a_failed_write_reports_the_close_frame_that_explains_it() -> None:
    async with open_server_with_raw_client(streams=await tcp_pair()) as (ws, peer):
        await peer.send_close(4008, "policy")
        await peer.stream.aclose()
        with pytest.raises(ConnectionLost, match="4008"):
            while True:
                await ws.send(b"x" * 10_000)


async def test_a_send_that_finds_the_connection_broken_raises_itself() -> None:
    client_stream, server_stream = await tcp_pair()
    async with open_server_with_raw_client(streams=(client_stream, server_stream)) as (ws, _):
        reset(client_stream)
        with pytest.raises(ConnectionLost, match="1006"):
            await ws.send("x")


async def test_an_answer_that_cannot_be_written_does_not_change_the_peers_reason() -> None:
    client_stream, server_stream = trio.testing.memory_stream_pair()
    stream = FaultyStream(server_stream)
    async with open_server_with_raw_client(streams=(client_stream, stream)) as (ws, peer):
        await trio.testing.wait_all_tasks_blocked()
        stream.fail_sends()
        await peer.send_close(1000)
        with pytest.raises(ConnectionEnded) as caught:
            await ws.receive()
        assert caught.value.__cause__ is None
        await ws.wait_closed()
        with pytest.raises(ConnectionEnded) as caught:
            await ws.receive()
        assert caught.value.__cause__ is None


async def test_a_transport_that_breaks_after_the_close_frames_does_not_change_the_reason() -> None:
    class CannotEnd(FaultyStream, trio.abc.HalfCloseableStream):
        async def send_eof(self) -> None:
            await trio.lowlevel.checkpoint()
            raise trio.BrokenResourceError("the peer is gone")

    client_stream, server_stream = trio.testing.memory_stream_pair()
    async with open_server_with_raw_client(streams=(client_stream, CannotEnd(server_stream))) as (
        ws,
        peer,
    ):
        await peer.send_close(1000)
        assert (await ws.wait_closed()).code == 1000
        with pytest.raises(ConnectionEnded) as caught:
            await ws.receive()
        assert caught.value.__cause__ is None


async def test_a_failed_write_without_an_explanation_is_1006_soon() -> None:
    # A stream whose writes fail while its reads hang: what a half-broken proxy looks like.
    client_stream, server_stream = trio.testing.memory_stream_pair()
    stream = FaultyStream(server_stream)
    async with open_server_with_raw_client(streams=(client_stream, stream)) as (ws, _):
        stream.fail_sends()
        start = trio.current_time()
        await ws.send("lost")
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(ConnectionLost, match="1006") as caught:
            await ws.send("too late")
        assert trio.current_time() - start <= 1.1
        assert isinstance(caught.value.__cause__, trio.BrokenResourceError)


async def test_send_nowait_after_a_failed_write_does_not_wait_to_say_so() -> None:
    client_stream, server_stream = trio.testing.memory_stream_pair()
    stream = FaultyStream(server_stream)
    async with open_server_with_raw_client(streams=(client_stream, stream)) as (ws, _):
        stream.fail_sends()
        ws.send_nowait("lost")
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(ConnectionLost, match="1006") as caught:
            ws.send_nowait("too late")
        assert isinstance(caught.value.__cause__, trio.BrokenResourceError)


async def test_a_write_that_fails_while_reading_is_paused_does_not_wait_for_the_reader() -> None:
    client_stream, server_stream = trio.testing.memory_stream_pair()
    stream = FaultyStream(server_stream)
    async with open_server_with_raw_client(
        streams=(client_stream, stream), max_queued_messages=1
    ) as (ws, peer):
        await peer.send_frame(TEXT, b"1")
        await peer.send_frame(TEXT, b"2")
        await trio.testing.wait_all_tasks_blocked()
        stream.fail_sends()
        await ws.send("lost")
        await trio.testing.wait_all_tasks_blocked()
        assert ws.close_reason is not None
        assert await ws.receive() == "1"


@pytest.mark.parametrize("error", [trio.ClosedResourceError, trio.BusyResourceError, OSError])
async def test_a_stream_that_cannot_be_closed_quietly_does_not_keep_us(
    error: type[Exception],
) -> None:
    class Loud(FaultyStream):
        async def aclose(self) -> None:
            await super().aclose()
            raise error

    client_stream, server_stream = trio.testing.memory_stream_pair()
    async with open_server_with_raw_client(streams=(client_stream, Loud(server_stream))) as (
        ws,
        peer,
    ):
        await peer.send_close(1000)
        assert (await ws.wait_closed()).code == 1000


@pytest.mark.parametrize("failing", ["receive_some", "send_all", "aclose"])
async def test_an_error_of_a_streams_own_ends_its_connection_and_is_logged(
    failing: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Strange(FaultyStream):
        strange = ""

        async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
            self.fail_in("receive_some")
            return await super().receive_some(max_bytes)

        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            self.fail_in("send_all")
            await super().send_all(data)

        async def aclose(self) -> None:
            await super().aclose()
            self.fail_in("aclose")

        def fail_in(self, operation: str) -> None:
            if self.strange == operation:
                raise KeyError("strange")

    client_stream, server_stream = trio.testing.memory_stream_pair()
    strange = Strange(server_stream)
    async with open_server_with_raw_client(streams=(client_stream, strange)) as (ws, peer):
        strange.strange = failing
        await peer.send_frame(TEXT, b"a")
        assert await ws.receive() == "a"
        if failing == "aclose":
            await peer.send_close(1000)
            assert (await ws.wait_closed()).code == 1000
        else:
            with pytest.raises(ConnectionLost) as caught:
                while True:
                    await ws.send("b")
            assert isinstance(caught.value.__cause__, KeyError)
    assert "strange" in caplog.text


async def test_a_reason_of_the_peer_cannot_look_like_lines_of_a_log() -> None:
    async with open_server_with_raw_client() as (ws, peer):
        await peer.send_close(4000, "bye\nERROR \x1b[31mé")
        reason = await ws.wait_closed()
        assert reason.reason == "bye\nERROR \x1b[31mé"
        assert str(reason) == "4000, closed by the peer: bye\\nERROR \\x1b[31mé"
        assert "\n" not in repr(ws)
