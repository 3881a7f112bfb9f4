"""picows, on uvloop, by its listener interface; messages stay bytes, as in its own examples.

It uses aiofastnet by itself where that is installed. It has no compression at this level.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect, ws_create_server

from benchmarks.subject import HOST, Mode, announce, main, run_uvloop

NO_LIMIT = 2**30


class Listener(WSListener):
    """Answers a Close frame, as every listener has to."""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code())
            transport.disconnect()
        else:
            self.on_message(transport, frame)

    def on_message(self, transport: WSTransport, frame: WSFrame) -> None:
        transport.send(frame.msg_type, frame.get_payload_as_bytes())


class Visitor(Listener):
    """What one says, all hear."""

    def __init__(self, present: set[WSTransport]) -> None:
        self._present = present

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._present.add(transport)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._present.discard(transport)

    def on_message(self, transport: WSTransport, frame: WSFrame) -> None:
        kind, message = frame.msg_type, frame.get_payload_as_bytes()
        for one in self._present:
            one.send(kind, message)


class Talker(WSListener):
    """Sends a message for each that comes."""

    def __init__(self, message: bytes, in_flight: int) -> None:
        self._message = message
        self._in_flight = in_flight

    def on_ws_connected(self, transport: WSTransport) -> None:
        for _ in range(self._in_flight):
            transport.send(WSMsgType.TEXT, self._message)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        transport.send(WSMsgType.TEXT, self._message)


async def listen(factory: Any = Listener, **options: Any) -> int:
    """Serve on a free port."""
    server = await ws_create_server(
        lambda request: factory(), HOST, 0, max_frame_size=NO_LIMIT, **options
    )
    port: int = server.sockets[0].getsockname()[1]
    return port


async def serve(context: ssl.SSLContext) -> None:
    present: set[WSTransport] = set()
    announce(
        {
            Mode.ECHO: await listen(),
            Mode.TLS: await listen(ssl=context),
            Mode.BROADCAST: await listen(lambda: Visitor(present)),
            Mode.BROADCAST_TLS: await listen(lambda: Visitor(present), ssl=context),
            Mode.IDLE: await listen(enable_auto_ping=True),
        }
    )
    await asyncio.Event().wait()


async def talk(url: str, message: str, in_flight: int) -> None:
    payload = message.encode()
    transport, _ = await ws_connect(
        lambda: Talker(payload, in_flight), url, max_frame_size=NO_LIMIT
    )
    await transport.wait_disconnected()


if __name__ == "__main__":
    main(run_uvloop, serve, talk)
