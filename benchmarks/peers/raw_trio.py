"""No WebSocket at all: trio sends back the bytes that it receives. What is left for a library."""

from __future__ import annotations

import ssl

import trio

from benchmarks.subject import HOST, Mode, announce, main

#: Bytes asked for at once, as trio_ws does.
READ_SIZE = 64 * 1024


async def echo(stream: trio.abc.Stream) -> None:
    try:
        while data := await stream.receive_some(READ_SIZE):
            await stream.send_all(data)
    except trio.BrokenResourceError:
        pass  # the load is done, and does not say good-bye


async def serve(context: ssl.SSLContext) -> None:
    async def echo_tls(stream: trio.SocketStream) -> None:
        await echo(trio.SSLStream(stream, context, server_side=True, https_compatible=True))

    async with trio.open_nursery() as nursery:
        ports: dict[Mode, int] = {}
        for mode, handler in ((Mode.ECHO, echo), (Mode.TLS, echo_tls)):
            listeners = await trio.open_tcp_listeners(0, host=HOST)
            nursery.start_soon(trio.serve_listeners, handler, listeners)
            ports[mode] = listeners[0].socket.getsockname()[1]
        announce(ports)


if __name__ == "__main__":
    main(trio.run, serve)
