"""A message to many is compressed once for each agreement, and each reads it in order."""

from __future__ import annotations

from math import inf

import pytest
import trio
import trio.testing
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.sync.client import connect

from tests.helpers import open_pair, open_server
from trio_ws import Deflate, DropOldest, WebSocket, open_broadcast
from trio_ws.testing import FaultyStream

pytestmark = pytest.mark.autojump


@pytest.mark.parametrize("takeover", [True, False])
@pytest.mark.parametrize("slow", [True, False])
async def test_a_message_is_compressed_once_for_each_agreement_and_read_in_order(
    takeover: bool, slow: bool
) -> None:
    server = {
        "compression": Deflate(threshold=100, server_context_takeover=takeover),
        "ping_interval": inf,
    }
    plain = {"compression": None, "ping_interval": inf}
    client_stream, server_stream = trio.testing.memory_stream_pair()
    faulty = FaultyStream(server_stream)
    text = "the same text again and again, " * 20
    async with (
        open_broadcast(policy=DropOldest()) as broadcast,
        open_pair(server=server, streams=(client_stream, faulty)) as (one, one_ws),
        open_pair(server=server) as (two, two_ws),
        open_pair(server=plain) as (three, three_ws),
    ):
        with (
            broadcast.subscribe(one_ws, "t", max_queued_messages=4 if slow else 100),
            broadcast.subscribe(two_ws, "t"),
            broadcast.subscribe(three_ws, "t"),
        ):
            if slow:
                faulty.stall_sends()
            expected: list[str] = []
            for number in range(8):
                await one_ws.send(f"direct {number} {text}")
                broadcast.publish(f"{number} {text}", "t")
                broadcast.publish(f"{number} short", "t")
                broadcast.publish(f"{number} forced {text[:60]}", "t", compress=True)
                broadcast.publish(f"{number} not {text}", "t", compress=False)
                expected += [f"{number} {text}", f"{number} short", f"{number} forced {text[:60]}"]
                expected += [f"{number} not {text}"]
            faulty.go_on()
            for peer in (two, three):
                assert [await peer.receive() for _ in expected] == expected
            await one_ws.send("end")
            received: list[str | bytes] = []
            while not received or received[-1] != "end":
                received.append(await one.receive())
            if not slow:
                assert [m for m in received if m in expected] == expected
            assert [m for m in received if str(m).startswith("direct")] == [
                f"direct {number} {text}" for number in range(8)
            ]
            assert two_ws.statistics().compression_sent is not None
            assert three_ws.statistics().compression_sent is None
            assert two_ws.statistics().bytes_sent < three_ws.statistics().bytes_sent


@pytest.mark.parametrize("bits", [9, 12])
@pytest.mark.parametrize("takeover", [True, False])
async def test_another_implementation_reads_what_is_compressed(bits: int, takeover: bool) -> None:
    text = "the same text again and again, " * 20
    expected: list[str] = []
    extension = ClientPerMessageDeflateFactory(
        server_max_window_bits=bits, server_no_context_takeover=not takeover
    )

    def read(url: str) -> list[str | bytes]:
        with connect(url, extensions=[extension], compression=None) as client:
            return list(client)

    async with open_broadcast() as broadcast:

        async def send(ws: WebSocket) -> None:
            with broadcast.subscribe(ws, "t"):
                for number in range(10):
                    async with ws.open_message("text") as writer:
                        await writer.send(f"fragments {number} {text}")
                        broadcast.publish(f"published within {number} {text}", "t")
                        await writer.send(text)
                    await ws.send(f"direct {number} {text}")
                    broadcast.publish(f"published {number} {text}", "t")
                    expected.extend(
                        [
                            f"fragments {number} {text}{text}",
                            f"published within {number} {text}",
                            f"direct {number} {text}",
                            f"published {number} {text}",
                        ]
                    )
            assert "permessage-deflate" in ws.response.headers["Sec-WebSocket-Extensions"]

        deflate = Deflate(threshold=0, server_window_bits=15)
        # The clock jumps while the thread works, so there must not be a time to jump to.
        times = dict.fromkeys(["open_timeout", "close_timeout", "ping_interval"], inf)
        async with open_server(send, compression=deflate, **times) as server:
            with trio.CancelScope(shield=True):
                received = await trio.to_thread.run_sync(read, server.urls[0])
    assert received == expected


async def test_a_client_that_compresses_can_subscribe() -> None:
    options = {"compression": Deflate(threshold=0)}
    async with (
        open_broadcast() as broadcast,
        open_pair(client=options, server=options) as (
            client,
            ws,
        ),
    ):
        with broadcast.subscribe(client, "t"):
            expected: list[str] = []
            for number in range(5):
                await client.send(f"direct {number} direct direct direct")
                broadcast.publish(f"published {number} direct direct direct", "t")
                expected += [
                    f"direct {number} direct direct direct",
                    f"published {number} direct direct direct",
                ]
            broadcast.publish("", "t")
            assert [await ws.receive() for _ in range(11)] == [*expected, ""]
            ratio = client.statistics().compression_sent
            assert ratio is not None
            assert ratio > 1
