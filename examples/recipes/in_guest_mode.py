"""Runs a server and a client in trio's guest mode: asyncio is the loop, and trio its guest."""

import asyncio

import outcome
import trio

from trio_ws import WebSocket, WebSocketServer, open_websocket_url, serve_websocket


async def echo(ws: WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


async def talk() -> str:
    """The part for trio."""
    async with trio.open_nursery() as nursery:
        server: WebSocketServer = await nursery.start(serve_websocket, echo, "localhost", 0)
        async with open_websocket_url(server.urls[0]) as ws:
            await ws.send("Hello world!")
            answer = await ws.receive_text()
        await server.aclose()
    return answer


async def main() -> None:
    """The part for asyncio."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[outcome.Outcome[str]] = loop.create_future()
    trio.lowlevel.start_guest_run(
        talk,
        run_sync_soon_threadsafe=loop.call_soon_threadsafe,
        done_callback=done.set_result,
        host_uses_signal_set_wakeup_fd=True,
    )
    print((await done).unwrap())


if __name__ == "__main__":
    asyncio.run(main())
